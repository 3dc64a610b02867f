//! Connections to services go where they should, and nowhere else.

mod addresses;
mod affinity;
mod away;
mod beside;
mod client;
mod config_file;
mod conntrack_parameters;
mod daemon;
mod datagrams;
mod endpoints;
mod enormous;
mod explain;
mod health_checks;
mod killed;
mod localhost;
mod many;
mod meddled;
mod metrics;
mod node_ports;
mod objects;
mod policies;
mod scheduler;
mod sctp;
mod server;
mod site;
mod sources;
mod steady;
mod takeover;

/// Each of these by each family.
macro_rules! by_both {
    ($($name:ident)*) => {
        mod by_ipv4 {
            $(#[test] fn $name() { super::$name(true); })*
        }
        mod by_ipv6 {
            $(#[test] fn $name() { super::$name(false); })*
        }
    };
}
pub(crate) use by_both;
