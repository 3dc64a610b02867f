//! Where a contestant works: a node with a client and two servers, and a link to the API server.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use lab::{Node, Pod};

use crate::objects::{ENDPOINT_PORT, NODE_ADDRESS, PORT};

/// The servers' addresses.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
pub(crate) const OTHER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 3);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 4);

/// A node and what is around it.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) node: Node,
    pub(crate) client: Pod,
    /// The API server's address.
    pub(crate) control: Ipv4Addr,
}

impl Site {
    /// The site of this number.
    pub(crate) fn new(control: &Node, place: u8) -> Self {
        let node = Node::quick();
        // What no service has is refused at once, however often: who waits for it need not wait for a packet to be sent again.
        node.sh(&format!(
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.icmp_ratelimit=0 net.ipv4.icmp_msgs_per_sec=1000000; ip link set lo up; ip address add {NODE_ADDRESS}/32 dev lo
             ip route add unreachable 10.96.0.0/16; ip route add unreachable 10.200.0.0/13"
        ));
        let pods = [("server", SERVER), ("other", OTHER), ("client", CLIENT)];
        let [server, other, client] = pods.map(|(name, address)| {
            let pod = node.pod(name);
            node.sh(&format!(
                "ip link add to-{name} type veth peer name eth0 netns {}; ip link set to-{name} up
                 ip address add 169.254.1.1/32 dev to-{name}; ip route add {address} dev to-{name}",
                pod.path().display()
            ));
            pod.sh(&format!(
                "ip link set lo up; ip link set eth0 up; ip address add {address}/32 dev eth0
                 ip route add 169.254.1.1 dev eth0; ip route add default via 169.254.1.1"
            ));
            pod
        });
        serve(&server, b's');
        serve(&other, b'o');
        let own = Ipv4Addr::new(198, 18, place, 1);
        control.sh(&format!(
            "ip link add site{place} type veth peer name control netns {}
             ip address add {own}/24 dev site{place}; ip link set site{place} up",
            node.path().display()
        ));
        node.sh(&format!("ip address add 198.18.{place}.2/24 dev control; ip link set control up"));
        Self { node, client, control: own }
    }
}

/// Answers every connection with one byte, until this process ends.
fn serve(pod: &Pod, name: u8) {
    let at = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), ENDPOINT_PORT);
    let listener = pod.enter(|| TcpListener::bind(at)).expect("a free port");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // A client that has gone wants no answer.
            _ = stream.write_all(&[name]);
        }
    });
}

/// Who answers at a service's address within a time; the client's thread is in its namespace.
pub(crate) fn answered(to: Ipv4Addr, bound: Duration) -> Option<u8> {
    let to = SocketAddr::new(IpAddr::V4(to), PORT);
    let mut stream = TcpStream::connect_timeout(&to, bound).ok()?;
    let mut name = [0];
    stream.read_exact(&mut name).ok()?;
    Some(name[0])
}
