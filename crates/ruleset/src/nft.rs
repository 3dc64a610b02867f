//! Tables, chains, rules, sets and maps of nf_tables as values. They print in nft's own language, for those
//! who read them; the kernel is told by the crate netlink.

mod chain;
mod decode;
mod matches;
mod rule;
mod set;

pub use chain::{Base, Chain, Family, Hook, Kind, Policy, Table};
pub use matches::{Field, FrameKind, FrameType, Match, mask};
pub use rule::{Rule, Statement, Verdict};
pub use set::{Element, Encoded, Key, Set, Value};
