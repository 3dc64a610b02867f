//! Clients that tell what became of their connections.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lab::{Space, slowed};

/// Whoever is to be reached is within this time.
const PATIENCE: Duration = Duration::from_secs(15);
/// Whoever does not answer within this time does not: longer than a SYN that is repeated takes.
const SILENCE: Duration = Duration::from_millis(1500);

/// What became of a connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// Who answered, and as whom he sees the client.
    Answer(String, IpAddr),
    /// Nobody is there.
    Refused,
    /// Nothing came back.
    Silence,
}

/// Connects by TCP.
pub(crate) fn connect(from: &Space, to: SocketAddr) -> Outcome {
    from.enter(|| try_tcp(to, slowed(SILENCE)))
}

pub(crate) fn try_tcp(to: SocketAddr, bound: Duration) -> Outcome {
    let mut stream = match TcpStream::connect_timeout(&to, bound) {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Outcome::Refused,
        Err(_) => return Outcome::Silence,
    };
    stream.set_read_timeout(Some(bound)).expect("a time");
    let mut text = String::new();
    match stream.read_to_string(&mut text) {
        Ok(_) => answer(&text),
        Err(_) => Outcome::Silence,
    }
}

/// Asks by UDP, from a socket, until somebody answers: who.
pub(crate) fn must_ask(socket: &UdpSocket) -> String {
    let started = Instant::now();
    loop {
        let outcome = ask(socket);
        if let Outcome::Answer(name, _) = outcome {
            return name;
        }
        assert!(started.elapsed() < slowed(PATIENCE), "{socket:?}: {outcome:?}");
    }
}

/// Asks by UDP, from a socket, once. What others were answered before is passed over.
pub(crate) fn ask(socket: &UdpSocket) -> Outcome {
    static QUESTIONS: AtomicUsize = AtomicUsize::new(0);
    let question = QUESTIONS.fetch_add(1, Ordering::Relaxed).to_string();
    let (started, bound) = (Instant::now(), slowed(SILENCE));
    // Of a packet that the node itself sends and drops the sender learns at once, and then also why.
    _ = socket.send(question.as_bytes());
    let mut room = [0; 128];
    while let Some(left) = bound.checked_sub(started.elapsed()).filter(|it| !it.is_zero()) {
        socket.set_read_timeout(Some(left)).expect("a time");
        match socket.recv(&mut room) {
            Ok(length) => {
                let text = String::from_utf8_lossy(&room[..length]);
                if let Some((text, _)) = text.rsplit_once(' ').filter(|(_, it)| *it == question) {
                    return answer(text);
                }
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Outcome::Refused,
            Err(_) => {}
        }
    }
    Outcome::Silence
}

/// A socket of UDP that speaks to a place.
pub(crate) fn udp(from: &Space, to: SocketAddr) -> UdpSocket {
    let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
    udp_as(from, any.parse().expect("an address"), to)
}

/// The same from this address.
pub(crate) fn udp_as(from: &Space, address: IpAddr, to: SocketAddr) -> UdpSocket {
    from.enter(|| {
        let socket = UdpSocket::bind((address, 0)).expect("a port");
        socket.connect(to).expect("a route");
        socket
    })
}

fn answer(text: &str) -> Outcome {
    let (name, seen) = text.split_once(' ').unwrap_or_else(|| panic!("an odd answer: {text:?}"));
    Outcome::Answer(name.to_owned(), seen.parse().expect("an address"))
}

/// Connects until somebody answers; who, and as whom he sees the client.
pub(crate) fn must_reach(from: &Space, to: SocketAddr) -> (String, IpAddr) {
    let started = Instant::now();
    loop {
        let outcome = connect(from, to);
        if let Outcome::Answer(name, seen) = outcome {
            return (name, seen);
        }
        assert!(started.elapsed() < slowed(PATIENCE), "{to}: {outcome:?}");
    }
}
