//! A pod that starts without policyd, and sends, or is sent to, by addresses that the gate does not
//! know: its interface is closed.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use lab::frames::{Interface, Mac};
use lab::probe::must_reach;
use lab::sockets::{begin_tcp, udp};
use lab::{Pod, Space, slowed};
use serde_json::{Value, json};

use crate::agent::Manner;
use crate::site::{Site, addresses, ptp};

const PORT: u16 = 9999;
/// What has not come by then does not come.
const SILENCE: Duration = Duration::from_millis(700);
const PATIENCE: Duration = Duration::from_secs(20);
/// Nobody's here.
const FOREIGN: [&str; 2] = ["198.51.100.7", "2001:db8:51::7"];
/// The node's, outside of the pods' ranges.
const NODE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const ANY: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), PORT);

fn bridge() -> Value {
    json!({"type": "bridge", "bridge": "cni0", "isGateway": true})
}

/// Two pods of a node, and what one of them does before anybody may talk with it.
struct Scene<'a> {
    node: &'a Space,
    pod: &'a Pod,
    other: &'a Pod,
    by: Interface,
    /// Of the node, as the pod sees it, and of the other pod.
    macs: [Mac; 2],
    other_addresses: Vec<IpAddr>,
    gateway: SocketAddr,
    /// The pod's address on its link, as the other sees it, where they share a bridge.
    neighbour: Option<SocketAddr>,
    connections: TcpListener,
    sockets: Vec<UdpSocket>,
}

impl<'a> Scene<'a> {
    fn new(site: &'a Site, pods: [&'a Pod; 2], results: [&Value; 2]) -> Self {
        let [pod, other] = pods;
        let is_bridged = results[0]["interfaces"][0]["name"] == "cni0";
        let gateway = results[0]["interfaces"][0]["name"].as_str().unwrap();
        // Whoever sends to one does so from another.
        let [of_pod, _] = [pod, other].map(|it| it.link_local("eth0"));
        let [by_pod, by_other] = [pod, other].map(|it| it.index("eth0"));
        let by = Interface::open(pod, "eth0");
        let mac = Interface::open(&site.node, gateway).mac();
        let of_other = if is_bridged { Interface::open(other, "eth0").mac() } else { mac };
        let gateway = site.node.link_local(gateway);
        let connections = site.node.enter(|| TcpListener::bind(ANY)).unwrap();
        connections.set_nonblocking(true).unwrap();
        let listen = |space: &Space| space.enter(|| udp(ANY));
        Self {
            node: &site.node,
            pod,
            other,
            by,
            macs: [mac, of_other],
            other_addresses: addresses(results[1]).iter().map(|it| it.parse().unwrap()).collect(),
            gateway: SocketAddrV6::new(gateway, PORT, 0, by_pod).into(),
            neighbour: is_bridged.then(|| SocketAddrV6::new(of_pod, PORT, 0, by_other).into()),
            connections,
            sockets: vec![listen(&site.node), listen(other), listen(pod)],
        }
    }

    /// By which ways something comes while all are open.
    fn ways(&self) -> BTreeSet<String> {
        let node = ["TCP from its link-local address to the node", "forged IPv4 to the node"];
        let ways = ["forged IPv6 to the node", "forged IPv4 to a pod", "forged IPv6 to a pod"];
        let to_it = self.neighbour.map(|_| "to its link-local address");
        node.into_iter().chain(ways).chain(to_it).map(str::to_owned).collect()
    }

    /// All is sent, once in a millisecond, until `is_over`.
    fn send(&self, is_over: &AtomicBool) {
        let from_other = self.other.enter(|| {
            let own = self.other_addresses.iter().find(|it| it.is_ipv6()).unwrap();
            udp(SocketAddr::new(*own, 0))
        });
        self.pod.enter(|| {
            while !is_over.load(Ordering::Relaxed) {
                // Refusals are what is to be seen.
                _ = begin_tcp((Ipv6Addr::UNSPECIFIED, 0).into(), self.gateway);
                if let Some(neighbour) = self.neighbour {
                    _ = from_other.send_to(b"to its link-local address", neighbour);
                }
                for (number, family) in ["IPv4", "IPv6"].into_iter().enumerate() {
                    let from = SocketAddr::new(FOREIGN[number].parse().unwrap(), PORT);
                    let is_of_family = |it: &&IpAddr| it.is_ipv4() == (number == 0);
                    let other = *self.other_addresses.iter().find(is_of_family).unwrap();
                    let node = NODE[number].parse().unwrap();
                    for (mac, to, whom) in
                        [(self.macs[0], node, "the node"), (self.macs[1], other, "a pod")]
                    {
                        let label = format!("forged {family} to {whom}");
                        let ends = [from, SocketAddr::new(to, PORT)];
                        self.by.send(&[], mac, ends, label.as_bytes());
                    }
                }
                sleep(Duration::from_millis(1));
            }
        });
    }

    /// By which ways something has come since this was last asked.
    fn came(&self) -> BTreeSet<String> {
        let mut came = BTreeSet::new();
        while self.connections.accept().is_ok() {
            came.insert("TCP from its link-local address to the node".to_owned());
        }
        let mut room = [0; 256];
        for socket in &self.sockets {
            while let Ok(length) = socket.recv(&mut room) {
                came.insert(String::from_utf8(room[..length].to_vec()).unwrap());
            }
        }
        came
    }
}

/// As `is_over` ends the sending, also when something fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn nothing_comes_before_policyd_is_there(main: Value) {
    let site = Site::new(main);
    site.node.sh(&format!(
        "ip addr add {}/32 dev lo; ip addr add {}/128 dev lo nodad
         for it in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $it; done",
        NODE[0], NODE[1]
    ));
    let [one, other] = ["one", "other"].map(|name| site.node.pod(name));
    let agent = site.agent(Manner::Works);
    let of_other = site.add(&other).ok();
    drop(agent);
    let before = site.world(&[&one, &other]);
    let wired = site.wire(&one);
    let scene = Scene::new(&site, [&one, &other], [&wired, &of_other]);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ends = Ends(&is_over);
        scope.spawn(|| scene.send(&is_over));
        // All of it would come.
        let (started, mut came) = (Instant::now(), BTreeSet::new());
        while came != scene.ways() {
            came.extend(scene.came());
            assert!(started.elapsed() < slowed(PATIENCE), "{came:?}");
            sleep(Duration::from_millis(10));
        }
        let reply = site.protect(&one, &wired);
        assert!(reply.stderr.contains("the gate keeps the pod's traffic back"), "{reply}");
        assert_eq!(site.closed(), site.interfaces(&[&one]));
        scene.came();
        sleep(slowed(SILENCE));
        assert_eq!(scene.came(), BTreeSet::new());
        // The node itself is kept back, too, and the same again changes nothing.
        let closed = site.node.sh("nft list table netdev podwire");
        assert_eq!(site.protect(&one, &wired).ok(), wired);
        assert_eq!(site.node.sh("nft list table netdev podwire"), closed);
        let target = addresses(&wired).into_iter().next().unwrap();
        assert!(!scene.node.try_sh(&format!("ping -q -c1 -W1 {target}")).status.success());
        assert_eq!(scene.came(), BTreeSet::new());

        let agent = site.agent(Manner::Works);
        assert_eq!(site.closed(), BTreeSet::new());
        for address in addresses(&of_other) {
            must_reach(&one, &other, &address);
        }
        for address in addresses(&wired) {
            must_reach(&other, &one, &address);
        }
        // From now on its rules are what keeps it from the rest. To an address of the link they
        // keep nobody (see docs/policyd.md).
        let neighbour = BTreeSet::from(["to its link-local address".to_owned()]);
        assert_eq!(&scene.came() - &neighbour, BTreeSet::new());
        drop(agent);
    });
    drop(scene);
    let agent = site.agent(Manner::Works);
    assert!(site.del(&one, &wired).succeeded());
    drop(agent);
    site.world(&[&one, &other]).must_be(&before, "after DEL");
}

#[test]
fn nothing_comes_of_a_routed_pod_before_policyd_is_there() {
    nothing_comes_before_policyd_is_there(ptp());
}

#[test]
fn nothing_comes_of_a_bridged_pod_or_to_it_before_policyd_is_there() {
    nothing_comes_before_policyd_is_there(bridge());
}

#[test]
fn a_pod_that_goes_without_policyd_leaves_nothing_closed() {
    for main in [ptp(), bridge()] {
        let site = Site::new(main);
        let pods = ["one", "two", "three"].map(|name| site.node.pod(name));
        let all: Vec<&Pod> = pods.iter().collect();
        let before = site.world(&all);
        let results = pods.each_ref().map(|pod| {
            let wired = site.wire(pod);
            assert!(site.protect(pod, &wired).succeeded());
            wired
        });
        assert_eq!(site.closed(), site.interfaces(&all));
        // DEL, also when the link has gone and when it comes twice.
        assert!(site.del(&pods[0], &results[0]).succeeded());
        assert!(site.unprotect(&pods[0], &results[0]).succeeded());
        assert_eq!(site.closed(), site.interfaces(&all[1..]));
        assert!(site.run(&site.main_call("DEL", &pods[1])).succeeded());
        assert!(site.unprotect(&pods[1], &results[1]).succeeded());
        assert_eq!(site.closed(), site.interfaces(&all[2..]));
        // GC.
        assert!(site.gc(&["three"]).succeeded());
        assert_eq!(site.closed(), site.interfaces(&all[2..]));
        assert!(site.gc(&[]).succeeded());
        assert_eq!(site.closed(), BTreeSet::new());
        assert!(site.run(&site.main_call("DEL", &pods[2])).succeeded());
        site.world(&all).must_be(&before, "after all have gone");
    }
}

/// What somebody else opened is closed by the next ADD, and what he closed is none of the plugin's.
#[test]
fn the_plugin_sees_to_its_own_interface_alone() {
    let site = Site::new(ptp());
    let [one, two] = ["one", "two"].map(|name| site.node.pod(name));
    let [of_one, of_two] = [&one, &two].map(|pod| site.wire(pod));
    assert!(site.protect(&one, &of_one).succeeded());
    site.node.sh("nft delete table netdev podwire");
    assert!(site.protect(&one, &of_one).succeeded());
    assert!(site.protect(&two, &of_two).succeeded());
    assert_eq!(site.closed(), site.interfaces(&[&one, &two]));
    assert!(site.unprotect(&two, &of_two).succeeded());
    assert_eq!(site.closed(), site.interfaces(&[&one]));
    // Half of it.
    site.node.sh("for it in $(nft list chains netdev | grep -o 'veth[^ ]*/egress'); do nft delete chain netdev podwire $it; done");
    assert!(site.unprotect(&one, &of_one).succeeded());
    assert_eq!(site.closed(), BTreeSet::new());
}

/// What the plugin cannot keep back does not start. An older kernel's answer is had by a chain that is
/// called nowhere: it may have no policy.
#[test]
fn where_interfaces_cannot_be_closed_no_pod_starts_without_policyd() {
    let site = Site::new(ptp());
    let pod = site.node.pod("pod1");
    let wired = site.wire(&pod);
    let name = wired["interfaces"][0]["name"].as_str().unwrap();
    let refuse = |chain: &str| {
        let script = format!("add table netdev podwire; add chain netdev podwire {chain}");
        site.node.sh(&format!("nft '{script}'"));
    };
    refuse(name);
    let before = site.world(&[&pod]);
    let error = site.protect(&pod, &wired).expect_error(11);
    assert!(error.msg.contains("nothing would keep the pod from sending"), "{error:?}");
    assert!(error.msg.contains("CONFIG_NF_TABLES_NETDEV"), "{error:?}");
    site.world(&[&pod]).must_be(&before, "after a refused ADD");
    site.node.sh("nft delete table netdev podwire");
    // What goes there is less: that a kernel lacks it keeps no pod.
    refuse(&format!("{name}/egress"));
    assert!(site.protect(&pod, &wired).succeeded());
    let shown = site.node.sh("nft list table netdev podwire");
    assert!(
        shown.contains(&format!("hook ingress device \"{name}\" priority -500; policy drop;")),
        "{shown}"
    );
    assert!(!shown.contains("hook egress"), "{shown}");
    assert!(site.unprotect(&pod, &wired).succeeded());
    assert_eq!((site.closed(), site.files()), (BTreeSet::new(), vec![]));
}
