//! The veth pair.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;

use crate::environment::Environment;
use crate::message::{ACK, Messages};
use crate::netlink::{self, Socket, attributes};
use crate::requests::{Pair, is_forwarding};
use crate::system::{self, Failure};
use crate::text::Text;

/// What is read of a link.
#[derive(Default, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) index: u32,
    /// Index of a veth's peer.
    pub(crate) peer: u32,
    pub(crate) mac: [u8; 6],
    pub(crate) is_up: bool,
}

impl Link {
    pub(crate) fn read(message: &[u8]) -> Self {
        const IFLA_ADDRESS: u16 = 1;
        const IFLA_LINK: u16 = 5;
        const IFLA_OPERSTATE: u16 = 16;
        const OPERSTATE_UP: u8 = 6;
        let index = netlink::number(message, 20).unwrap_or_default();
        let mut link = Self { index, peer: index, ..Self::default() };
        attributes(message, 16, |kind, payload| match kind {
            IFLA_ADDRESS => link.mac = payload.try_into().unwrap_or_default(),
            IFLA_LINK => link.peer = netlink::number(payload, 0).unwrap_or_default(),
            IFLA_OPERSTATE => link.is_up = payload == [OPERSTATE_UP],
            _ => {}
        });
        link
    }
}

/// A pair that was created.
pub(crate) struct Veth {
    pub(crate) name: Text,
    pub(crate) host: Link,
    pub(crate) container_mac: [u8; 6],
}

/// Creates a pair, the host's end up and on its bridge.
pub(crate) fn create(
    socket: &Socket,
    environment: &Environment,
    netns: BorrowedFd<'_>,
    bridge: Option<u32>,
) -> Result<Veth, Failure> {
    let [a, b, c, d, host @ .., e, f, g, h, i, j] = system::random()?;
    let mut name = Text::of(&["veth"]);
    name.push_hex(u32::from_ne_bytes([a, b, c, d | 0x80]));
    let local = |[first, b, c, d, e, f]: [u8; 6]| [(first & 0xfe) | 2, b, c, d, e, f];
    let container_mac = local([e, f, g, h, i, j]);
    let mut messages = Messages::new();
    messages.create_pair(&Pair {
        name: name.as_str(),
        mac: local(host),
        bridge,
        peer_name: environment.ifname,
        peer_mac: container_mac,
        peer_netns: netns.as_raw_fd().unsigned_abs(),
    });
    messages.link_by_name(name.as_str());
    let mut host = Link::default();
    socket.exchange(&messages, |message| host = Link::read(message))?;
    system::set(["ipv6/conf/", name.as_str(), "/accept_ra"], "0")?;
    Ok(Veth { name, host, container_mac })
}

/// Deletes the container's end, and with it the host's.
pub(crate) fn delete(environment: &Environment) -> Result<(), Failure> {
    let netns = system::open_netns(environment.netns)?;
    system::enter(netns.as_fd())?;
    let mut messages = Messages::new();
    messages.delete_link(environment.ifname, ACK);
    Socket::open()?.exchange(&messages, |_| {})
}

/// Lets IPv6 work on the container's end (reference: `ConfigureIface`).
pub(crate) fn enable_ipv6(ifname: &str) -> Result<(), Failure> {
    for name in ["lo", ifname] {
        system::ensure(["ipv6/conf/", name, "/disable_ipv6"], "0")?;
    }
    system::set(["ipv6/conf/", ifname, "/keep_addr_on_down"], "1")
}

/// The node forwards packets already: that is looked up.
pub(crate) fn must_forward(socket: &Socket, is_dual: bool) -> Result<(), Failure> {
    let families = [libc::AF_INET, libc::AF_INET6];
    for family in families.into_iter().take(1 + usize::from(is_dual)) {
        let mut messages = Messages::new();
        messages.forwarding(family);
        let mut forwards = false;
        socket.exchange(&messages, |message| forwards = is_forwarding(message))?;
        if !forwards {
            return Err(Failure::new("the node does not forward", Errno::EHOSTUNREACH));
        }
    }
    Ok(())
}
