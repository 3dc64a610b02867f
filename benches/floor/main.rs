//! The floor: what the work of a plugin costs when nothing is done but the work.
//!
//! One process that makes the same netlink requests, sysctl writes and lease-file calls as podwire
//! does for one fixed configuration, from hand-made bytes: no JSON is parsed, nothing is checked
//! that the kernel does not check, nothing is undone, no memory is allocated. It is started as a
//! plugin is (variables, stdin, one JSON document on stdout), so that podwire's time divided by
//! its own tells what generality costs.
//!
//! Two more variables say what to do: `FLOOR_MODE` (`bridge-v4`, `bridge-dual`, `ptp-v4`,
//! `ptp-dual`, `loopback`, `host-local`) and `FLOOR_DATA_DIR`, where the leases are.
#![no_main]

mod bridge;
mod environment;
mod lease;
mod loopback;
mod message;
mod netlink;
mod output;
mod ptp;
mod requests;
mod system;
mod text;
mod veth;

use std::ffi::{c_char, c_int};

use environment::Environment;
use system::Failure;

/// The C library's entry point: the standard library's own does a dozen system calls first.
///
/// # Safety
/// Only the C library calls it: `variables` is the process's environment.
#[unsafe(no_mangle)]
#[expect(unsafe_code, reason = "the entry point must have its C name and arguments")]
pub unsafe extern "C" fn main(
    _argc: c_int,
    _argv: *const *const c_char,
    variables: *const *const c_char,
) -> c_int {
    // SAFETY: it is the process's environment, and nobody changes it.
    let environment = unsafe { Environment::read(variables) };
    match run(&environment) {
        Ok(()) => 0,
        Err(failure) => {
            failure.print();
            1
        }
    }
}

fn run(environment: &Environment) -> Result<(), Failure> {
    system::read_stdin()?;
    let is_dual = environment.mode.ends_with("-dual");
    match (environment.mode, environment.command) {
        ("bridge-v4" | "bridge-dual", "ADD") => bridge::add(environment, is_dual),
        ("ptp-v4" | "ptp-dual", "ADD") => ptp::add(environment, is_dual),
        ("bridge-v4" | "bridge-dual" | "ptp-v4" | "ptp-dual", "DEL") => {
            veth::delete(environment)?;
            lease::release(environment, is_dual)
        }
        ("loopback", "ADD") => loopback::add(environment),
        ("loopback", "DEL") => loopback::del(environment),
        ("host-local", "ADD") => {
            let leases = lease::take(environment, false)?;
            output::print(environment, &[], Some(&leases))
        }
        ("host-local", "DEL") => lease::release(environment, false),
        _ => {
            Err(Failure::new("FLOOR_MODE or CNI_COMMAND: no such work", nix::errno::Errno::EINVAL))
        }
    }
}
