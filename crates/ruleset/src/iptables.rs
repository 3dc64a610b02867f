//! Chains and rules of iptables.

mod chain;
mod jump;
mod rule;
mod saved;
mod transaction;

pub use chain::{Chain, RuleHash};
pub use jump::Jump;
pub use rule::{Match, Packets, PortRange, Rule, Side, Target};
pub use saved::{RuleCounter, Saved};
pub use transaction::Transaction;

/// Why the output of `iptables-save` cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another agent of the node made a table that this kind of iptables cannot show.
    #[error(
        "table {table} cannot be shown by iptables: another program made it by nf_tables in a way that iptables does not know ({line:?})"
    )]
    Incompatible {
        /// The table.
        table: String,
        /// What iptables said.
        line: String,
    },
}
