//! What the kernel, or the way to it, refuses.

use std::io;

use nix::errno::Errno;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused.
    #[error("cannot {what}{}{explanation}", if explanation.is_empty() { "" } else { ": " })]
    Refused {
        /// What was tried, with the object's name.
        what: String,
        /// The kernel's explanation; may be empty.
        explanation: String,
        /// Its error number.
        #[source]
        errno: Errno,
    },
    /// The socket failed.
    #[error("cannot {what}: netlink socket")]
    Socket {
        /// What was tried.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A transaction is larger than the node lets a socket be written.
    #[error(
        "cannot {what}: that takes {bytes} bytes at once, and the socket takes {limit}: set net.core.wmem_max to {needed} or more on the node, or let this process have CAP_NET_ADMIN outside of user namespaces", needed = bytes.div_ceil(2) + 32
    )]
    TooLarge {
        /// What was tried.
        what: String,
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        limit: usize,
    },
    /// The kernel answered what it should not.
    #[error("cannot {what}: unexpected answer of the kernel: {problem}")]
    Answer {
        /// What was tried.
        what: String,
        /// What was wrong with the answer.
        problem: String,
    },
    /// A dump kept being interrupted by changes.
    #[error("cannot {what}: it kept changing while it was listed")]
    Interrupted {
        /// What was tried.
        what: String,
    },
    /// The kernel does not pass what is bridged to iptables.
    #[error(
        "bridge {bridge:?} cannot show its frames to the filters of packets: is module br_netfilter loaded? Where the kernel has none, pods that are routed (ptp) need no bridge"
    )]
    NoBridgeNetfilter {
        /// The bridge's name.
        bridge: String,
    },
    /// The kernel has no nf_tables for what is bridged.
    #[error(
        "cannot {what}: does the kernel have nf_tables for bridges (CONFIG_NF_TABLES_BRIDGE, module nf_tables)?"
    )]
    NoBridgeTables {
        /// What was tried.
        what: String,
    },
    /// The kernel has no nf_tables for single interfaces.
    #[error(
        "cannot {what}: does the kernel have nf_tables for interfaces (CONFIG_NF_TABLES_NETDEV, CONFIG_NETFILTER_INGRESS, module nf_tables)?"
    )]
    NoInterfaceTables {
        /// What was tried.
        what: String,
    },
}

impl Error {
    /// The kernel's error number, if it was the kernel that refused.
    #[must_use]
    pub const fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// Whether the kernel lacks what it was asked for: a family of tables, or a hook.
    #[must_use]
    pub const fn is_unsupported(&self) -> bool {
        matches!(self.errno(), Some(Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT))
    }
}
