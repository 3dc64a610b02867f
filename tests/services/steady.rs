//! New connections to a service that exists, one after the other: none may fail, nor be asked for twice.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use lab::Space;

use crate::client::{Outcome, try_tcp};

/// Whoever is not answered within this time is not.
const LOST: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(2);
/// So many come to each endpoint at least once.
const FIRST: usize = 20;

/// Connections that go on until the end is asked for.
pub(crate) struct Steady {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Result<u32, String>>,
}

impl Steady {
    pub(crate) fn start(from: &Space, to: SocketAddr) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        Self { is_over, thread: from.spawn(move || connect(to, &told)) }
    }

    /// Ends them; how many there were.
    pub(crate) fn end(self) -> u32 {
        self.is_over.store(true, Ordering::Relaxed);
        let count = self.thread.join().expect("it ends").unwrap_or_else(|why| panic!("{why}"));
        assert!(count > 20, "only {count} connections");
        count
    }
}

fn connect(to: SocketAddr, is_over: &AtomicBool) -> Result<u32, String> {
    // By IPv6 the node asks a pod for its link's address only when it is sure of its own, up to a second after the link came.
    for _ in 0..FIRST {
        ask(to)?;
    }
    let before = asked_again();
    let mut count = 0;
    while !is_over.load(Ordering::Relaxed) {
        ask(to).map_err(|why| format!("after {count}: {why}"))?;
        count += 1;
        sleep(PAUSE);
    }
    match asked_again() - before {
        0 => Ok(count),
        lost => Err(format!("{lost} of {count} connections to {to} had to be asked for again")),
    }
}

fn ask(to: SocketAddr) -> Result<(), String> {
    match try_tcp(to, LOST) {
        Outcome::Answer(..) => Ok(()),
        outcome => Err(format!("a connection to {to}: {outcome:?}")),
    }
}

/// How often the calling thread's namespace had to ask again, as nobody had answered.
fn asked_again() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").expect("the kernel tells");
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let mut words = || lines.next().expect("two lines").split(' ');
    let mut pairs = words().zip(words());
    let (_, count) = pairs.find(|(name, _)| *name == "TCPSynRetrans").expect("it is counted");
    count.parse().expect("a number")
}
