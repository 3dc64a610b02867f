//! Traffic: sockets of this process, opened inside namespaces.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::space::Space;

/// Within this time traffic must flow: fresh IPv6 addresses need up to two seconds.
const PATIENCE: Duration = Duration::from_secs(15);
/// For so long nothing must get through, when that is what a test wants to see.
const SILENCE: Duration = Duration::from_millis(1200);
/// One try.
const TRY: Duration = Duration::from_millis(700);

const QUESTION: &[u8] = b"are you there?";

/// A kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// A connection, a question and an answer.
    Tcp,
    /// A datagram and its answer.
    Udp,
}

/// A server that answers questions for as long as it lives; it says where each came from.
#[derive(Debug)]
pub struct Server {
    protocol: Protocol,
    port: u16,
}

impl Server {
    /// Starts a server on any port of all addresses of the family of `like`.
    #[must_use]
    pub fn start(space: &Space, protocol: Protocol, like: IpAddr) -> Self {
        Self::start_at(space, protocol, like, 0)
    }

    /// Starts a server on a given port.
    #[must_use]
    pub fn start_at(space: &Space, protocol: Protocol, like: IpAddr, port: u16) -> Self {
        let any: IpAddr = if like.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let local = SocketAddr::new(any, port);
        let bound = space.enter(|| -> io::Result<SocketAddr> {
            match protocol {
                Protocol::Tcp => {
                    let listener = TcpListener::bind(local)?;
                    let bound = listener.local_addr()?;
                    thread::spawn(move || answer_connections(&listener));
                    Ok(bound)
                }
                Protocol::Udp => {
                    let socket = UdpSocket::bind(local)?;
                    let bound = socket.local_addr()?;
                    thread::spawn(move || answer_datagrams(&socket));
                    Ok(bound)
                }
            }
        });
        let bound = bound.unwrap_or_else(|error| panic!("cannot listen on {local}: {error}"));
        Self { protocol, port: bound.port() }
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Asks it from `client` at `address`; returns the address that the server saw, `None` when
    /// no answer came within the time.
    fn ask(&self, client: &Space, address: SocketAddr, patience: Duration) -> Option<IpAddr> {
        client.enter(|| {
            let started = Instant::now();
            loop {
                let tried = Instant::now();
                let answer = match self.protocol {
                    Protocol::Tcp => ask_by_tcp(address),
                    Protocol::Udp => ask_by_udp(address),
                };
                if let Ok(seen) = answer {
                    return Some(seen);
                }
                if started.elapsed() > patience {
                    return None;
                }
                // A refusal comes at once: no busy loop.
                thread::sleep(Duration::from_millis(20).saturating_sub(tried.elapsed()));
            }
        })
    }
}

/// Traffic must flow from `client` to `server` at `address`, both ways, with each protocol.
/// Returns the address that the server saw the client at.
pub fn must_reach(client: &Space, server: &Space, address: &str) -> IpAddr {
    let address: IpAddr = address.parse().expect("an address");
    let seen = [Protocol::Tcp, Protocol::Udp].map(|protocol| {
        let server = Server::start(server, protocol, address);
        let target = SocketAddr::new(address, server.port);
        server
            .ask(client, target, PATIENCE)
            .unwrap_or_else(|| panic!("no {protocol:?} traffic to {target} within {PATIENCE:?}"))
    });
    assert_eq!(seen[0], seen[1], "TCP and UDP arrive from different addresses");
    seen[0]
}

/// Nothing must get from `client` to `server` at `address`.
pub fn must_not_reach(client: &Space, server: &Space, address: &str) {
    let address: IpAddr = address.parse().expect("an address");
    let server = Server::start(server, Protocol::Udp, address);
    let target = SocketAddr::new(address, server.port);
    let seen = server.ask(client, target, SILENCE);
    assert_eq!(seen, None, "traffic reaches {target}, which it must not");
}

/// A running server must be reached at another address and port (behind a translation).
pub fn must_reach_at(client: &Space, server: &Server, address: &str) -> IpAddr {
    let target: SocketAddr = address.parse().expect("an address and a port");
    server
        .ask(client, target, PATIENCE)
        .unwrap_or_else(|| panic!("no traffic to {target} within {PATIENCE:?}"))
}

/// A running server must not be reached at an address and port.
pub fn must_not_reach_at(client: &Space, server: &Server, address: &str) {
    let target: SocketAddr = address.parse().expect("an address and a port");
    assert_eq!(
        server.ask(client, target, SILENCE),
        None,
        "traffic reaches {target}, which it must not"
    );
}

fn ask_by_tcp(address: SocketAddr) -> io::Result<IpAddr> {
    let mut stream = TcpStream::connect_timeout(&address, TRY)?;
    stream.set_read_timeout(Some(TRY))?;
    stream.write_all(QUESTION)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    parse(&answer)
}

fn ask_by_udp(address: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(TRY))?;
    socket.connect(address)?;
    socket.send(QUESTION)?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    parse(&String::from_utf8_lossy(&buffer[..length]))
}

fn parse(answer: &str) -> io::Result<IpAddr> {
    answer.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not our server"))
}

/// The thread ends with the process; its namespace may end before.
fn answer_connections(listener: &TcpListener) {
    for stream in listener.incoming() {
        let _ = stream.and_then(|mut stream| {
            let mut question = [0; QUESTION.len()];
            stream.set_read_timeout(Some(TRY))?;
            stream.read_exact(&mut question)?;
            let peer = stream.peer_addr()?.ip();
            stream.write_all(peer.to_string().as_bytes())
        });
    }
}

fn answer_datagrams(socket: &UdpSocket) {
    let mut buffer = [0; 64];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
        if &buffer[..length] == QUESTION {
            let _ = socket.send_to(peer.ip().to_string().as_bytes(), peer);
        }
    }
}
