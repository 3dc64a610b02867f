//! Traffic, from inside of a namespace: see [`crate::Bed::inside`].

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use crate::bed::{Bed, Pod, await_that};
use crate::objects::PORT;

/// What passes is answered within milliseconds; on a busy machine somewhat later.
const ANSWER: Duration = Duration::from_secs(5);

/// What is dropped is not answered within this time either.
const SILENCE: Duration = Duration::from_millis(700);

/// policyd, kube-proxy and a kubelet may take this long until they have done what was asked.
const TAKEN_UP: Duration = Duration::from_secs(30);

/// A connection to one of agnhost's servers, over which requests go one after the other.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Opens one.
    ///
    /// # Errors
    /// Nobody answers within `bound`.
    pub fn open(to: SocketAddr, bound: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, bound)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks for a path and returns what is there.
    ///
    /// # Errors
    /// The connection has broken, or nobody answers in time.
    pub fn ask(&mut self, path: &str) -> io::Result<String> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: server\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().map_err(io::Error::other)?;
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}

/// Who answers at an address: the server's host name, which is its pod's.
///
/// # Errors
/// Nobody answers in time.
pub fn who(to: SocketAddr) -> io::Result<String> {
    Connection::open(to, ANSWER)?.ask("/hostname")
}

/// Whom the server at an address takes the caller for.
///
/// # Errors
/// Nobody answers in time.
pub fn seen_as(to: SocketAddr) -> io::Result<String> {
    Connection::open(to, ANSWER)?.ask("/clientip")
}

/// Where the server of a pod listens, by each of its addresses.
pub fn sockets(pod: &Pod) -> impl Iterator<Item = SocketAddr> + '_ {
    pod.addresses.iter().map(|address| SocketAddr::new(*address, PORT))
}

impl Bed {
    /// Asserts that one pod reaches the other by all its addresses, soon.
    ///
    /// # Panics
    /// It does not.
    pub fn must_reach(&self, from: &Pod, to: &Pod) {
        for socket in sockets(to) {
            let what = format!("{} reaches {} at {socket}", from.name, to.name);
            await_that(&what, TAKEN_UP, || {
                self.inside(from, || who(socket)).is_ok_and(|name| name == to.name)
            });
        }
    }

    /// Asserts that soon one pod no longer reaches the other by any address.
    ///
    /// # Panics
    /// It does.
    pub fn must_not_reach(&self, from: &Pod, to: &Pod) {
        for socket in sockets(to) {
            let what = format!("{} does not reach {} at {socket}", from.name, to.name);
            await_that(&what, TAKEN_UP, || {
                self.inside(from, || Connection::open(socket, SILENCE)).is_err()
            });
        }
    }

    /// Begins to ask one pod from the other, over one connection, until the end is asked for.
    ///
    /// # Panics
    /// There is no connection.
    #[must_use]
    pub fn stream(&self, from: &Pod, to: &Pod) -> Stream {
        let (door, socket) = (self.door(from), sockets(to).next().unwrap());
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            setns(&door, CloneFlags::CLONE_NEWNET).unwrap();
            let mut connection = Connection::open(socket, ANSWER)?;
            let mut answers = 0;
            while !told.load(Ordering::Relaxed) {
                connection.ask("/hostname")?;
                answers += 1;
                thread::sleep(Duration::from_millis(20));
            }
            Ok(answers)
        });
        Stream { is_over, thread }
    }
}

/// Requests that go on over one connection.
#[derive(Debug)]
pub struct Stream {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<u32>>,
}

impl Stream {
    /// Ends it, and returns how many requests were answered.
    ///
    /// # Panics
    /// The connection has broken before.
    #[must_use]
    pub fn end(self) -> u32 {
        self.is_over.store(true, Ordering::Relaxed);
        let answers = self.thread.join().unwrap();
        answers.unwrap_or_else(|error| panic!("an established connection has broken: {error}"))
    }
}

/// An address as text for a URL.
#[must_use]
pub fn in_url(address: IpAddr) -> String {
    SocketAddr::new(address, 0).to_string().trim_end_matches(":0").to_owned()
}
