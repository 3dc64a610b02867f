//! Constant traffic between pods: what is allowed must never be lost, and what is denied must never
//! arrive.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use lab::{Pod, slowed};

const PORT: u16 = 7000;
/// An answer that takes longer has been lost.
const LOST: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(4);

/// Traffic from `client`, which is allowed, and from `other`, which is not, to a server.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    allowed: Vec<JoinHandle<u64>>,
    denied: Vec<JoinHandle<u64>>,
    arrivals: JoinHandle<u64>,
}

impl Traffic {
    pub(crate) fn start(
        client: &Pod,
        other: &Pod,
        server: &Pod,
        server_addresses: &[IpAddr],
        other_addresses: &[IpAddr],
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let arrivals = serve(server, server_addresses, other_addresses, &stop);
        let mut traffic = Self { stop, allowed: Vec::new(), denied: Vec::new(), arrivals };
        for address in server_addresses {
            let target = SocketAddr::new(*address, PORT);
            for run in [new_datagrams, new_connections, one_connection] {
                let stop = Arc::clone(&traffic.stop);
                traffic.allowed.push(client.spawn(move || run(target, &stop)));
            }
            let stop = Arc::clone(&traffic.stop);
            traffic.denied.push(other.spawn(move || knock(target, &stop)));
        }
        traffic
    }

    /// Ends it. What was lost or arrived against the rules fails the test; returns how many
    /// answers came, and how many packets were denied.
    pub(crate) fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let sum = |threads: Vec<JoinHandle<u64>>| {
            threads.into_iter().map(|it| it.join().expect("nothing is lost")).sum::<u64>()
        };
        let (allowed, denied) = (sum(self.allowed), sum(self.denied));
        let leaked = self.arrivals.join().expect("the server works");
        assert_eq!(leaked, 0, "denied packets arrived");
        (allowed, denied)
    }
}

/// Segments that TCP had to send again: of what was lost, or of connections that were cut.
pub(crate) fn retransmissions(pod: &Pod) -> u64 {
    let text = pod.sh("cat /proc/self/net/snmp");
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let place = names.split(' ').position(|it| it == "RetransSegs").unwrap();
    values.split(' ').nth(place).unwrap().parse().unwrap()
}

/// Answers, and counts what comes from the forbidden addresses.
fn serve(
    pod: &Pod,
    addresses: &[IpAddr],
    forbidden: &[IpAddr],
    stop: &Arc<AtomicBool>,
) -> JoinHandle<u64> {
    let (stop, forbidden) = (Arc::clone(stop), forbidden.to_vec());
    let (sockets, listeners): (Vec<_>, Vec<_>) = pod.enter(|| {
        let both = |it: &IpAddr| {
            let socket = UdpSocket::bind((*it, PORT)).expect("the port is free");
            (socket, TcpListener::bind((*it, PORT)).expect("the port is free"))
        };
        addresses.iter().map(both).unzip()
    });
    for listener in listeners {
        thread::spawn(move || accept(&listener));
    }
    let answering = sockets.into_iter().map(|socket| {
        let (stop, forbidden) = (Arc::clone(&stop), forbidden.clone());
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        thread::spawn(move || {
            let mut leaked = 0;
            while !stop.load(Ordering::Relaxed) {
                let mut buffer = [0; 64];
                let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
                leaked += u64::from(forbidden.contains(&peer.ip()));
                _ = socket.send_to(&buffer[..length], peer);
            }
            leaked
        })
    });
    let answering: Vec<_> = answering.collect();
    thread::spawn(move || answering.into_iter().map(|it| it.join().unwrap()).sum())
}

fn accept(listener: &TcpListener) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
        });
    }
}

fn any(like: SocketAddr) -> SocketAddr {
    let any: IpAddr =
        if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(any, 0)
}

/// Each datagram is a flow of its own, and sent once.
fn new_datagrams(target: SocketAddr, stop: &AtomicBool) -> u64 {
    let mut answers = 0;
    while !stop.load(Ordering::Relaxed) {
        let socket = UdpSocket::bind(any(target)).unwrap();
        socket.set_read_timeout(Some(slowed(LOST))).unwrap();
        socket.send_to(b"question", target).unwrap();
        let answered = socket.recv(&mut [0; 64]);
        assert!(answered.is_ok(), "a datagram to {target} was lost after {answers}: {answered:?}");
        answers += 1;
        sleep(PAUSE);
    }
    answers
}

fn new_connections(target: SocketAddr, stop: &AtomicBool) -> u64 {
    let mut answers = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut stream = TcpStream::connect_timeout(&target, LOST).expect("a connection");
        ask(&mut stream);
        answers += 1;
        sleep(PAUSE);
    }
    answers
}

fn one_connection(target: SocketAddr, stop: &AtomicBool) -> u64 {
    let mut stream = TcpStream::connect_timeout(&target, LOST).expect("a connection");
    let mut answers = 0;
    while !stop.load(Ordering::Relaxed) {
        ask(&mut stream);
        answers += 1;
        sleep(PAUSE);
    }
    answers
}

fn ask(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(slowed(LOST))).unwrap();
    stream.write_all(b"question").expect("it is sent");
    stream.read_exact(&mut [0; 8]).expect("it is answered");
}

/// Datagrams that must not arrive, of new flows and of an old one.
fn knock(target: SocketAddr, stop: &AtomicBool) -> u64 {
    let old = UdpSocket::bind(any(target)).unwrap();
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let new = UdpSocket::bind(any(target)).unwrap();
        for socket in [&old, &new] {
            sent += u64::from(socket.send_to(b"denied", target).is_ok());
        }
        sleep(PAUSE);
    }
    sent
}
