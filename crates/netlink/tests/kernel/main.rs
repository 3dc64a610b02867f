//! The clients against the kernel, in namespaces that end with each test. Needs root, iptables
//! and ipset.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "tests fail by panicking")]

mod bridges;
mod conntrack;
mod ipset;
mod links;
mod nftables;
mod routed;
mod space;
