//! Services: virtual addresses, node ports and load balancers' addresses that lead to pods.
//!
//! [`model`] is the world as services need it, with all defaulting and validation done; [`plan`] says of one service
//! where its connections go, seen from one node. Both are pure: no I/O, no clock. [`nftables`] tells the plan in tables of
//! nf_tables.

pub mod agent;
pub mod config_file;
pub mod conntrack_parameters;
pub mod counters;
pub mod dataplane;
pub mod explain;
pub mod flows;
pub mod index;
pub mod live;
pub mod localhost;
pub mod metrics;
pub mod model;
pub mod nftables;
pub mod plan;
pub mod sorted;
pub mod source;
pub mod sysctl;
pub mod takeover;
pub mod walk;
mod words;
