//! Programs that come from outside of the cluster.

use std::path::Path;
use std::time::Duration;

use runner::{OsRunner, Program, Runner};

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

/// Installing takes milliseconds; on a busy machine somewhat more.
const INSTALL: Duration = Duration::from_secs(30);

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
    for image in ["agnhost", "coredns", "pause", "podwire"] {
        let file = parts.images.join(format!("{image}.tar"));
        there(&file, "`make cluster-setup` makes it")?;
    }
    there(&parts.podwire, "`make build` builds it")?;
    there(Path::new("/usr/sbin/runc"), "install the package runc")?;
    for manifest in ["policyd.yaml", "node-network.yaml"] {
        let file = parts.conf.join("kubernetes").join(manifest);
        there(&file, "it is a part of podwire's source")?;
    }
    Ok(())
}

/// Installs podwire's plugins into a folder, as its users do.
///
/// # Errors
/// podwire fails.
pub(crate) fn install(podwire: &Path, folder: &Path) -> Result<()> {
    let folder = folder.display().to_string();
    let args = ["install", "--bin-dir", &folder];
    let timeout = Some(INSTALL);
    let program = Program { file: podwire.to_owned(), args: &args, timeout, ..Program::default() };
    let output = OsRunner.run(&program)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Failed {
        program: format!("podwire {}", args.join(" ")),
        status: output.status.to_string(),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
