//! Programs that come from outside of the cluster.

use std::path::Path;

use crate::bring_up::Parts;
use crate::error::{Error, Result};

/// Those that others made.
const PEERS: [&str; 11] = [
    "agnhost",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
];

/// Whether all is there that a cluster needs.
///
/// # Errors
/// [`Error::Missing`].
pub(crate) fn check(parts: &Parts) -> Result<()> {
    let there = |path: &Path, remedy| match path.exists() {
        true => Ok(()),
        false => Err(Error::Missing { path: path.to_owned(), remedy }),
    };
    for peer in PEERS {
        there(&parts.peers.join(peer), "`make cluster-setup` builds it")?;
    }
    for image in ["agnhost", "coredns", "pause", "podwire", "podwire-nftables"] {
        let file = parts.images.join(format!("{image}.tar"));
        there(&file, "`make cluster-setup` makes it")?;
    }
    there(Path::new("/usr/sbin/runc"), "install the package runc")?;
    there(&parts.conf.join("kubernetes/overlays"), "it is a part of podwire's source")
}
