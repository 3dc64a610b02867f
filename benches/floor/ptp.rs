//! The ptp plugin's work.

use std::os::fd::AsFd;

use nix::fcntl::OFlag;

use crate::environment::Environment;
use crate::lease::{self, GATEWAY_V4, GATEWAY_V6};
use crate::message::{ACK, Messages};
use crate::netlink::Socket;
use crate::output::{self, Interface};
use crate::requests::{NODAD, NOPREFIXROUTE, Route, SCOPE_HOST, SCOPE_LINK};
use crate::system::{self, Failure};
use crate::veth;

/// The ranges' networks, and how long their prefixes are.
const NETWORK_V4: ([u8; 4], u8) = ([10, 88, 0, 0], 16);
const NETWORK_V6: ([u8; 16], u8) = ([0xfd, 0, 0, 0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 64);

/// One address with all that belongs to it.
struct Attached<'a> {
    address: &'a [u8],
    network: &'a [u8],
    prefix: u8,
    gateway: &'a [u8],
    flags: u32,
}

impl Attached<'_> {
    /// Length of the prefix that is the address alone.
    fn full(&self) -> u8 {
        if self.address.len() == 4 { 32 } else { 128 }
    }
}

/// ADD.
pub(crate) fn add(environment: &Environment, is_dual: bool) -> Result<(), Failure> {
    let netns = system::open_netns(environment.netns)?;
    let socket = Socket::open()?;
    let leases = lease::take(environment, is_dual)?;
    veth::must_forward(&socket, is_dual)?;
    let veth = veth::create(&socket, environment, netns.as_fd(), None)?;
    system::set(["ipv6/conf/", veth.name.as_str(), "/accept_dad"], "0")?;

    let (v4, v6) = (leases.v4(), leases.v6().unwrap_or_default());
    let both = [
        Attached {
            address: &v4,
            network: &NETWORK_V4.0,
            prefix: NETWORK_V4.1,
            gateway: &GATEWAY_V4,
            flags: NOPREFIXROUTE,
        },
        Attached {
            address: &v6,
            network: &NETWORK_V6.0,
            prefix: NETWORK_V6.1,
            gateway: &GATEWAY_V6,
            flags: NODAD | NOPREFIXROUTE,
        },
    ];
    let attached = both.get(..1 + usize::from(is_dual)).unwrap_or_default();
    let home = system::open("/proc/thread-self/ns/net", OFlag::O_RDONLY, "open our namespace")?;
    system::enter(netns.as_fd())?;
    configure_container(environment, veth.host.peer, attached)?;
    system::enter(home.as_fd())?;
    configure_host(&socket, veth.host.index, attached)?;
    let interfaces = [
        Interface { name: veth.name.as_str(), mac: veth.host.mac, sandbox: "" },
        Interface { name: environment.ifname, mac: veth.container_mac, sandbox: environment.netns },
    ];
    output::print(environment, &interfaces, Some(&leases))
}

fn configure_container(
    environment: &Environment,
    link: u32,
    attached: &[Attached<'_>],
) -> Result<(), Failure> {
    system::set(["ipv6/conf/", environment.ifname, "/accept_ra"], "0")?;
    system::set(["ipv6/conf/", environment.ifname, "/accept_dad"], "0")?;
    if attached.len() > 1 {
        veth::enable_ipv6(environment.ifname)?;
    }
    let mut messages = Messages::new();
    for ip in attached {
        messages.add_address(link, ip.address, ip.prefix, ip.flags);
    }
    messages.set_up(link, 0);
    for ip in attached {
        let (source, scope) = (ip.address, SCOPE_LINK);
        let (dst, prefix) = (ip.gateway, ip.full());
        messages.add_route(&Route { dst, prefix, source, scope, link, ..Route::default() }, 0);
        let (dst, prefix, gateway) = (ip.network, ip.prefix, ip.gateway);
        messages.add_route(&Route { dst, prefix, gateway, source, link, ..Route::default() }, 0);
    }
    for (index, ip) in attached.iter().enumerate() {
        let flags = if index + 1 == attached.len() { ACK } else { 0 };
        messages.add_route(&Route { gateway: ip.gateway, link, ..Route::default() }, flags);
    }
    Socket::open()?.exchange(&messages, |_| {})
}

fn configure_host(socket: &Socket, link: u32, attached: &[Attached<'_>]) -> Result<(), Failure> {
    let mut messages = Messages::new();
    for (index, ip) in attached.iter().enumerate() {
        messages.add_address(link, ip.gateway, ip.full(), ip.flags & NODAD);
        let flags = if index + 1 == attached.len() { ACK } else { 0 };
        let (dst, prefix, scope) = (ip.address, ip.full(), SCOPE_HOST);
        messages.add_route(&Route { dst, prefix, scope, link, ..Route::default() }, flags);
    }
    socket.exchange(&messages, |_| {})
}
