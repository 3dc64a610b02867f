//! Tables, chains and rules of nf_tables as values. They print in nft's own language, for those who
//! read them; the kernel is told by the crate netlink.

mod chain;
mod rule;

pub use chain::{Base, Chain, Family, Hook, Kind, Policy, Table};
pub use rule::{Match, Rule, Verdict};
