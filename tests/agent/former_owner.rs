//! Who gets an address gets nothing of what was begun by whoever had it before.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use lab::Pod;
use lab::sockets::udp;
use serde_json::{Value, json};

use crate::node::PolicedNode;

/// Of both ends, so that what the server sends belongs to the flow that the former owner began.
const PORT: u16 = 7700;
const ADDRESSES: [&str; 2] = ["10.1.0.100", "fd00:1::64"];
/// Within this the gate opens, and flows are looked at twice.
const WHILE: Duration = Duration::from_millis(2500);

fn any() -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), PORT)
}

/// Sends to both addresses all the time.
struct Pushing {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Pushing {
    fn start(server: &Pod, socket: UdpSocket) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = server.spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for address in targets() {
                    // While nobody has the address the kernel says so.
                    _ = socket.send_to(b"pushed", address);
                }
                sleep(Duration::from_millis(1));
            }
        });
        Self { stop, thread }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the server works");
    }
}

/// As a socket of IPv6 takes them.
fn targets() -> impl Iterator<Item = SocketAddr> {
    ADDRESSES.into_iter().map(|address| match address.parse().unwrap() {
        IpAddr::V4(address) => SocketAddr::new(address.to_ipv6_mapped().into(), PORT),
        address => SocketAddr::new(address, PORT),
    })
}

struct Attached {
    name: &'static str,
    pod: Pod,
    socket: UdpSocket,
    confs: [Value; 2],
}

impl Attached {
    fn new(node: &PolicedNode, name: &'static str) -> Self {
        let pod = node.node.pod(name);
        pod.sh("ip link set lo up");
        let socket = pod.enter(|| udp(any()));
        let mut wired = node.conf();
        wired["runtimeConfig"] = json!({"ips": ADDRESSES});
        let result = node.call(name, "ADD", &pod, &wired).ok();
        let policy = json!({"cniVersion": "1.0.0", "name": "net", "type": "podwire-policy",
            "timeout": 2000, "prevResult": result});
        let _ = node.call(name, "ADD", &pod, &policy).ok();
        Self { name, pod, socket, confs: [policy, wired] }
    }

    /// How many datagrams of each family came.
    fn arrived(&self) -> [usize; 2] {
        let (mut counts, mut buffer) = ([0; 2], [0; 16]);
        while let Ok((_, from)) = self.socket.recv_from(&mut buffer) {
            counts[usize::from(from.ip().to_canonical().is_ipv6())] += 1;
        }
        counts
    }

    fn detach(self, node: &PolicedNode) {
        for conf in &self.confs {
            assert!(node.call(self.name, "DEL", &self.pod, conf).succeeded());
        }
    }
}

fn manifests(node: &PolicedNode) {
    for name in ["former", "heir"] {
        node.write(
            &format!("pod-{name}"),
            &json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}),
        );
    }
}

/// The heir's arrivals, after the former owner of its addresses spoke first to who pushes.
fn inherited(node: &PolicedNode) -> [usize; 2] {
    let server = node.space("server");
    let listening = server.enter(|| udp(any()));
    let former = Attached::new(node, "former");
    for address in node.addresses("server") {
        let address = match address {
            IpAddr::V4(it) => it.to_ipv6_mapped().into(),
            IpAddr::V6(_) => *address,
        };
        former.socket.send_to(b"asked", SocketAddr::new(address, PORT)).unwrap();
    }
    let pushing = Pushing::start(server, listening);
    node.wait("the former owner is answered", |_| former.arrived().iter().all(|it| *it > 0));
    former.detach(node);
    let heir = Attached::new(node, "heir");
    sleep(WHILE);
    let arrived = heir.arrived();
    pushing.end();
    heir.detach(node);
    arrived
}

#[test]
fn a_flow_that_the_former_owner_began_does_not_pass_to_the_heir() {
    let node = PolicedNode::new(&["server"]);
    manifests(&node);
    let open = inherited(&node);
    assert!(open.iter().all(|count| *count > 0), "an heir that nothing isolates: {open:?}");
    // For what it is sent alone: it may itself begin what it likes.
    node.write(
        "deny",
        &json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "deny"},
        "spec": {"policyTypes": ["Ingress"], "podSelector": {"matchLabels": {"app": "heir"}}}}),
    );
    sleep(Duration::from_millis(500));
    assert_eq!(inherited(&node), [0; 2]);
    node.clean_up();
}
