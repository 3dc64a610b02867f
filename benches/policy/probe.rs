//! Packets that are sent all the time, and when they come through.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use crate::site::{SERVER, Site};

/// Between two packets.
const PAUSE: Duration = Duration::from_micros(300);
/// What is closed must be so for this long.
const SILENCE: Duration = Duration::from_millis(60);

/// UDP packets from a pod of another node to a port of the server.
#[derive(Debug)]
pub(crate) struct Probe {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    arrivals: Receiver<Instant>,
}

impl Probe {
    pub(crate) fn start(site: &Site, source: Ipv4Addr, port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let socket = site.server.enter(|| UdpSocket::bind((SERVER, port))).expect("a free port");
        let timeout = Some(Duration::from_millis(20));
        socket.set_read_timeout(timeout).expect("a socket has one");
        let (sender, arrivals) = channel();
        let stopped = Arc::clone(&stop);
        let receive = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if socket.recv(&mut [0; 64]).is_ok() && sender.send(Instant::now()).is_err() {
                    return;
                }
            }
        });
        let stopped = Arc::clone(&stop);
        let send = site.others.spawn(move || {
            let socket = UdpSocket::bind((source, 0)).expect("all those addresses are its own");
            let target = SocketAddr::new(IpAddr::V4(SERVER), port);
            while !stopped.load(Ordering::Relaxed) {
                // Who denies may say so, which is an error of the next packet.
                let _ = socket.send_to(b"probe", target);
                sleep(PAUSE);
            }
        });
        Self { stop, threads: vec![receive, send], arrivals }
    }

    /// Nothing may come through now.
    pub(crate) fn must_be_closed(&self, what: &str) {
        while self.arrivals.try_recv().is_ok() {}
        let end = Instant::now() + SILENCE;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            assert!(self.arrivals.recv_timeout(left).is_err(), "{what} is open, but should not be");
        }
    }

    /// When the first packet comes that has not been asked for yet.
    pub(crate) fn opens(&self, what: &str, patience: Duration) -> Instant {
        match self.arrivals.recv_timeout(patience) {
            Ok(arrival) => arrival,
            Err(error) => panic!("{what} is not open after {patience:?}: {error}"),
        }
    }

    /// When the last packet came through before there were none for `silence`.
    pub(crate) fn closes(&self, what: &str, silence: Duration, patience: Duration) -> Instant {
        let started = Instant::now();
        let mut last = started;
        loop {
            match self.arrivals.recv_timeout(silence) {
                Ok(arrival) => last = arrival,
                Err(RecvTimeoutError::Timeout) => return last,
                Err(error) => panic!("{what}: {error}"),
            }
            assert!(started.elapsed() < patience, "{what} is open after {patience:?}");
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It has said why it failed.
            let _ = thread.join();
        }
    }
}
