//! A whole cluster on this machine: etcd, the control plane, and nodes with containerd and a kubelet,
//! in namespaces of its own. Nothing of the machine's own network, mounts and parameters is changed.

pub mod arguments;
pub mod bring_up;
mod cgroups;
mod coredns;
pub mod error;
pub mod files;
pub mod inside;
pub mod kubectl;
mod manifest;
mod mounts;
mod networks;
pub mod process;
mod programs;
mod running;
mod services;
pub mod settings;
pub mod state;
pub mod supervisor;
pub mod switch;
