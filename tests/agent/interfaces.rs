//! Pods that no CNI plugin told of: policyd finds where they are, and has their bridges show it
//! what goes from port to port.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use lab::by_nftables;
use lab::frames::{Interface, Mac};
use lab::probe::{must_not_reach, must_reach};
use lab::sockets::{received, udp};
use serde_json::json;

use crate::node::PolicedNode;

fn deny_all() -> serde_json::Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "deny"}, "spec": {"podSelector": {}}})
}

#[test]
fn a_pod_that_nobody_told_of_is_bound_to_its_link() {
    let node = PolicedNode::new(&["a", "b"]);
    // Its own address stays its own, and nobody else's is taken from it.
    node.wait("both links, in both families", |it| it.knows(&["a", "b"]));
    let [four, six] = node.addresses("b") else { panic!("two addresses") };
    node.space("a").sh("ip addr add 192.0.2.7/32 dev eth0; ip addr add 2001:db8::7/128 dev eth0");
    for (address, own, forged) in [
        (four, node.addresses("a")[0].to_string(), "192.0.2.7"),
        (six, node.addresses("a")[1].to_string(), "2001:db8::7"),
    ] {
        let counted = |source: &str| {
            let send = format!("ping -n -c1 -W1 -I {source} {address}");
            // Whether it is answered is not the question.
            _ = node.space("a").try_sh(&send);
            // By the interface, and where the kernel has nothing there by the backend's rules.
            let by_interface = "nft list chain netdev podwire-sources forged/";
            let by_rules = if by_nftables() {
                "nft list chain inet podwire PODWIRE-FORGED"
            } else {
                "iptables -t raw -nvxL PODWIRE-FORGED; ip6tables -t raw -nvxL PODWIRE-FORGED"
            };
            node.node.sh(&format!("{by_interface}; {by_rules}"))
        };
        let before = counted(&own);
        assert_eq!(before, counted(&own));
        assert_ne!(before, counted(forged), "{forged} was not held to be forged");
    }
    must_reach(node.space("a"), node.space("b"), &four.to_string());
    node.clean_up();
}

#[test]
fn pods_on_one_bridge_are_isolated_from_each_other() {
    let node = PolicedNode::bridged(&["a", "b"]);
    let reach = |allowed: bool| {
        for address in node.addresses("b").iter().map(ToString::to_string) {
            if allowed {
                must_reach(node.space("a"), node.space("b"), &address);
            } else {
                must_not_reach(node.space("a"), node.space("b"), &address);
            }
        }
    };
    reach(true);
    node.write("deny", &deny_all());
    node.wait("isolation", |it| it.rules().contains("PODWIRE-TO-"));
    reach(false);
    // Whoever takes the bridge out of policy's sight finds it there again.
    node.node.sh("ip link set cni0 type bridge nf_call_iptables 0 nf_call_ip6tables 0");
    node.wait("the bridge to be seen to again", |it| {
        let shown = it.node.sh("ip -d link show cni0");
        shown.contains("nf_call_iptables 1") && shown.contains("nf_call_ip6tables 1")
    });
    reach(false);
    node.clean_up();
}

/// Whoever is behind a bridge that shows no frames is reached by all, so policyd is not ready; but what it knows of links stays
/// in force, and so does what policies say of other ways.
#[test]
fn a_bridge_that_shows_no_frames_is_told_of_and_holds_up_nothing_else() {
    let mut node = PolicedNode::bridged(&["a", "b"]);
    for address in ["a", "b"].iter().flat_map(|it| node.addresses(it)) {
        node.node.sh(&format!("ping -c1 -W5 {address}"));
    }
    node.wait("where they are", |it| it.knows(&["a", "b"]));
    node.restart_without_br_netfilter();
    let readiness = |it: &PolicedNode| {
        it.node.try_sh("curl -s --max-time 5 http://127.0.0.1:9099/readyz").stdout
    };
    node.wait("an answer", |it| {
        !["", "not all objects are known yet\n"].contains(&&*readiness(it))
    });
    for _ in 0..20 {
        let why = readiness(&node);
        assert!(why.contains("br_netfilter"), "{why}");
        assert!(node.knows(&["a", "b"]));
        sleep(Duration::from_millis(100));
    }
    node.write("deny", &deny_all());
    node.wait("isolation", |it| it.isolated() == 2);
    node.kill();
    node.start();
    assert!(node.knows(&["a", "b"]));
    node.clean_up();
}

/// Bridges of others would be filtered too, by whatever rules there are.
#[test]
fn what_others_bridges_carry_is_not_shown_to_rules() {
    let node = PolicedNode::bridged(&["a", "b"]);
    node.node.sh("ip link add others type bridge; ip link set others up");
    node.write("deny", &deny_all());
    node.wait("isolation", |it| it.rules().contains("PODWIRE-TO-"));
    for address in node.addresses("b") {
        must_not_reach(node.space("a"), node.space("b"), &address.to_string());
    }
    let shown = |bridge: &str| {
        let text = node.node.sh(&format!("ip -d link show {bridge}"));
        ["nf_call_iptables 1", "nf_call_ip6tables 1"].map(|it| text.contains(it))
    };
    assert_eq!((shown("cni0"), shown("others")), ([true; 2], [false; 2]));
    for program in ["iptables", "ip6tables", "arptables"] {
        let key = format!("net/bridge/bridge-nf-call-{program}");
        assert_eq!(node.node.sysctl(&key).as_deref(), Some("0"), "{key}");
    }
    node.clean_up();
}

const PORT: u16 = 7800;

/// What pod `a` sends to others by none of their addresses that policies know: by the same
/// flows each time.
struct Flooding {
    sockets: Vec<(String, UdpSocket, SocketAddr)>,
}

impl Flooding {
    const TO_ALL: [&str; 3] = ["255.255.255.255", "ff02::1", "ff02::2:ff00:1"];

    fn new(node: &PolicedNode, to: &[&str]) -> Self {
        let mut destinations: Vec<_> =
            Self::TO_ALL.iter().map(|it| ((*it).to_owned(), it.parse().unwrap())).collect();
        for name in to {
            destinations.push(((*name).to_owned(), node.space(name).link_local("eth0").into()));
        }
        let a = node.space("a");
        let eth0 = a.index("eth0");
        let socket = |(name, address): (String, IpAddr)| {
            let [four, six] = node.addresses("a") else { panic!("two addresses") };
            let (own, to) = match address {
                IpAddr::V4(_) => (four, SocketAddr::new(address, PORT)),
                IpAddr::V6(address) => (six, SocketAddrV6::new(address, PORT, 0, eth0).into()),
            };
            // Not the link-local address, which the kernel would choose: it passes no port.
            let socket = a.enter(|| udp(SocketAddr::new(*own, 0)));
            socket.set_broadcast(true).unwrap();
            (name, socket, to)
        };
        Self { sockets: destinations.into_iter().map(socket).collect() }
    }

    fn send(&self) {
        for (name, socket, to) in &self.sockets {
            socket.send_to(name.as_bytes(), to).unwrap();
        }
    }
}

#[test]
fn what_a_bridge_floods_or_takes_to_a_link_local_address_is_judged_too() {
    let node = PolicedNode::bridged(&["a", "b", "c"]);
    let (at_b, at_c) = (node.listener("b", PORT), node.listener("c", PORT));
    for (name, listener) in [("b", &at_b), ("c", &at_c)] {
        // Each of the groups that is not everybody's.
        let eth0 = node.space(name).index("eth0");
        listener.join_multicast_v6(&"ff02::2:ff00:1".parse().unwrap(), eth0).unwrap();
    }
    let flooding = Flooding::new(&node, &["b", "c"]);
    let for_all: BTreeSet<_> = Flooding::TO_ALL.map(str::to_owned).into();
    let all_and = |name: &str| &for_all | &BTreeSet::from([name.to_owned()]);
    let gets = |what: &str, by_b: &BTreeSet<String>| {
        let (mut b, mut c) = (BTreeSet::new(), BTreeSet::new());
        node.wait(what, |_| {
            flooding.send();
            b.append(&mut received(&at_b));
            c.append(&mut received(&at_c));
            c == all_and("c") && b.is_superset(by_b)
        });
        assert_eq!(&b, by_b, "{what}");
    };
    let settled = |what: &str, is_so: &dyn Fn(&PolicedNode) -> bool| {
        node.wait(what, is_so);
        let _ = (received(&at_b), received(&at_c));
    };
    gets("nothing is isolated", &all_and("b"));
    // The node's neighbours tell policyd where it is.
    for address in node.addresses("b") {
        node.node.sh(&format!("ping -c 1 -W 5 {address}"));
    }
    let deny = |ports: serde_json::Value| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "b"}, "spec": {"podSelector": {"matchLabels": {"app": "b"}},
            "policyTypes": ["Ingress"], "ingress": ports}})
    };
    node.write("b", &deny(json!([])));
    settled("the isolation of b", &|it| it.isolated() == 1 && it.knows(&["b"]));
    gets("b is isolated", &BTreeSet::new());
    node.write("b", &deny(json!([{"ports": [{"protocol": "UDP", "port": PORT}]}])));
    settled("what b is allowed", &|it| it.rules().contains(&format!("dport {PORT}")));
    gets("the port is allowed", &all_and("b"));
    // Flows that were allowed, and have gone on until now.
    node.write("b", &deny(json!([])));
    node.wait("the isolation of b", |it| !it.rules().contains(&format!("dport {PORT}")));
    let _ = (received(&at_b), received(&at_c));
    gets("b is isolated again", &BTreeSet::new());
    node.remove("b");
    node.wait("nobody is isolated", |it| it.isolated() == 0);
    gets("nothing is isolated any more", &all_and("b"));
    node.clean_up();
}

/// conntrack takes a forged packet for the answer to a flow, before it is dropped. So no flow to `b` may
/// become known by what somebody else was sent.
#[test]
fn no_forged_answer_makes_a_flow_to_an_isolated_pod_an_established_one() {
    let node = PolicedNode::bridged(&["a", "b", "c", "d"]);
    let at_b = node.listener("b", PORT);
    for name in ["a", "b", "c", "d"] {
        node.addresses(name).iter().for_each(|it| _ = node.node.sh(&format!("ping -c1 -W5 {it}")));
    }
    node.wait("the ports", |it| it.knows(&["a", "b", "c", "d"]));
    let [by_a, to_b, to_c, to_d] =
        ["a", "b", "c", "d"].map(|it| Interface::open(node.space(it), "eth0"));
    // Addresses of b's that nobody knows of; d is not isolated, and takes what it is sent.
    let unknown = ["198.18.0.3", "2001:db8:666::3"];
    for address in unknown {
        let at_once = if address.contains(':') { "nodad" } else { "" };
        node.space("b").sh(&format!("ip addr add {address} dev eth0 {at_once}"));
        // The kernel makes an address of IPv6 usable a little later (`addrconf_dad_work`).
        let of_it = format!("ip route get {address}");
        node.wait("the address", |it| it.space("b").sh(&of_it).starts_with("local "));
    }
    let unknown = unknown.map(|it| (it.parse().unwrap(), to_d.mac(), to_b.mac()));
    let groups: [(&str, Mac); 3] = [
        ("255.255.255.255", [0xff; 6]),
        ("224.0.0.251", [1, 0, 0x5e, 0, 0, 0xfb]),
        ("ff02::1", [0x33, 0x33, 0, 0, 0, 1]),
    ];
    let own = node.addresses("b").iter().map(|it| (*it, to_c.mac(), to_b.mac()));
    let groups = groups.map(|(address, mac)| (address.parse().unwrap(), mac, mac));
    let ways: Vec<(IpAddr, Mac, Mac)> = own.chain(groups).chain(unknown).collect();
    let came = |round: u16| {
        for (index, (to, first, then)) in ways.iter().enumerate() {
            let from = node.addresses("a").iter().find(|it| it.is_ipv4() == to.is_ipv4()).unwrap();
            let port = 10_000 + 100 * round + u16::try_from(index).unwrap();
            let ends = [SocketAddr::new(*from, port), SocketAddr::new(*to, PORT)];
            by_a.send(&[], *first, ends, b"first");
            by_a.send(&[], *first, [ends[1], ends[0]], b"forged");
            by_a.send(&[], *then, ends, to.to_string().as_bytes());
        }
        // What passes does so at once.
        std::thread::sleep(std::time::Duration::from_millis(200));
        let mut came = received(&at_b);
        came.remove("first");
        came
    };
    // That of a group of IPv4 it has not joined.
    let all: BTreeSet<_> = ways.iter().map(|it| it.0.to_string()).collect();
    let mut first = came(0);
    node.wait("all that passes", |_| {
        first.append(&mut received(&at_b));
        first.len() + 1 >= all.len()
    });
    let missing: Vec<_> = all.difference(&first).cloned().collect();
    assert_eq!(missing, ["224.0.0.251"]);
    node.write(
        "b",
        &json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "b"}, "spec": {"podSelector": {"matchLabels": {"app": "b"}}}}),
    );
    node.write(
        "c",
        &json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "c"}, "spec": {"podSelector": {"matchLabels": {"app": "c"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "a"}}}]}]}}),
    );
    node.wait("both ports", |it| it.knows(&["b", "c"]) && it.isolated() == 2);
    assert_eq!(came(1), BTreeSet::new());
    assert_eq!(came(2), BTreeSet::new());
    for address in node.addresses("c") {
        must_reach(node.space("a"), node.space("c"), &address.to_string());
    }
    node.clean_up();
}
