//! What policyd puts into the kernel does what the objects say: real packets between pods that
//! podwire's own plugins wired, held against the oracle.

/// Each of these functions is a test for either wiring.
macro_rules! on_both_wirings {
    ($($test:ident),*) => {
        mod ptp {
            $(#[test] fn $test() { super::$test(crate::cluster::Wiring::Ptp); })*
        }
        mod bridge {
            $(#[test] fn $test() { super::$test(crate::cluster::Wiring::Bridge); })*
        }
    };
}

mod bypass;
mod changes;
mod cluster;
mod forging;
mod identity;
mod node;
mod node_port;
mod objects;
mod odd_packets;
mod order;
mod paths;
mod prober;
mod random;
mod saved;
mod semantics;
mod snapshots;
mod table;
