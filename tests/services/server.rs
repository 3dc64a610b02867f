//! Servers that tell who they are, and as whom they see their clients.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use lab::Space;

/// The port that all listen at.
pub(crate) const PORT: u16 = 8080;

/// A server of TCP and UDP, which ends with this.
pub(crate) struct Server {
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(space: &Space, name: &str, is_ipv4: bool) -> Self {
        let any: IpAddr =
            if is_ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let at = SocketAddr::new(any, PORT);
        let (tcp, udp) = space.enter(|| {
            let tcp = TcpListener::bind(at).expect("a port");
            tcp.set_nonblocking(true).expect("a listener");
            let udp = UdpSocket::bind(at).expect("a port");
            udp.set_nonblocking(true).expect("a socket");
            (tcp, udp)
        });
        let ends = Arc::new(AtomicBool::new(false));
        let (name, other) = (name.to_owned(), name.to_owned());
        let (tcp_ends, udp_ends) = (Arc::clone(&ends), Arc::clone(&ends));
        let tcp = std::thread::spawn(move || {
            while !tcp_ends.load(Ordering::Relaxed) {
                match tcp.accept() {
                    // A client that has gone wants no answer.
                    Ok((mut stream, peer)) => {
                        _ = write!(stream, "{name} {}", peer.ip().to_canonical())
                    }
                    Err(_) => sleep(Duration::from_millis(1)),
                }
            }
        });
        let udp = std::thread::spawn(move || {
            let mut room = [0; 64];
            while !udp_ends.load(Ordering::Relaxed) {
                match udp.recv_from(&mut room) {
                    Ok((length, peer)) => {
                        let question = String::from_utf8_lossy(&room[..length]);
                        let answer = format!("{other} {} {question}", peer.ip().to_canonical());
                        _ = udp.send_to(answer.as_bytes(), peer);
                    }
                    Err(_) => sleep(Duration::from_millis(1)),
                }
            }
        });
        Self { ends, threads: vec![tcp, udp] }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // One that has panicked has told so.
        self.threads.drain(..).for_each(|it| _ = it.join());
    }
}
