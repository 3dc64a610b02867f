//! Who gets an address gets nothing of what was begun by whoever had it before.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use lab::sockets::udp;
use lab::{Pod, slowed};
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

/// A pod as it is written down before it has addresses, or with those that it has.
fn manifest(node: &PolicedNode, name: &str, addresses: &[&str]) {
    let ips: Vec<_> = addresses.iter().map(|it| json!({"ip": it})).collect();
    let status = json!({"phase": "Running", "podIPs": ips});
    node.write(
        &format!("pod-{name}"),
        &json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}, "status": status}),
    );
}

/// What is known of the former owner when the heir comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Former {
    /// It has gone, with its object.
    Gone,
    /// Its object still tells of the addresses, as a kubelet's does for a while.
    Told,
    /// And nobody has said that its container is gone.
    Attached,
    /// Of its object policyd learns when the container has gone.
    ToldLate,
    /// It went while policyd was away, as the heir came.
    Unseen,
}

struct Scene {
    node: PolicedNode,
    /// Outside of the node, so that no pod but those two is there.
    server: Pod,
    addresses: [IpAddr; 2],
}

impl Scene {
    fn new(has_others: bool) -> Self {
        let names: &[&str] = if has_others { &["other"] } else { &[] };
        let node = PolicedNode::new(names);
        let server = node.node.pod("outside");
        let addresses = ["192.0.2.2", "2001:db8::2"].map(|it| it.parse().unwrap());
        node.node.sh(&format!(
            "ip link add out type veth peer name eth0 netns {}
             ip link set out up; ip addr add 192.0.2.1/24 dev out
             ip addr add 2001:db8::1/64 dev out nodad",
            server.path().display()
        ));
        server.sh("ip link set lo up; ip link set eth0 up; ip addr add 192.0.2.2/24 dev eth0
             ip addr add 2001:db8::2/64 dev eth0 nodad
             ip route add default via 192.0.2.1; ip -6 route add default via 2001:db8::1");
        Self { node, server, addresses }
    }

    /// What reaches the heir of what the server pushes, after the former owner of its addresses
    /// spoke first.
    fn inherited(&mut self, gone: Former) -> [usize; 2] {
        let node = &self.node;
        if gone != Former::ToldLate {
            manifest(node, "former", &ADDRESSES);
        }
        manifest(node, "heir", &[]);
        let listening = self.server.enter(|| udp(any()));
        let former = Attached::new(node, "former");
        self.ask(&former);
        let pushing = Pushing::start(&self.server, listening);
        node.wait("the former owner is answered", |_| former.arrived().iter().all(|it| *it > 0));
        let confs = former.confs.clone();
        if gone == Former::Unseen {
            self.node.kill();
        }
        let node = &self.node;
        match gone {
            Former::Attached => {
                assert!(node.call("former", "DEL", &former.pod, &confs[1]).succeeded());
                drop(former);
            }
            _ => former.detach(node),
        }
        if matches!(gone, Former::Gone | Former::Unseen) {
            node.remove("pod-former");
            sleep(slowed(Duration::from_millis(300)));
        }
        if gone == Former::ToldLate {
            manifest(node, "former", &ADDRESSES);
            sleep(slowed(Duration::from_millis(500)));
        }
        let heir = Attached::new(node, "heir");
        if gone == Former::Unseen {
            self.node.start();
        }
        if gone == Former::Attached {
            // That the address has another owner, the heir's attachment is the first to tell.
            _ = heir.arrived();
        }
        sleep(WHILE);
        let arrived = heir.arrived();
        pushing.end();
        heir.detach(&self.node);
        arrived
    }

    /// Has a pod send to the server.
    fn ask(&self, from: &Attached) {
        for address in self.addresses {
            let address = match address {
                IpAddr::V4(it) => it.to_ipv6_mapped().into(),
                IpAddr::V6(_) => address,
            };
            from.socket.send_to(b"asked", SocketAddr::new(address, PORT)).unwrap();
        }
    }

    /// For what it is sent alone: it may itself begin what it likes.
    fn deny(&self) {
        self.node.write(
            "deny",
            &json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "deny"},
            "spec": {"policyTypes": ["Ingress"], "podSelector": {"matchLabels": {"app": "heir"}}}}),
        );
        // A policy that selects nobody of this node yet shows in no rule.
        sleep(slowed(Duration::from_millis(500)));
    }
}

fn a_flow_does_not_pass_to_the_heir(has_others: bool, ways: &[Former]) {
    let mut scene = Scene::new(has_others);
    let open = scene.inherited(Former::Gone);
    assert!(open.iter().all(|count| *count > 0), "an heir that nothing isolates: {open:?}");
    scene.deny();
    for way in ways {
        assert_eq!(scene.inherited(*way), [0; 2], "{way:?}");
    }
    scene.node.clean_up();
}

#[test]
fn whatever_is_known_of_the_former_owner() {
    use Former::{Attached, Gone, Told, ToldLate, Unseen};
    a_flow_does_not_pass_to_the_heir(true, &[Gone, ToldLate, Told, Attached, Unseen]);
}

/// That flows are not cut says nothing of those of others.
#[test]
fn where_flows_are_not_cut() {
    let mut scene = Scene::new(true);
    scene.node.roll(&["--cut-flows", "off"]);
    scene.deny();
    assert_eq!(scene.inherited(Former::Gone), [0; 2]);
    scene.node.clean_up();
}

#[test]
fn on_a_node_without_another_pod() {
    a_flow_does_not_pass_to_the_heir(false, &[Former::Gone, Former::Told]);
}

#[test]
fn an_address_is_closed_when_its_pod_is_detached_though_the_object_still_tells_of_it() {
    let scene = Scene::new(true);
    let node = &scene.node;
    manifest(node, "former", &ADDRESSES);
    let former = Attached::new(node, "former");
    let is_open = |address: &str| lab::let_pass(&node.node).contains(address);
    assert!(ADDRESSES.into_iter().all(is_open));
    node.wait("the pod's object", |it| it.rules().contains("default/former"));
    former.detach(node);
    assert!(!ADDRESSES.into_iter().any(is_open), "{}", node.rules());
    // Nor does news of the object open it, but another attachment does.
    manifest(node, "former", &ADDRESSES[..1]);
    sleep(slowed(Duration::from_millis(500)));
    assert!(!ADDRESSES.into_iter().any(is_open));
    let again = Attached::new(node, "former");
    assert!(ADDRESSES.into_iter().all(is_open));
    again.detach(node);
    scene.node.clean_up();
}

#[test]
fn the_kernel_forgets_the_flows_of_who_has_gone() {
    let scene = Scene::new(true);
    let node = &scene.node;
    // None of them ends by itself meanwhile.
    for name in ["udp_timeout", "udp_timeout_stream", "icmp_timeout", "icmpv6_timeout"] {
        node.node.set_sysctl(&format!("net/netfilter/nf_conntrack_{name}"), "600");
    }
    manifest(node, "former", &ADDRESSES);
    let former = Attached::new(node, "former");
    scene.ask(&former);
    for address in ADDRESSES {
        // Of those that the node itself began as well, and another pod of the node's.
        node.node.sh(&format!("ping -c 1 -W 5 {address}"));
        node.space("other").sh(&format!("ping -c 1 -W 5 {address}"));
    }
    let known = |node: &PolicedNode| -> Vec<usize> {
        let flows = node.node.sh("conntrack -L -f ipv4; conntrack -L -f ipv6");
        let of =
            |address| flows.lines().filter(|line| line.contains(&format!("={address} "))).count();
        ADDRESSES.into_iter().map(of).collect()
    };
    assert_eq!(known(node), [3, 3]);
    former.detach(node);
    node.remove("pod-former");
    node.wait("no flow is known", |it| known(it) == [0, 0]);
    scene.node.clean_up();
}
