//! What answers probes.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use lab::Space;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::SockProtocol;

use lab::sockets::{raw, udp};
use lab::wire::{LONGEST, sctp_init_ack};

/// The ports that TCP and UDP are served on; SCTP is on all.
pub(crate) const PORTS: [u16; 13] =
    [1, 53, 79, 80, 81, 443, 7999, 8000, 8080, 8100, 8101, 9000, 65535];

/// The payloads of all datagrams that came to servers, whether or not the answer got back.
pub(crate) type Arrivals = Arc<Mutex<BTreeSet<u64>>>;

/// Answers at addresses of a namespace for as long as it lives.
#[derive(Debug)]
pub(crate) struct Server {
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

struct Sockets {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
    sctp: Vec<(bool, UdpSocket)>,
    arrivals: Arrivals,
}

impl Server {
    pub(crate) fn start(space: &Space, addresses: &[IpAddr], arrivals: &Arrivals) -> Self {
        let sockets = space.enter(|| Sockets::open(addresses, arrivals.clone()));
        let (stop, stopped) = UnixStream::pair().unwrap();
        let thread = thread::spawn(move || sockets.serve(&stopped));
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A failure of the thread has been printed; here one may be on its way already.
            _ = thread.join();
        }
    }
}

impl Sockets {
    fn open(addresses: &[IpAddr], arrivals: Arrivals) -> Self {
        let mut sockets = Self { tcp: Vec::new(), udp: Vec::new(), sctp: Vec::new(), arrivals };
        for address in addresses {
            for port in PORTS {
                let at = SocketAddr::new(*address, port);
                let listener = TcpListener::bind(at)
                    .unwrap_or_else(|error| panic!("cannot listen at {at}: {error}"));
                listener.set_nonblocking(true).unwrap();
                sockets.tcp.push(listener);
                sockets.udp.push(udp(at));
            }
            sockets.sctp.push((address.is_ipv4(), raw(*address, SockProtocol::Sctp)));
        }
        sockets
    }

    fn serve(&self, stopped: &UnixStream) {
        let raw = self.sctp.iter().map(|(_, socket)| socket.as_fd());
        let descriptors: Vec<BorrowedFd<'_>> = [stopped.as_fd()]
            .into_iter()
            .chain(self.tcp.iter().map(AsFd::as_fd))
            .chain(self.udp.iter().map(AsFd::as_fd))
            .chain(raw)
            .collect();
        let mut polled: Vec<_> =
            descriptors.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        loop {
            poll(&mut polled, PollTimeout::NONE).unwrap();
            let ready: Vec<_> = polled.iter().map(|it| it.any() == Some(true)).collect();
            if ready[0] {
                return;
            }
            let (tcp, rest) = ready[1..].split_at(self.tcp.len());
            let (udp, sctp) = rest.split_at(self.udp.len());
            chosen(&self.tcp, tcp).for_each(accept);
            chosen(&self.udp, udp).for_each(|socket| self.answer_datagrams(socket));
            chosen(&self.sctp, sctp).for_each(|(is_ipv4, socket)| answer_sctp(*is_ipv4, socket));
        }
    }

    fn answer_datagrams(&self, socket: &UdpSocket) {
        let mut buffer = [0; LONGEST];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            if let Ok(token) = buffer[..length].try_into() {
                self.arrivals.lock().unwrap().insert(u64::from_be_bytes(token));
            }
            // Whether the answer is let out is what is to be found out.
            _ = socket.send_to(&buffer[..length], peer);
        }
    }
}

fn chosen<'a, T>(all: &'a [T], which: &[bool]) -> impl Iterator<Item = &'a T> {
    all.iter().zip(which).filter(|(_, is_chosen)| **is_chosen).map(|(it, _)| it)
}

/// The connection is all that was asked for.
fn accept(listener: &TcpListener) {
    while listener.accept().is_ok() {}
}

fn answer_sctp(is_ipv4: bool, socket: &UdpSocket) {
    let mut buffer = [0; LONGEST];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
        if let Some(answer) = sctp_init_ack(is_ipv4, &buffer[..length]) {
            _ = socket.send_to(&answer, SocketAddr::new(peer.ip(), 0));
        }
    }
}
