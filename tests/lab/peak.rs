//! The most memory that a plugin has had.
//!
//! `VmHWM` belongs to the address space that exec made (`ru_maxrss` begins with the parent's), and
//! is read when the process stops at its exit, under ptrace.

use std::fs;
use std::os::unix::process::CommandExt;

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::call::{Call, Reply};
use crate::node::Node;
use crate::suite::Suite;

impl Call {
    /// Runs the plugin of `suite` on `node` to its end; its answer, and its peak memory in KiB.
    #[must_use]
    pub fn run_measured(&self, node: &Node, suite: &Suite) -> (Reply, u64) {
        let mut command = self.command(suite);
        #[expect(
            unsafe_code,
            reason = "only the child itself can ask to be traced from its exec on"
        )]
        // SAFETY: one system call, nothing is allocated.
        unsafe {
            command.pre_exec(|| Ok(ptrace::traceme()?));
        }
        let started = self.start_command(command, node, suite);
        let peak = trace_to_exit(started.pid());
        (started.finish(), peak)
    }
}

/// Stops the process when it is about to end, reads its peak memory, and lets it go.
fn trace_to_exit(pid: Pid) -> u64 {
    let mut is_first_stop = true;
    loop {
        let signal = match waitpid(pid, None).expect("it is our child") {
            WaitStatus::Stopped(_, Signal::SIGTRAP) if is_first_stop => {
                is_first_stop = false;
                let options = Options::PTRACE_O_TRACEEXIT;
                ptrace::setoptions(pid, options).expect("the child is stopped");
                None
            }
            WaitStatus::PtraceEvent(..) => break,
            WaitStatus::Stopped(_, signal) => Some(signal),
            other => panic!("a traced plugin ended with {other:?}"),
        };
        ptrace::cont(pid, signal).expect("the child is stopped");
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the child is stopped");
    ptrace::detach(pid, None).expect("the child is stopped");
    let number =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).expect("an address space is there until the exit")
}
