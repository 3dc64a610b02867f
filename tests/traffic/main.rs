//! Traffic really flows, where it should and only there.

mod bridge;
mod hairpin;
mod network;
mod routed;
