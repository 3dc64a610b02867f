//! The bridge plugin's work, on a node that has the bridge already.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::environment::Environment;
use crate::lease::{self, GATEWAY_V4, GATEWAY_V6, Leases};
use crate::message::{ACK, Messages};
use crate::netlink::Socket;
use crate::output::{self, Interface};
use crate::requests::{NODAD, Route};
use crate::system::{self, Failure};
use crate::veth::{self, Link};

const BRIDGE: &str = "cni0";

/// ADD.
pub(crate) fn add(environment: &Environment, is_dual: bool) -> Result<(), Failure> {
    let netns = system::open_netns(environment.netns)?;
    let socket = Socket::open()?;
    socket.filter_dumps()?;
    let mut bridge = Link::default();
    let mut messages = Messages::new();
    messages.link_by_name(BRIDGE);
    socket.exchange(&messages, |message| bridge = Link::read(message))?;
    let veth = veth::create(&socket, environment, netns.as_fd(), Some(bridge.index))?;
    let leases = lease::take(environment, is_dual)?;

    let home = system::open("/proc/thread-self/ns/net", OFlag::O_RDONLY, "open our namespace")?;
    system::enter(netns.as_fd())?;
    configure_container(environment, veth.host.peer, &leases)?;
    system::enter(home.as_fd())?;

    set_up_gateway(&socket, bridge.index, is_dual)?;
    let mut host = Link::default();
    let mut messages = Messages::new();
    messages.link_by_index(veth.host.index);
    messages.link_by_index(bridge.index);
    socket.exchange(&messages, |message| {
        let link = Link::read(message);
        *(if link.index == bridge.index { &mut bridge } else { &mut host }) = link;
    })?;
    if !host.is_up {
        return Err(Failure::new("the port is not up", Errno::ENETDOWN));
    }
    let interfaces = [
        Interface { name: BRIDGE, mac: bridge.mac, sandbox: "" },
        Interface { name: veth.name.as_str(), mac: host.mac, sandbox: "" },
        Interface { name: environment.ifname, mac: veth.container_mac, sandbox: environment.netns },
    ];
    output::print(environment, &interfaces, Some(&leases))
}

fn configure_container(
    environment: &Environment,
    index: u32,
    leases: &Leases,
) -> Result<(), Failure> {
    let ifname = environment.ifname;
    system::set(["ipv6/conf/", ifname, "/accept_ra"], "0")?;
    system::set(["ipv6/conf/", ifname, "/accept_dad"], "0")?;
    let v6 = leases.v6();
    let mut messages = Messages::new();
    messages.add_address(index, &leases.v4(), 16, 0);
    if let Some(v6) = v6 {
        veth::enable_ipv6(ifname)?;
        messages.add_address(index, &v6, 64, NODAD);
    }
    messages.announce_addresses(index);
    messages.set_up(index, 0);
    let flags = if v6.is_some() { 0 } else { ACK };
    messages.add_route(&Route { gateway: &GATEWAY_V4, link: index, ..Route::default() }, flags);
    if v6.is_some() {
        messages.add_route(&Route { gateway: &GATEWAY_V6, link: index, ..Route::default() }, ACK);
    }
    Socket::open()?.exchange(&messages, |_| {})
}

/// The bridge has its addresses already, and the node forwards: that is looked up.
fn set_up_gateway(socket: &Socket, bridge: u32, is_dual: bool) -> Result<(), Failure> {
    let mut messages = Messages::new();
    messages.list_addresses(bridge);
    let mut count = 0;
    socket.exchange(&messages, |_| count += 1)?;
    if count < 1 + usize::from(is_dual) {
        return Err(Failure::new("the bridge has no address", Errno::EADDRNOTAVAIL));
    }
    veth::must_forward(socket, is_dual)
}
