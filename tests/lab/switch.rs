//! One wire for several nodes.

use std::net::{Ipv6Addr, SocketAddrV6};

use nix::net::if_::if_nametoindex;
use nix::sys::socket::{SockProtocol, setsockopt, sockopt};

use crate::node::{Node, Pod};
use crate::sockets::raw;

/// A router advertisement (RFC 4861, section 4.2) of a router for half an hour. The kernel fills in
/// the checksum.
const ADVERTISEMENT: [u8; 16] = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
/// Neighbours believe nothing that may have been forwarded.
const HOPS: i32 = 255;

/// A switch in a namespace of its own. The node of number 3 gets the addresses `192.0.2.3` and
/// `2001:db8::3` on its link `eth0`.
#[derive(Debug)]
pub struct Switch(Pod);

impl Switch {
    /// A switch with these nodes, counted from 1.
    #[must_use]
    pub fn of(nodes: &[&Node]) -> Self {
        let switch = Self(nodes.first().expect("a node").pod("switch"));
        switch.0.sh("ip link add br0 type bridge; ip link set br0 up");
        nodes.iter().zip(1..).for_each(|(node, number)| switch.plug(node, number));
        switch
    }

    /// Tells all nodes that the switch is their router of IPv6.
    pub fn advertise(&self) {
        self.0.enter(|| {
            let socket = raw(Ipv6Addr::UNSPECIFIED.into(), SockProtocol::IcmpV6);
            setsockopt(&socket, sockopt::Ipv6MulticastHops, &HOPS).expect("there is IPv6");
            let link = if_nametoindex("br0").expect("the switch has it");
            let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
            // Right after it was made the link has no address yet: whoever waits asks again.
            _ = socket.send_to(&ADVERTISEMENT, SocketAddrV6::new(all_nodes, 0, 0, link));
        });
    }

    fn plug(&self, node: &Node, number: usize) {
        node.sh(&format!(
            "ip link add eth0 mtu 1400 type veth peer name port{number} mtu 1400 netns {};
             ip link set eth0 up
             ip addr add 192.0.2.{number}/24 dev eth0
             ip addr add 2001:db8::{number}/64 dev eth0 nodad",
            self.0.path().display()
        ));
        self.0.sh(&format!("ip link set port{number} master br0 up"));
    }
}
