//! Traffic, from inside of a namespace: see [`crate::Bed::inside`].

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use crate::bed::{Bed, Pod, await_that};
use crate::objects::{DATAGRAMS, PORT};

/// What passes is answered within milliseconds; on a busy machine somewhat later.
const ANSWER: Duration = Duration::from_secs(20);

/// What is dropped is not answered within this time either.
const SILENCE: Duration = Duration::from_millis(700);

/// A datagram is sent after this long each time, by who tries without an end.
const PAUSE: Duration = Duration::from_millis(5);

/// What asks an agnhost for its name.
const ASK: &[u8] = b"hostname";

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

/// Who answers datagrams at an address, as [`who`].
///
/// # Errors
/// Nobody answers in time.
pub fn who_by_datagram(to: SocketAddr) -> io::Result<String> {
    ask_by_datagram(to, ANSWER)
}

/// Whether a connection to there, and a datagram, are answered soon.
#[must_use]
pub fn answers(connections: SocketAddr, datagrams: SocketAddr) -> (bool, bool) {
    let is_open = Connection::open(connections, SILENCE).is_ok();
    (is_open, ask_by_datagram(datagrams, SILENCE).is_ok())
}

fn ask_by_datagram(to: SocketAddr, bound: Duration) -> io::Result<String> {
    let socket = towards(to)?;
    socket.set_read_timeout(Some(bound))?;
    socket.send(ASK)?;
    let mut answer = [0; 256];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// A socket for datagrams to there.
fn towards(to: SocketAddr) -> io::Result<UdpSocket> {
    let any = if to.is_ipv4() {
        IpAddr::from(Ipv4Addr::UNSPECIFIED)
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    Ok(socket)
}

/// Where the server of a pod answers datagrams, by each of its addresses.
pub fn datagram_sockets(pod: &Pod) -> impl Iterator<Item = SocketAddr> + '_ {
    pod.addresses.iter().map(|address| SocketAddr::new(*address, DATAGRAMS))
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
        self.stream_to(from, sockets(to).next().unwrap())
    }

    /// The same of whoever is there.
    ///
    /// # Panics
    /// There is no connection.
    #[must_use]
    pub fn stream_to(&self, from: &Pod, socket: SocketAddr) -> Stream {
        let door = self.door(from);
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

/// Tries to reach a pod that go on without a pause.
#[derive(Debug)]
pub struct Attempts {
    is_over: Arc<AtomicBool>,
    threads: [JoinHandle<Outcome>; 2],
}

/// What came of tries.
#[derive(Debug, Default)]
struct Outcome {
    /// How many there were.
    tries: u32,
    /// How many were answered.
    answers: u32,
}

impl Bed {
    /// Begins to try to reach one pod from the other by all its addresses, with datagrams and new
    /// connections, until the end is asked for.
    #[must_use]
    pub fn attempts(&self, from: &Pod, to: &Pod) -> Attempts {
        let is_over = Arc::new(AtomicBool::new(false));
        let start = |door, targets: Vec<SocketAddr>, go: Tries| {
            let told = Arc::clone(&is_over);
            thread::spawn(move || inside(&door, || go(&targets, &told)))
        };
        let datagrams = start(self.door(from), datagram_sockets(to).collect(), send_datagrams);
        let connections = start(self.door(from), sockets(to).collect(), open_connections);
        Attempts { is_over, threads: [datagrams, connections] }
    }
}

/// What tries, until it is told to end.
type Tries = fn(&[SocketAddr], &AtomicBool) -> io::Result<Outcome>;

fn inside(door: &File, f: impl FnOnce() -> io::Result<Outcome>) -> Outcome {
    setns(door, CloneFlags::CLONE_NEWNET).unwrap();
    f().unwrap()
}

/// None of them belongs to a flow before the first was let through.
fn send_datagrams(targets: &[SocketAddr], is_over: &AtomicBool) -> io::Result<Outcome> {
    let sockets = targets.iter().map(|to| towards(*to)).collect::<io::Result<Vec<_>>>()?;
    sockets.iter().try_for_each(|it| it.set_nonblocking(true))?;
    let mut outcome = Outcome::default();
    while !is_over.load(Ordering::Relaxed) {
        for socket in &sockets {
            outcome.tries += 1;
            // An error is what a refusal of before is told by.
            let _ = socket.send(ASK);
            outcome.answers += u32::from(socket.recv(&mut [0; 256]).is_ok());
        }
        thread::sleep(PAUSE);
    }
    Ok(outcome)
}

fn open_connections(targets: &[SocketAddr], is_over: &AtomicBool) -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    while !is_over.load(Ordering::Relaxed) {
        for to in targets {
            outcome.tries += 1;
            outcome.answers += u32::from(Connection::open(*to, SILENCE / 4).is_ok());
            thread::sleep(PAUSE);
        }
    }
    Ok(outcome)
}

impl Attempts {
    /// Ends them, and asserts that there were some, by datagrams and by connections, and none was
    /// answered.
    ///
    /// # Panics
    /// One was, or they could not be made.
    pub fn were_denied(self) {
        self.is_over.store(true, Ordering::Relaxed);
        for outcome in self.threads.map(|thread| thread.join().unwrap()) {
            assert!(outcome.tries > 10 && outcome.answers == 0, "{outcome:?}");
        }
    }
}

/// An address as text for a URL.
#[must_use]
pub fn in_url(address: IpAddr) -> String {
    SocketAddr::new(address, 0).to_string().trim_end_matches(":0").to_owned()
}
