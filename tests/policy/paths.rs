//! A.3: the ways of packets, other than from one pod straight to another.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use lab::sockets::raw;
use lab::wire::{LONGEST, echo_request};
use lab::{Space, has_iptables, slowed};
use nix::sys::socket::{SockProtocol, setsockopt, sockopt};
use serde_json::{Value, json};

use crate::cluster::{Cluster, NODE, Wiring, gated};
use crate::objects::{deny_all, policy, world};
use crate::prober::Protocol::{Tcp, Udp};
use crate::prober::deviations;
use crate::table::{End, USUAL, is_allowed, packet, probe};

/// Addresses of a Service, whose ports 80 lead to ports 8080 of `y/b`.
const SERVICE: [&str; 2] = ["10.96.0.10", "fd00:96::10"];

/// As kube-proxy does it.
fn serve(cluster: &Cluster) {
    lead(cluster, &cluster.node, "PREROUTING", SERVICE, 80);
}

/// Leads this port of the addresses to ports 8080 of `y/b`, in a chain of table nat on a node.
pub(crate) fn lead(cluster: &Cluster, node: &Space, chain: &str, addresses: [&str; 2], port: u16) {
    for (program, address) in ["iptables", "ip6tables"].iter().zip(addresses) {
        let backend = cluster.pods["y/b"].address(*program == "iptables");
        let to = SocketAddr::new(backend, 8080);
        if !has_iptables() {
            let family = nft_family(backend.is_ipv4());
            let hook = chain.to_lowercase();
            let rules = ["tcp", "udp", "sctp"].map(|it| {
                format!("nft add rule {family} others {chain} {family} daddr {address} {it} dport {port} dnat to {to}\n")
            });
            node.sh(&format!(
                "nft add table {family} others
                 nft add chain {family} others {chain} '{{ type nat hook {hook} priority -100; }}'
                 {}",
                rules.concat()
            ));
            continue;
        }
        for protocol in ["tcp", "udp", "sctp"] {
            node.sh(&format!(
                "{program} -t nat -A {chain} -d {address} -p {protocol} --dport {port} \
                 -j DNAT --to-destination {to}"
            ));
        }
    }
}

const fn nft_family(is_ipv4: bool) -> &'static str {
    if is_ipv4 { "ip" } else { "ip6" }
}

/// Has the node lead nothing anywhere any more, nor put its address in the place of others.
pub(crate) fn lead_no_more(node: &Space) {
    node.sh(if has_iptables() {
        "iptables -t nat -F; ip6tables -t nat -F"
    } else {
        "nft delete table ip others; nft delete table ip6 others"
    });
}

/// Has a node put its own address in the place of whoever sends to `y/b`.
pub(crate) fn masquerade(cluster: &Cluster, node: &Space) {
    for program in ["iptables", "ip6tables"] {
        let backend = cluster.pods["y/b"].address(program == "iptables");
        if !has_iptables() {
            let family = nft_family(backend.is_ipv4());
            node.sh(&format!(
                "nft add table {family} others
                 nft add chain {family} others POSTROUTING '{{ type nat hook postrouting priority 100; }}'
                 nft add rule {family} others POSTROUTING {family} daddr {backend} masquerade"
            ));
            continue;
        }
        node.sh(&format!("{program} -t nat -A POSTROUTING -d {backend} -j MASQUERADE"));
    }
}

fn cluster_with_hairpin(wiring: Wiring) -> Cluster {
    let mut cluster = Cluster::new(wiring, gated());
    if wiring == Wiring::Bridge {
        cluster.conf["hairpinMode"] = json!(true);
    }
    cluster.populate();
    cluster
}

/// Who reaches the Service, held against the oracle, for which only the backend is there.
fn through_the_service(cluster: &Cluster) -> Vec<String> {
    let world = world(cluster.objects.values());
    let mut probes = Vec::new();
    for (name, member) in cluster.pods.iter().filter(|(name, _)| *name != "y/b") {
        for one in &member.attachment.addresses {
            let end = |who: &str, address| End { who: who.to_owned(), address, node: None };
            let service = SERVICE[usize::from(one.is_ipv6())].parse().unwrap();
            let backend = cluster.pods["y/b"].address(one.is_ipv4());
            let one = end(name, *one);
            for (protocol, _) in USUAL.iter().filter(|(_, port)| *port == 80) {
                let expected = packet(&one, &end("y/b", backend), (*protocol, 8080));
                probes.push((
                    probe(&one, &end("", service), (*protocol, 80)),
                    is_allowed(&world, &expected),
                ));
            }
        }
    }
    deviations(cluster, &probes)
}

fn to_service(wiring: Wiring) {
    let mut cluster = cluster_with_hairpin(wiring);
    serve(&cluster);
    let blocks: Vec<_> =
        ["10.96.0.0/16", "fd00:96::/64"].map(|it| json!({"ipBlock": {"cidr": it}})).into();
    let rules = [
        json!([]),
        // What a rule says holds for the backend and its port, not for the Service's.
        json!([{"ports": [{"port": 80}, {"port": 80, "protocol": "UDP"}]}]),
        json!([{"to": blocks}]),
        json!([{"ports": [{"port": 8080}, {"port": 8080, "protocol": "SCTP"}]}]),
        json!([{"to": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}]}]),
    ];
    let mut wrong = Vec::new();
    for is_masqueraded in [false, true] {
        if is_masqueraded {
            masquerade(&cluster, &cluster.node);
        }
        for rules in &rules {
            let spec = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": rules});
            cluster.tell(&policy("x/p", spec));
            let from = json!([{"podSelector": {"matchLabels": {"pod": "a"}},
                               "namespaceSelector": {}}]);
            let spec = json!({"podSelector": {"matchLabels": {"pod": "b"}},
                              "ingress": [{"from": from, "ports": [{"port": 8080}, {"protocol": "SCTP"}]}]});
            cluster.tell(&policy("y/p", spec));
            cluster.enforce();
            wrong.extend(through_the_service(&cluster));
        }
    }
    assert!(wrong.is_empty(), "{wiring:?}: {}", wrong.join("\n"));
}

/// A pod reaches itself through a Service whatever the policies say.
fn hairpin(wiring: Wiring) {
    let mut cluster = cluster_with_hairpin(wiring);
    serve(&cluster);
    cluster.tell(&deny_all("y"));
    cluster.enforce();
    let pod = &cluster.pods["y/b"];
    // Without, it refuses packets from itself.
    pod.space.sh("for it in all eth0; do
            sysctl -qw net.ipv4.conf.$it.accept_local=1 net.ipv4.conf.$it.rp_filter=0
        done");
    // Its answer would not go through the node: that the question comes is all that can be seen.
    for (service, token) in SERVICE.iter().zip([1_u64 << 60, 1 << 61]) {
        let service: IpAddr = service.parse().unwrap();
        let socket = pod.space.enter(|| UdpSocket::bind((pod.address(service.is_ipv4()), 0)));
        let socket = socket.unwrap();
        wait_until("a packet of the pod to itself comes", || {
            socket.send_to(&token.to_be_bytes(), (service, 80)).unwrap();
            cluster.arrivals.lock().unwrap().contains(&token)
        });
    }
    masquerade(&cluster, &cluster.node);
    let end = |address| End { who: "y/b".to_owned(), address, node: None };
    let probes = [true, false].map(|is_ipv4| {
        let service = SERVICE[usize::from(!is_ipv4)].parse().unwrap();
        let kind = if is_ipv4 { (Tcp, 80) } else { (Udp, 80) };
        (probe(&end(pod.address(is_ipv4)), &end(service), kind), true)
    });
    assert_eq!(deviations(&cluster, &probes), [""; 0], "{wiring:?}, masqueraded");
    assert_eq!(cluster.compare(&[(Tcp, 8080), (Udp, 53)]), [""; 0], "{wiring:?}");
}

pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let (started, patience) = (Instant::now(), slowed(Duration::from_secs(10)));
    while !done() {
        assert!(started.elapsed() < patience, "waited for {patience:?} until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Flows go on while policies change that do not forbid them; replies need no rule.
fn established(wiring: Wiring) {
    let mut cluster = Cluster::nine(wiring, gated());
    let allow = |port: u16| {
        let rules = json!([{"ports": [{"port": port}]}]);
        [("x/p", "egress", "Egress"), ("y/p", "ingress", "Ingress")].map(|(name, key, kind)| {
            policy(name, json!({"podSelector": {}, "policyTypes": [kind], (key): rules}))
        })
    };
    let deny = ["x", "y"].map(deny_all);
    deny.iter().chain(&allow(7000)).for_each(|it| cluster.tell(it));
    cluster.enforce();
    let (client, server) = (&cluster.pods["x/a"], &cluster.pods["y/b"]);
    let flows = [true, false].map(|is_ipv4| {
        let at = SocketAddr::new(server.address(is_ipv4), 7000);
        let listener = server.space.enter(|| TcpListener::bind(at)).unwrap();
        let client = client.space.enter(|| TcpStream::connect(at)).unwrap();
        (client, listener.accept().unwrap().0)
    });
    let talk = || {
        for (one, two) in &flows {
            for (mut from, mut to) in [(one, two), (two, one)] {
                to.set_read_timeout(Some(slowed(Duration::from_secs(5)))).unwrap();
                from.write_all(b"word").unwrap();
                to.read_exact(&mut [0; 4]).expect("the flow goes on");
            }
        }
    };
    talk();
    // Somebody else's, then the same rules anew, then with more ports.
    let more = allow(7000).map(|mut it| {
        it["metadata"]["uid"] = json!(format!("{}-again", it["metadata"]["uid"]));
        it
    });
    let steps = [vec![deny_all("z")], more.to_vec(), allow(8000).to_vec()];
    for step in steps {
        step.iter().for_each(|it| cluster.tell(it));
        cluster.enforce();
        talk();
    }
    cluster.adopt();
    talk();
    cluster.clean_up();
}

/// ICMP errors come back through default deny for a flow that is allowed: from the other end, and
/// from a router on the way.
fn errors(wiring: Wiring) {
    let mut cluster = Cluster::nine(wiring, gated());
    cluster.other.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
         ip route add 203.0.113.77 dev eth0; ip route add 2001:db8:9::77 dev eth0");
    cluster.other.sh(if has_iptables() {
        "iptables -A FORWARD -j REJECT; ip6tables -A FORWARD -j REJECT"
    } else {
        "nft add table inet others
         nft add chain inet others forward '{ type filter hook forward priority 0; }'
         nft add rule inet others forward reject"
    });
    let mut closed = |port: u16, egress: Value| {
        cluster.tell(&deny_all("x"));
        cluster.tell(&deny_all("y"));
        let ports = json!([{"port": port, "protocol": "UDP"}]);
        let ingress = json!([{"ports": ports}]);
        let spec = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": egress});
        cluster.tell(&policy("x/p", spec));
        cluster.tell(&policy("y/p", json!({"podSelector": {}, "ingress": ingress})));
        cluster.enforce();
    };
    closed(7100, json!([{}]));
    let pod = &cluster.pods["x/a"];
    let backend = &cluster.pods["y/b"];
    for (is_ipv4, router) in [(true, "203.0.113.77"), (false, "2001:db8:9::77")] {
        for to in [backend.address(is_ipv4), router.parse().unwrap()] {
            let from = SocketAddr::new(pod.address(is_ipv4), 0);
            let socket = pod.space.enter(|| UdpSocket::bind(from)).unwrap();
            socket.connect((to, 7100)).unwrap();
            socket.set_nonblocking(true).unwrap();
            wait_until(&format!("an error from {to} comes"), || {
                let told = [socket.send(b"?").err(), socket.recv(&mut [0; 1]).err()];
                // Errors are limited in number: it may take a second question.
                told.iter().flatten().any(|it| it.kind() == std::io::ErrorKind::ConnectionRefused)
            });
        }
    }
    cluster.clean_up();
}

/// Neighbours are found again while everything else is denied.
fn discovery(wiring: Wiring) {
    let mut cluster = Cluster::nine(wiring, gated());
    let only = json!([{"ports": [{"port": 80}]}]);
    for namespace in ["x", "y", "z"] {
        cluster.tell(&deny_all(namespace));
        let spec = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
                          "ingress": only, "egress": only});
        cluster.tell(&policy(&format!("{namespace}/p"), spec));
    }
    cluster.enforce();
    let flush = "ip -4 neigh flush all; ip -6 neigh flush all";
    cluster.pods.values().for_each(|member| _ = member.space.sh(flush));
    cluster.node.sh(flush);
    assert_eq!(cluster.compare(&[(Tcp, 80), (Udp, 53)]), [""; 0], "{wiring:?}");
    cluster.clean_up();
}

/// What a pod sends as neighbour or listener discovery, but with a hop limit or a destination by
/// which it is for further than the link, is no discovery.
fn not_discovery(wiring: Wiring) {
    let mut cluster = Cluster::nine(wiring, gated());
    ["x", "y", "z"].iter().for_each(|it| cluster.tell(&deny_all(it)));
    cluster.enforce();
    let (sender, target) = (&cluster.pods["x/a"], &cluster.pods["y/b"]);
    let to = SocketAddr::new(target.address(false), 0);
    let any: IpAddr = "::".parse().unwrap();
    let arrivals = target.space.enter(|| raw(any, SockProtocol::IcmpV6));
    let send = |space: &Space, hop_limit: i32, packet: &[u8]| {
        let socket = space.enter(|| raw(any, SockProtocol::IcmpV6));
        setsockopt(&socket, sockopt::Ipv6Ttl, &hop_limit).unwrap();
        socket.send_to(packet, to).unwrap();
    };
    // A router is between two pods, or a bridge.
    let hop_limits = if wiring == Wiring::Ptp { [2, 64, 255] } else { [1, 64, 254] };
    for hop_limit in hop_limits {
        for kind in [130, 131, 132, 133, 134, 135, 136, 137, 143] {
            let mut packet = vec![kind, 0, 0, 0, 0, 0, 0, 0];
            packet.extend(b"anything");
            send(&sender.space, hop_limit, &packet);
        }
    }
    let of_node = echo_request(false, 1, 1);
    send(&cluster.node, 64, &of_node);
    let mut came = Vec::new();
    wait_until("the node's packet comes", || {
        let mut buffer = [0; LONGEST];
        while let Ok(length) = arrivals.recv(&mut buffer) {
            came.push(buffer[..length].to_vec());
        }
        came.iter().any(|it| it.first() == Some(&128))
    });
    came.retain(|it| it.ends_with(b"anything"));
    assert!(came.is_empty(), "{wiring:?}: {came:?}");
    cluster.clean_up();
}

/// A pod on a bridge is no router to the others, whatever policies say: only what any host says of
/// itself comes from one.
#[test]
fn pods_are_no_routers() {
    let mut cluster = Cluster::nine(Wiring::Bridge, gated());
    cluster.enforce();
    let (sender, target) = (&cluster.pods["x/a"].space, &cluster.pods["y/b"].space);
    let any: IpAddr = "::".parse().unwrap();
    let arrivals = target.enter(|| raw(any, SockProtocol::IcmpV6));
    let to = SocketAddrV6::new(target.link_local("eth0"), 0, 0, sender.index("eth0"));
    let socket = sender.enter(|| raw(any, SockProtocol::IcmpV6));
    setsockopt(&socket, sockopt::Ipv6Ttl, &255).unwrap();
    for kind in [134, 137, 133, 136] {
        let packet = [&[kind, 0, 0, 0, 0, 0, 0, 0], b"anything".as_slice()].concat();
        socket.send_to(&packet, to).unwrap();
    }
    let mut came = Vec::new();
    wait_until("what any host may say comes", || {
        let mut buffer = [0; LONGEST];
        while let Ok(length) = arrivals.recv(&mut buffer) {
            came.extend(buffer[..length].ends_with(b"anything").then_some(buffer[0]));
        }
        came.contains(&136)
    });
    assert_eq!(came, [133, 136]);
    cluster.clean_up();
}

/// The node reaches itself at all of its addresses, those of the pods' range included.
fn node_itself(wiring: Wiring) {
    let mut cluster = Cluster::nine(wiring, gated());
    ["x", "y", "z"].iter().for_each(|it| cluster.tell(&deny_all(it)));
    cluster.enforce();
    let ends = NODE.map(|it| End {
        who: "node".to_owned(),
        address: it.parse().unwrap(),
        node: Some("node-1"),
    });
    let mut probes = Vec::new();
    for (one, two) in ends.iter().flat_map(|one| ends.iter().map(move |two| (one, two))) {
        if one.address.is_ipv4() == two.address.is_ipv4() {
            probes.extend(USUAL.iter().map(|kind| (probe(one, two, *kind), true)));
        }
    }
    assert_eq!(deviations(&cluster, &probes), [""; 0], "{wiring:?}");
    cluster.clean_up();
}

on_both_wirings!(node_itself, to_service, hairpin, established, errors, discovery, not_discovery);
