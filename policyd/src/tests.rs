//! The semantics of NetworkPolicy, one behaviour a test, on objects as Kubernetes has them.

mod defaults;
mod index;
mod lifecycle;
mod peers;
mod ports;
mod problems;
pub(crate) mod properties;
mod reasons;
pub(crate) mod scene;
mod traffic;
