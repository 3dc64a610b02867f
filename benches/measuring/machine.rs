//! What figures were measured on.

use std::fs;
use std::process::Command;

/// Facts as name and value.
#[must_use]
pub fn machine() -> Vec<(&'static str, String)> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    vec![
        ("date", output("date", &["-u", "+%Y-%m-%d"])),
        ("cores", cores.to_string()),
        ("kernel", kernel.trim().to_owned()),
        ("load before", load()),
    ]
}

/// The mean number of running programs in the last minute: on a quiet machine about one is ours.
#[must_use]
pub fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

/// What a program prints; `unknown` where it cannot be run.
#[must_use]
pub fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map_or_else(
        |_| "unknown".into(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
