//! Traffic really flows, where it should and only there.

mod bridge;
mod firewall;
mod firewalld;
mod hairpin;
mod limited;
mod masquerade_agent;
mod network;
mod portmap;
mod routed;
mod source_based;
