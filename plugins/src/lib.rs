//! podwire: every CNI plugin in one program.
//!
//! Called under a plugin's name (`bridge`, `ptp`, `loopback`, `host-local`, `static`, `portmap`, `firewall`, `tuning`,
//! `sbr`, `bandwidth`, `podwire-policy`) it is that plugin; under its own it installs itself, puts itself into others' lists, checks configurations and
//! lists leases.

mod backend;
mod bandwidth;
mod bridge;
mod cli;
mod conf;
mod container_interface;
mod delegated_ipam;
mod error;
mod firewall;
mod ipam_plugins;
mod iptables;
mod kernel_tables;
mod lease;
mod loopback;
mod masquerade;
mod names;
mod nf_tables;
mod owner;
mod plugin;
mod policy;
mod portmap;
mod prev_result;
mod ptp;
mod rollback;
mod sbr;
mod sysctl;
mod teardown;
mod tuning;
mod veth;

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use allocator::Allocator;
pub use cli::check_configuration;
use error::Error;

/// Does what the program was called for; `called_as` is its first argument, a name or a path. What
/// runs for long has `allocator` give memory back.
#[must_use]
pub fn run(called_as: &OsStr, allocator: &Allocator) -> ExitCode {
    let name = Path::new(called_as).file_name().unwrap_or_default().to_string_lossy();
    match plugin::by_name(&name) {
        Some(plugin) => cni::serve::serve(plugin),
        // A runtime passes no arguments, and waits for a document.
        None if std::env::args_os().len() < 2 && cni::serve::is_called_by_runtime() => {
            let (name, known) = (name.into_owned(), plugin::names());
            cni::serve::refuse(&Error::UnknownName { name, known }.into())
        }
        None => cli::run(allocator),
    }
}
