use runner::Error as RunError;

use super::Kind;

/// Why the kernel's rules could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program could not be run.
    #[error("cannot run a program that policyd needs")]
    Run(#[from] RunError),
    /// The kernel could not be asked, or a bridge not be had to show its frames.
    #[error("the node's links, sets or tables could not be seen to")]
    Kernel(#[from] netlink::Error),
    /// A program refused.
    #[error("{program} failed: {complaint}{}", place(line))]
    Refused {
        /// The program.
        program: String,
        /// What it said.
        complaint: String,
        /// The line of its input that it complained of.
        line: Option<String>,
    },
    /// A set of ours has gone.
    #[error("set {set} has gone: somebody else destroyed it")]
    NoSuchSet {
        /// The set.
        set: String,
    },
    /// What the node had before is in force beside the new rules.
    #[error(
        "rules of the other backend ({kind}) cannot be removed, and decide as well{}", if matches!(kind, Kind::Iptables) { " (that takes its programs, which the image podwire:VERSION has)" } else { "" }
    )]
    Former {
        /// The other backend.
        kind: Kind,
        /// Why.
        #[source]
        source: Box<Self>,
    },
    /// The kernel has no nf_tables.
    #[error("the kernel has no nf_tables: is CONFIG_NF_TABLES, or module nf_tables, missing?")]
    NoNftables,
    /// A chain of ours is not as it was left.
    #[error("chain {chain} is not as it was left: somebody else changed it")]
    ChainChanged {
        /// The chain.
        chain: String,
    },
    /// Chains of ours cannot be removed.
    #[error(
        "cannot remove chains of table {table}, which are empty now: rules of others lead to {chains}"
    )]
    ChainsInUse {
        /// The family and the name of the table.
        table: String,
        /// The chains, each with those from which rules lead there.
        chains: String,
    },
    /// Sets of ours cannot be removed.
    #[error("cannot remove the sets {sets}: do rules of others look into them?")]
    SetsInUse {
        /// The sets.
        sets: String,
    },
    /// A table cannot be used.
    #[error("cannot use the tables of {program}")]
    Table {
        /// The program that showed it.
        program: String,
        /// Why.
        #[source]
        source: ruleset::iptables::Error,
    },
}

impl Error {
    /// Whether the node lacks what it takes, which does not come by itself.
    pub(crate) const fn is_lack(&self) -> bool {
        use netlink::Error as Kernel;
        match self {
            Self::NoNftables => true,
            Self::Kernel(error) => {
                error.is_unsupported()
                    || matches!(
                        error,
                        Kernel::NoBridgeNetfilter { .. }
                            | Kernel::NoBridgeTables { .. }
                            | Kernel::NoInterfaceTables { .. }
                    )
            }
            _ => false,
        }
    }
}

fn place(line: &Option<String>) -> String {
    line.as_ref().map(|line| format!(" (at {line:?})")).unwrap_or_default()
}
