//! What a process needs.
#![expect(clippy::expect_used, reason = "a measurement that fails ends with the reason")]

use std::fs;

/// Memory of a process in MB.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// That it has.
    pub now: f64,
    /// The most that it had.
    pub peak: f64,
}

impl Memory {
    /// That of the process of this number.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn of(process: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{process}/status"))
            .expect("it runs, and its log tells why it does not");
        let field = |name: &str| {
            let line =
                status.lines().find(|line| line.starts_with(name)).expect("the kernel tells it");
            let kib: f64 =
                line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
            kib * 1024.0 / 1e6
        };
        Self { now: field("VmRSS:"), peak: field("VmHWM:") }
    }
}
