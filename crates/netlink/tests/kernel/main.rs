//! The clients against the kernel, in namespaces that end with each test. Needs root,
//! iptables, nft, ipset, conntrack, ip and ping.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "tests fail by panicking")]

mod bridges;
mod called;
mod changes;
mod closed;
mod conntrack;
mod counted;
mod ipset;
mod iptables;
mod kept_routes;
mod large;
mod links;
mod meanwhile;
mod nflog;
mod nftables;
mod only_ip;
mod parts;
mod ports;
mod received;
mod routed;
mod rules;
mod space;
mod traffic_control;
mod ways;
mod written;
