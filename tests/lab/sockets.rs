//! Sockets of the kinds that probes need.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, setsockopt,
    socket, sockopt,
};

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn open(like: IpAddr, kind: SockType, protocol: SockProtocol) -> OwnedFd {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    socket(family(like), kind, flags, protocol)
        .unwrap_or_else(|error| panic!("cannot open a socket for {protocol:?}: {error}"))
}

/// A datagram socket, at any address of this family where it is unspecified.
pub fn udp(at: SocketAddr) -> UdpSocket {
    let fd = open(at.ip(), SockType::Datagram, SockProtocol::Udp);
    at_address(&fd, at);
    fd.into()
}

/// What has come to a socket since this was last asked, as text.
pub fn received(socket: &UdpSocket) -> BTreeSet<String> {
    let (mut received, mut buffer) = (BTreeSet::new(), [0; 64]);
    while let Ok((length, _)) = socket.recv_from(&mut buffer) {
        received.insert(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    received
}

/// A raw socket of this protocol; std's datagrams fit it.
pub fn raw(at: IpAddr, protocol: SockProtocol) -> UdpSocket {
    let fd = open(at, SockType::Raw, protocol);
    at_address(&fd, SocketAddr::new(at, 0));
    fd.into()
}

fn at_address(fd: &OwnedFd, at: SocketAddr) {
    bind(fd.as_raw_fd(), &SockaddrStorage::from(at))
        .unwrap_or_else(|error| panic!("cannot use address {at}: {error}"));
}

/// Begins a connection, from a port of the kernel's choice where that is 0; the same other one serves for
/// connections to several. It ends with a reset: nothing is left of it that waits.
pub fn begin_tcp(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let fd = open(to.ip(), SockType::Stream, SockProtocol::Tcp);
    let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&fd, sockopt::Linger, &at_once)?;
    setsockopt(&fd, sockopt::ReuseAddr, &(from.port() != 0))?;
    if !from.ip().is_unspecified() {
        at_address(&fd, from);
    }
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(fd.into()),
        Err(error) => Err(error.into()),
    }
}
