//! Frames as no stack would send them: with tags, and with any source.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrLike, bind, send, socket,
};

use crate::space::Space;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// The tag of VLAN 0, which means none, of 802.1Q and of 802.1ad.
pub const PRIORITY_TAGS: [u16; 2] = [0x8100, 0x88a8];

/// Sends frames by one interface.
#[derive(Debug)]
pub struct Interface {
    socket: OwnedFd,
    mac: Mac,
}

impl Interface {
    /// That of this name.
    #[must_use]
    pub fn open(space: &Space, name: &str) -> Self {
        space.enter(|| {
            let flags = SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None).unwrap();
            let link = getifaddrs().unwrap().find_map(|it| {
                let address = it.address.filter(|_| it.interface_name == name)?;
                (address.family() == Some(AddressFamily::Packet)).then_some(address)
            });
            let link = link.unwrap_or_else(|| panic!("no interface {name}"));
            bind(socket.as_raw_fd(), &link).unwrap();
            let mac = link.as_link_addr().and_then(nix::sys::socket::LinkAddr::addr).unwrap();
            Self { socket, mac }
        })
    }

    /// Its address.
    #[must_use]
    pub const fn mac(&self) -> Mac {
        self.mac
    }

    /// Sends a UDP datagram behind tags of VLAN 0 of these kinds.
    pub fn send(&self, tags: &[u16], to: Mac, ends: [SocketAddr; 2], payload: &[u8]) {
        let mut frame = [to, self.mac].concat();
        tags.iter().for_each(|tag| frame.extend([tag.to_be_bytes(), [0, 0]].concat()));
        frame.extend(if ends[0].is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] });
        frame.extend(packet(ends, payload));
        let sent = send(self.socket.as_raw_fd(), &frame, MsgFlags::empty()).unwrap();
        assert_eq!(sent, frame.len());
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(it) => it.octets().to_vec(),
        IpAddr::V6(it) => it.octets().to_vec(),
    }
}

fn packet([from, to]: [SocketAddr; 2], payload: &[u8]) -> Vec<u8> {
    const UDP: u8 = 17;
    let length = u16::try_from(8 + payload.len()).unwrap();
    let addresses = [octets(from.ip()), octets(to.ip())].concat();
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    let mut udp = [&ports, &length.to_be_bytes()[..], &[0, 0], payload].concat();
    let pseudo = [&addresses, &[0, UDP][..], &length.to_be_bytes(), &udp].concat();
    udp[6..8].copy_from_slice(&checksum(&pseudo));
    let mut header = if from.is_ipv4() {
        let total = (20 + length).to_be_bytes();
        vec![0x45, 0, total[0], total[1], 0, 1, 0, 0, 64, UDP, 0, 0]
    } else {
        let length = length.to_be_bytes();
        vec![0x60, 0, 0, 0, length[0], length[1], UDP, 64]
    };
    header.extend(addresses);
    if from.is_ipv4() {
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum);
    }
    [header, udp].concat()
}

/// The internet's (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let word = |it: &[u8]| u32::from(it[0]) << 8 | u32::from(*it.get(1).unwrap_or(&0));
    let sum: u32 = bytes.chunks(2).map(word).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes()
}
