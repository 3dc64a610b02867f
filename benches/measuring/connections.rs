//! Connections, one after the other, as many as can be made.
#![expect(clippy::expect_used, reason = "a measurement that fails ends with the reason")]

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

/// The first packets of a link may be lost; TCP sends them again after a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was made in a while.
#[derive(Debug)]
pub struct Connections {
    /// How long each took until it was there.
    pub connects: Vec<Duration>,
    /// All of them, each greeted and ended.
    pub took: Duration,
}

impl Connections {
    /// How many a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.connects.len() as f64 / self.took.as_secs_f64()
    }
}

/// Connects from this thread's namespace to who greets with a byte, for a while.
///
/// # Panics
/// If a connection is refused, or not greeted.
#[must_use]
pub fn connect(target: SocketAddr, during: Duration) -> Connections {
    let started = Instant::now();
    let mut connects = Vec::new();
    while started.elapsed() < during {
        let begun = Instant::now();
        let mut stream = TcpStream::connect_timeout(&target, PATIENCE).expect("somebody listens");
        connects.push(begun.elapsed());
        stream.set_read_timeout(Some(PATIENCE)).expect("an option of sockets");
        // Waited for, so that no connection has to wait for its turn to be accepted.
        stream.read_exact(&mut [0]).expect("a greeting");
        // Ended by a reset: nothing is left to be waited for.
        let at_once = linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&stream, sockopt::Linger, &at_once).expect("an option of sockets");
    }
    Connections { connects, took: started.elapsed() }
}
