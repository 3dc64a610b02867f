//! New connections, one after the other, of which none may fail.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use crate::bed::{Bed, Pod};
use crate::traffic::who;

/// Between two connections.
const PAUSE: Duration = Duration::from_millis(10);

/// New connections that go on without an end.
#[derive(Debug)]
pub struct Connections {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Result<u32, String>>,
}

impl Bed {
    /// Begins to connect from a pod to each of these places in turn, each time anew, and to ask who answers, until the end is asked
    /// for.
    ///
    /// # Panics
    /// The pod has no namespace.
    #[must_use]
    pub fn connections_to(&self, from: &Pod, places: Vec<SocketAddr>) -> Connections {
        let door = self.door(from);
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        let thread = thread::spawn(move || connect(&door, &places, &told));
        Connections { is_over, thread }
    }
}

fn connect(door: &File, places: &[SocketAddr], is_over: &AtomicBool) -> Result<u32, String> {
    setns(door, CloneFlags::CLONE_NEWNET).unwrap();
    let before = repeated();
    let mut count = 0;
    while !is_over.load(Ordering::Relaxed) {
        for place in places {
            who(*place).map_err(|error| format!("connection {count}, to {place}: {error}"))?;
            count += 1;
        }
        thread::sleep(PAUSE);
    }
    match repeated() - before {
        0 => Ok(count),
        lost => Err(format!("of {count} connections {lost} had to be asked for again")),
    }
}

/// How often the calling thread's namespace had to ask for a connection again, as nobody had answered.
fn repeated() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let place = names.split(' ').position(|it| it == "TCPSynRetrans").unwrap();
    values.split(' ').nth(place).unwrap().parse().unwrap()
}

impl Connections {
    /// Ends them, and returns how many there were.
    ///
    /// # Panics
    /// One has failed, or nobody answered it at once.
    #[must_use]
    pub fn end(self) -> u32 {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap().unwrap_or_else(|error| panic!("{error}"))
    }
}
