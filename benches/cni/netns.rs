//! Network namespaces: nodes and pods, each alive for as long as its descriptor.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};

const OWN: &str = "/proc/thread-self/ns/net";
/// The kernel needs a second or two for some hundred namespaces. Others may make some meanwhile.
const CLEARING: Duration = Duration::from_secs(6);

/// A network namespace.
#[derive(Debug)]
pub(crate) struct Netns(File);

impl Netns {
    /// Makes one. This thread stays in its own.
    pub(crate) fn new() -> Self {
        let home = File::open(OWN).expect("/proc is mounted");
        unshare(CloneFlags::CLONE_NEWNET).expect("making namespaces needs root");
        let fresh = File::open(OWN).expect("/proc is mounted");
        setns(home, CloneFlags::CLONE_NEWNET).expect("going back needs root");
        Self(fresh)
    }

    /// Moves this thread, and the programs that it starts from now on, into the namespace.
    pub(crate) fn enter(&self) {
        setns(&self.0, CloneFlags::CLONE_NEWNET).expect("entering namespaces needs root");
    }

    /// A path for `CNI_NETNS`.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// Waits until the kernel has cleared away the namespaces that were given up, down to as many as
/// there were `before`: that takes the same locks as what is measured.
pub(crate) fn wait_until_cleared(before: Option<usize>) {
    let started = Instant::now();
    // The kernel's count is not exact.
    let enough = before.map(|before| before + 12);
    sleep(Duration::from_millis(300));
    while count() > enough && started.elapsed() < CLEARING {
        sleep(Duration::from_millis(100));
    }
}

/// Number of namespaces that the kernel has not freed yet; `None` where it does not tell.
pub(crate) fn count() -> Option<usize> {
    let slabs = fs::read_to_string("/proc/slabinfo").ok()?;
    let line = slabs.lines().find(|line| line.starts_with("net_namespace "))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
