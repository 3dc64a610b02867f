//! Who is measured.

use std::path::Path;
use std::time::Duration;

use lab::{Daemon, peer, program, proxyd};

use crate::objects::NODE;
use crate::site::Site;

/// A service proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contestant {
    Proxyd,
    /// kube-proxy by nf_tables.
    Nftables,
    /// kube-proxy by iptables.
    Iptables,
}

impl Contestant {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Proxyd => "proxyd",
            Self::Nftables => "kube-proxy, nftables",
            Self::Iptables => "kube-proxy, iptables",
        }
    }

    /// What its tables of nf_tables are called.
    pub(crate) const fn table(self) -> &'static str {
        match self {
            Self::Proxyd => "podwire-proxy",
            Self::Nftables | Self::Iptables => "kube-proxy",
        }
    }

    /// How long it may take for a change to be in force.
    pub(crate) const fn patience(self) -> Duration {
        match self {
            Self::Proxyd => Duration::from_mins(2),
            Self::Nftables | Self::Iptables => Duration::from_mins(20),
        }
    }

    /// How often changes are made. kube-proxy waits for a second between two.
    pub(crate) const fn rounds(self) -> usize {
        match self {
            Self::Proxyd => 50,
            Self::Nftables | Self::Iptables => 10,
        }
    }

    /// Starts it on the node of `site`.
    pub(crate) fn start(self, site: &Site, kubeconfig: &Path) -> Daemon {
        let mut command = match self {
            Self::Proxyd => {
                let mut command = program(proxyd());
                command.args(["--node-name", NODE, "--listen", "off"]);
                command
            }
            Self::Nftables | Self::Iptables => {
                let mode = if self == Self::Nftables { "nftables" } else { "iptables" };
                let mut command = program(peer("kube-proxy"));
                command.args(["--hostname-override", NODE, "--proxy-mode", mode]);
                // Parameters of the machine are none of a namespace's.
                command.args(["--conntrack-max-per-core=0", "--conntrack-min=0"]);
                command.args([
                    "--conntrack-tcp-timeout-established=0",
                    "--conntrack-tcp-timeout-close-wait=0",
                ]);
                command
            }
        };
        command.args(["--cluster-cidr", "10.1.0.0/16"]).arg("--kubeconfig").arg(kubeconfig);
        Daemon::start(self.name(), command, &site.node, site.node.home().join("contestant.log"))
    }
}
