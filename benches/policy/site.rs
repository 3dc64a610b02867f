//! Where a contestant works: a node with two pods, a link to the API server, and one to where the
//! pods of other nodes are.

use std::net::Ipv4Addr;

use lab::{Node, Pod};

/// The addresses of the node's pods that are there for real.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 1, 200, 2);
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 200, 3);

/// The address of a pod of another node.
pub(crate) fn peer_address(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 200, (number / 250) as u8, (number % 250 + 2) as u8)
}

/// A node and what is around it.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) node: Node,
    pub(crate) server: Pod,
    pub(crate) client: Pod,
    /// It has all addresses of pods of other nodes.
    pub(crate) others: Pod,
    /// The API server's address.
    pub(crate) control: Ipv4Addr,
}

impl Site {
    /// The site of this number, with a link to where the API server is.
    pub(crate) fn new(control: &Node, number: u8) -> Self {
        let node = Node::quick();
        let [server, client, others] = ["server", "client", "others"].map(|name| node.pod(name));
        node.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
            ip address add 192.0.2.2/32 dev lo");
        for (pod, name, address) in [(&server, "server", SERVER), (&client, "client", CLIENT)] {
            wire(&node, pod, name);
            node.sh(&format!(
                "ip route add {address} dev to-{name}
                echo 1 > /proc/sys/net/ipv4/conf/to-{name}/proxy_arp
                ip address add 169.254.1.1/32 dev to-{name}"
            ));
            pod.sh(&format!(
                "ip address add {address}/32 dev eth0
                ip route add 169.254.1.1 dev eth0; ip route add default via 169.254.1.1"
            ));
        }
        wire(&node, &others, "others");
        node.sh(
            "ip address add 198.19.0.1/24 dev to-others; ip route add 10.200.0.0/16 via 198.19.0.2",
        );
        others.sh("ip address add 198.19.0.2/24 dev eth0; ip route add default via 198.19.0.1
            ip route add local 10.200.0.0/16 dev lo");
        let path = node.path();
        let own = Ipv4Addr::new(198, 18, number, 1);
        control.sh(&format!(
            "ip link add site{number} type veth peer name control netns {}
            ip address add {own}/24 dev site{number}; ip link set site{number} up",
            path.display()
        ));
        node.sh(&format!(
            "ip address add 198.18.{number}.2/24 dev control; ip link set control up"
        ));
        Self { node, server, client, others, control: own }
    }
}

fn wire(node: &Node, pod: &Pod, name: &str) {
    let path = pod.path();
    node.sh(&format!(
        "ip link add to-{name} type veth peer name eth0 netns {}
        ip link set to-{name} up",
        path.display()
    ));
    pod.sh("ip link set lo up; ip link set eth0 up");
}
