//! Peak memory of one call: what the kernel counted for the plugin's own address space.
//!
//! `ru_maxrss` is of no use, because a child begins with its parent's. `VmHWM` belongs to the
//! address space that exec made; it is read when the process stops at its exit, under ptrace.

use std::fs;
use std::os::unix::process::CommandExt;

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::contestant::Contestant;
use crate::lane::{Bench, Lane};
use crate::work::{BRIDGE, BRIDGE_DUAL, BRIDGE_MASQUERADE, MANY_LEASES, PTP_DUAL, Work};

/// Peak memory of a work's ADD, in KiB, for each contestant in the order of [`Contestant::ALL`].
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) title: &'static str,
    pub(crate) peaks: [Option<u64>; 3],
}

/// Measures the works where most is done. Go's is the plugin's alone, without those that it starts.
pub(crate) fn run(bench: &Bench) -> Vec<Memory> {
    let works = [BRIDGE, BRIDGE_DUAL, BRIDGE_MASQUERADE, PTP_DUAL, MANY_LEASES];
    let measured = works.iter().map(|work| measure(bench, *work)).collect();
    bench.settle();
    measured
}

fn measure(bench: &Bench, work: Work) -> Memory {
    let mut pods = Vec::new();
    let peaks = Contestant::ALL.map(|contestant| {
        if contestant == Contestant::Floor && work.floor.is_none() {
            return None;
        }
        let mut lane = Lane::new(bench, contestant, work, &mut pods);
        let peak = (0..3).map(|_| peak_of_add(&mut lane)).max();
        lane.must_have_first_leases();
        peak
    });
    Memory { title: work.title, peaks }
}

fn peak_of_add(lane: &mut Lane<'_>) -> u64 {
    let pod = lane.pod();
    let mut command = lane.prepare_on_node("ADD", &pod).into_command();
    #[expect(unsafe_code, reason = "only the child itself can ask to be traced from its exec on")]
    // SAFETY: one system call, nothing is allocated.
    unsafe {
        command.pre_exec(|| Ok(ptrace::traceme()?));
    }
    let mut child = command.spawn().expect("the programs were found before");
    let pid = Pid::from_raw(child.id().cast_signed());
    let peak = trace_to_exit(pid);
    ptrace::detach(pid, None).expect("the child is stopped");
    let status = child.wait().expect("it is our child");
    assert!(status.success(), "a traced ADD ended with {status}");
    lane.call("DEL", &pod);
    peak
}

/// Lets the process run until it is about to end, and stops it there; its peak memory.
fn trace_to_exit(pid: Pid) -> u64 {
    let mut is_first_stop = true;
    loop {
        // Of a thread group only the leader is traced: the threads of Go are not ours.
        let status = waitpid(pid, Some(WaitPidFlag::__WALL)).expect("it is our child");
        let signal = match status {
            WaitStatus::Stopped(_, Signal::SIGTRAP) if is_first_stop => {
                is_first_stop = false;
                let options = Options::PTRACE_O_TRACEEXIT;
                ptrace::setoptions(pid, options).expect("the child is stopped");
                None
            }
            WaitStatus::PtraceEvent(..) => return high_water_mark(pid),
            WaitStatus::Stopped(_, signal) => Some(signal),
            other => panic!("a traced ADD ended with {other:?}"),
        };
        ptrace::cont(pid, signal).expect("the child is stopped");
    }
}

/// `VmHWM` of a process, in KiB.
fn high_water_mark(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the child is stopped");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).expect("an address space is there until the exit")
}
