//! The plan in tables of nf_tables, one for each family.
//!
//! What a packet is for is looked up by its destination in the map `services`, which leads to a [`Kind`]: a number, by
//! which the small map `chains` leads on. So a service that comes or goes is data: were it a map of verdicts, the kernel would
//! go through all of it at each change (`nf_tables_validate`: 12 ms with 44,000 services). Which endpoints there are the map
//! `pools` says, again a number, and the map `endpoints` has all endpoints of all pools, by that number and a place. A
//! place is drawn, or hashed of the client's address, among so many as there are, which is a constant of a rule: so services with as many endpoints share a
//! chain.
//!
//! Numbers are carried from rule to rule as the packet's priority (`skb->priority`): rules cannot share registers. Only
//! the first packet of each connection comes here, and ours differ from whatever else is there by their high bits.

mod content;
mod kind;
mod layout;
mod rules;

pub use content::{
    Content, Exhausted, Held, Key, Level, Map, Numbers, Render, element, read, read_single,
    untagged,
};
pub use kind::{Hidden, Kind, Pick};
pub(crate) use layout::{AFFINITY, GUARD_LOCALHOST};
pub use layout::{TABLE, chain, sets, table};
pub use rules::{Local, Rules, Scheduler, Settings};
