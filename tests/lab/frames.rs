//! Frames as no stack would send them: with tags, and with any source.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, bind, recv, send,
    socket,
};

use crate::space::Space;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// The tag of VLAN 0, which means none, of 802.1Q and of 802.1ad.
pub const PRIORITY_TAGS: [u16; 2] = [0x8100, 0x88a8];

/// For all stations.
pub const TO_ALL: Mac = [0xff; 6];

/// The greatest hop limit that is usual.
pub const HOPS: u8 = 64;

/// The greatest that there is, which discovery has.
const ALL_HOPS: u8 = 255;

/// Numbers of what is in a packet.
pub const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// A part of a packet.
#[derive(Debug)]
pub struct Fragment<'a> {
    /// The number of what is in the packet.
    pub protocol: u8,
    /// That of the packet.
    pub number: u16,
    /// Where it begins, in units of eight bytes.
    pub place: u16,
    /// Whether nothing follows it.
    pub is_last: bool,
    /// What is in it.
    pub content: &'a [u8],
}

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
        // With no protocol it is told of no frame.
        Self::with(space, name, None)
    }

    fn with(space: &Space, name: &str, protocol: Option<SockProtocol>) -> Self {
        space.enter(|| {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, protocol).unwrap();
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
        self.send_packet(tags, to, ends, HOPS, payload);
    }

    /// Sends one that the first router has to give up.
    pub fn send_dying(&self, to: Mac, ends: [SocketAddr; 2], payload: &[u8]) {
        self.send_packet(&[], to, ends, 1, payload);
    }

    /// Sends a fragment of a packet.
    pub fn send_fragment(&self, to: Mac, ends: [IpAddr; 2], hops: u8, fragment: &Fragment<'_>) {
        const FRAGMENT: u8 = 44;
        let Fragment { protocol, number, place, is_last, content } = fragment;
        match ends {
            [IpAddr::V4(from), IpAddr::V4(receiver)] => {
                let flags = place | if *is_last { 0 } else { 0x2000 };
                let total = u16::try_from(20 + content.len()).unwrap();
                let mut header = [[0x45, 0], total.to_be_bytes(), number.to_be_bytes()].concat();
                header.extend([flags.to_be_bytes(), [hops, *protocol], [0, 0]].concat());
                header.extend([from.octets(), receiver.octets()].concat());
                let sum = checksum(&header);
                header[10..12].copy_from_slice(&sum);
                self.send_other(&[], to, 0x0800, &[&header, *content].concat());
            }
            _ => {
                let flags = (place << 3 | u16::from(!is_last)).to_be_bytes();
                let part = [[*protocol, 0], flags, [0, 0], number.to_be_bytes()].concat();
                let length = u16::try_from(part.len() + content.len()).unwrap();
                let header = header(ends, FRAGMENT, hops, length);
                self.send_other(&[], to, 0x86dd, &[&header, &part, *content].concat());
            }
        }
    }

    /// Sends a packet of this content in two fragments; the second one begins at this byte of it.
    fn send_in_parts(
        &self,
        to: Mac,
        ends: [IpAddr; 2],
        hops: u8,
        (protocol, content): (u8, &[u8]),
        second: usize,
    ) {
        let second = second.next_multiple_of(8);
        let (head, tail) = content.split_at(second);
        let place = u16::try_from(second / 8).unwrap();
        for (place, is_last, content) in [(0, false, head), (place, true, tail)] {
            let fragment = Fragment { protocol, number: 1, place, is_last, content };
            self.send_fragment(to, ends, hops, &fragment);
        }
    }

    /// Sends word from one to another that a datagram of his could not be delivered.
    pub fn send_undelivered(
        &self,
        to: Mac,
        ends: [IpAddr; 2],
        his: [SocketAddr; 2],
        payload: &[u8],
    ) {
        let message = undelivered(ends, his, payload);
        let length = u16::try_from(message.len()).unwrap();
        let (kind, protocol) = if ends[0].is_ipv4() { (0x0800, ICMP) } else { (0x86dd, ICMPV6) };
        self.send_other(&[], to, kind, &[header(ends, protocol, HOPS, length), message].concat());
    }

    /// The same in two fragments.
    pub fn send_undelivered_in_parts(
        &self,
        to: Mac,
        ends: [IpAddr; 2],
        his: [SocketAddr; 2],
        payload: &[u8],
    ) {
        let message = undelivered(ends, his, payload);
        let protocol = if ends[0].is_ipv4() { ICMP } else { ICMPV6 };
        let second = message.len() - payload.len();
        self.send_in_parts(to, ends, HOPS, (protocol, &message), second);
    }

    /// Sends a solicitation of nobody, of this content.
    pub fn send_solicitation(&self, to: Mac, ends: [Ipv6Addr; 2], content: &[u8]) {
        let message = solicitation(content);
        let length = u16::try_from(message.len()).unwrap();
        let header = header(ends.map(IpAddr::V6), ICMPV6, ALL_HOPS, length);
        self.send_other(&[], to, 0x86dd, &[header, message].concat());
    }

    /// The same in two fragments.
    pub fn send_solicitation_in_parts(&self, to: Mac, ends: [Ipv6Addr; 2], content: &[u8]) {
        let message = solicitation(content);
        let second = message.len() - content.len();
        self.send_in_parts(to, ends.map(IpAddr::V6), ALL_HOPS, (ICMPV6, &message), second);
    }

    /// Sends a packet of IPv6 with an option that whoever gets it has to refuse, and then what has this
    /// number (59: nothing), behind tags of VLAN 0 of these kinds.
    pub fn send_refused(
        &self,
        tags: &[u16],
        to: Mac,
        ends: [Ipv6Addr; 2],
        next: u8,
        content: &[u8],
    ) {
        const HOP_BY_HOP: u8 = 0;
        // An option of no known type, "discard and tell of it", of four bytes.
        let options = [next, 0, 0x9e, 4, 0, 0, 0, 0];
        let length = u16::try_from(options.len() + content.len()).unwrap();
        let header = header(ends.map(IpAddr::V6), HOP_BY_HOP, ALL_HOPS, length);
        self.send_other(tags, to, 0x86dd, &[&header, &options[..], content].concat());
    }

    fn send_packet(&self, tags: &[u16], to: Mac, ends: [SocketAddr; 2], hops: u8, payload: &[u8]) {
        let kind = if ends[0].is_ipv4() { 0x0800 } else { 0x86dd };
        self.send_other(tags, to, kind, &packet(ends, hops, payload));
    }

    /// Sends whatever this is, in a frame of this type, behind tags of VLAN 0 of these kinds.
    pub fn send_other(&self, tags: &[u16], to: Mac, kind: u16, content: &[u8]) {
        let tags = tags.iter().flat_map(|tag| [tag.to_be_bytes(), [0, 0]].concat());
        let mut frame = [to, self.mac].concat();
        frame.extend(tags.chain(kind.to_be_bytes()));
        frame.extend(content);
        let sent = send(self.socket.as_raw_fd(), &frame, MsgFlags::empty()).unwrap();
        assert_eq!(sent, frame.len());
    }
}

/// Hears all frames that come by one interface, or go, whoever they are for.
#[derive(Debug)]
pub struct Ear(Interface);

impl Ear {
    /// That of this name.
    #[must_use]
    pub fn open(space: &Space, name: &str) -> Self {
        Self(Interface::with(space, name, Some(SockProtocol::EthAll)))
    }

    /// Which of these words were in frames since this was last asked.
    #[must_use]
    pub fn heard<'a>(&self, words: &[&'a str]) -> BTreeSet<&'a str> {
        let (mut heard, mut room) = (BTreeSet::new(), [0; 2048]);
        loop {
            match recv(self.0.socket.as_raw_fd(), &mut room, MsgFlags::empty()) {
                Ok(length) => {
                    let is_in = |word: &&&str| {
                        room[..length].windows(word.len()).any(|it| it == word.as_bytes())
                    };
                    heard.extend(words.iter().filter(is_in));
                }
                Err(Errno::EAGAIN) => return heard,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(it) => it.octets().to_vec(),
        IpAddr::V6(it) => it.octets().to_vec(),
    }
}

fn solicitation(content: &[u8]) -> Vec<u8> {
    [&[135, 0, 0, 0][..], &[0; 20], content].concat()
}

/// What one would tell another of a datagram of his.
fn undelivered(ends: [IpAddr; 2], his: [SocketAddr; 2], payload: &[u8]) -> Vec<u8> {
    let head = if ends[0].is_ipv4() { [3, 1] } else { [1, 3] };
    let mut message = [&head, &[0; 6][..], &packet(his, HOPS, payload)].concat();
    let addresses: Vec<u8> = ends.iter().flat_map(|it| octets(*it)).collect();
    let length = u16::try_from(message.len()).unwrap();
    let pseudo = match ends[0] {
        IpAddr::V4(_) => Vec::new(),
        IpAddr::V6(_) => {
            [&addresses, &[0, 0][..], &length.to_be_bytes(), &[0, 0, 0, ICMPV6]].concat()
        }
    };
    let sum = checksum(&[pseudo, message.clone()].concat());
    message[2..4].copy_from_slice(&sum);
    message
}

fn packet([from, to]: [SocketAddr; 2], hops: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let addresses = [octets(from.ip()), octets(to.ip())].concat();
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    let mut udp = [&ports, &length.to_be_bytes()[..], &[0, 0], payload].concat();
    let pseudo = [&addresses, &[0, UDP][..], &length.to_be_bytes(), &udp].concat();
    udp[6..8].copy_from_slice(&checksum(&pseudo));
    [header([from.ip(), to.ip()], UDP, hops, length), udp].concat()
}

/// Of a packet with so many bytes after it.
fn header(ends: [IpAddr; 2], protocol: u8, hops: u8, length: u16) -> Vec<u8> {
    let mut header = if ends[0].is_ipv4() {
        let total = (20 + length).to_be_bytes();
        vec![0x45, 0, total[0], total[1], 0, 1, 0, 0, hops, protocol, 0, 0]
    } else {
        let length = length.to_be_bytes();
        vec![0x60, 0, 0, 0, length[0], length[1], protocol, hops]
    };
    header.extend(ends.iter().flat_map(|it| octets(*it)));
    if ends[0].is_ipv4() {
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum);
    }
    header
}

/// The internet's (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let word = |it: &[u8]| u32::from(it[0]) << 8 | u32::from(*it.get(1).unwrap_or(&0));
    let sum: u32 = bytes.chunks(2).map(word).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes()
}
