//! policyd masquerades what leaves the node.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use lab::probe::{Protocol, Server, must_not_reach, must_reach, must_reach_at};
use lab::{Node, Space, by_nftables};
use policyd::dataplane::{Kind, Programs};
use policyd::masquerade::{self, Agent, Options, Report};
use runner::OsRunner;
use serde_json::{Value, json};

use crate::network::{Guest, NODE4, NODE6, Network, WORLD4, WORLD6, dual};

const CONNECTIONS: usize = 500;

fn kind() -> Kind {
    if by_nftables() { Kind::Nftables } else { Kind::Iptables }
}

/// A node whose agent is called by hand.
struct Masquerading {
    network: Network,
    agent: Agent<OsRunner>,
    now: Instant,
}

impl Masquerading {
    fn new(keys: &Value, config: &str) -> Self {
        Self::with(keys, config, Options { ipv6: true, ..Options::default() })
    }

    fn with(keys: &Value, config: &str, options: Options) -> Self {
        let conf = json!({"type": "bridge", "bridge": "br0", "isDefaultGateway": true,
            "ipam": dual(&json!([]))});
        let network = Network::with(conf, keys);
        let file = network.node.home().join("ip-masq-agent");
        fs::write(&file, config).unwrap();
        let agent = Agent::new(&file, options, kind(), Programs::new(OsRunner, ""));
        Self { network, agent, now: Instant::now() }
    }

    /// Lets the agent look; an hour passes before.
    fn reconcile(&mut self) -> Report {
        self.now += Duration::from_secs(3600);
        let Self { network, agent, now } = self;
        network.node.enter(|| agent.reconcile(*now))
    }

    /// Lets the agent look; whether it wrote.
    fn wrote(&mut self) -> bool {
        self.reconcile().kernel.expect("there is a configuration").expect("the kernel takes it")
    }

    /// What both families' nat tables hold, without counters.
    fn tables(&self) -> String {
        if by_nftables() {
            let table = "nft --stateless list table inet podwire-masquerade 2>/dev/null || true";
            return self.network.node.sh(table);
        }
        let lines = "iptables-save -t nat; ip6tables-save -t nat";
        let saved = self.network.node.sh(lines);
        let lines = saved.lines().filter(|line| line.starts_with(['-', ':']));
        lines.map(|line| line.split(" [").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
    }
}

/// Pods' own ranges are left alone.
const PODS: &str = "nonMasqueradeCIDRs: [10.1.0.0/16, 'fd00:1::/32']";

#[test]
fn what_leaves_is_masqueraded_and_what_stays_is_not() {
    let mut it = Masquerading::new(&json!({}), PODS);
    let world = it.network.world();
    let (one, two) = (it.network.guest("one"), it.network.guest("two"));
    must_not_reach(&one.pod, &world, WORLD4);
    assert!(it.wrote());
    one.must_be_seen_by(&world, [WORLD4, WORLD6], [NODE4, NODE6]);
    one.must_be_seen_by(&two.pod, [&two.v4, &two.v6], [&one.v4, &one.v6]);
    // The node itself is reached as before, and reaches its pods as itself.
    let server = Server::start(&it.network.node, Protocol::Tcp, IpAddr::from([0; 4]));
    let seen = must_reach_at(&one.pod, &server, &format!("{NODE4}:{}", server.port()));
    assert_eq!(seen.to_string(), one.v4);
    assert_eq!(must_reach(&it.network.node, &one.pod, &one.v4).to_string(), "10.1.0.1");
    it.network.leave(&one);
    it.network.leave(&two);
}

#[test]
fn destinations_of_the_file_are_left_alone_once_it_says_so() {
    let mut it = Masquerading::new(&json!({}), PODS);
    let world = it.network.world();
    world
        .sh(&format!("ip route add 10.1.0.0/24 via {NODE4}; ip route add fd00:1::/64 via {NODE6}"));
    let one = it.network.guest("one");
    it.reconcile();
    one.must_be_seen_by(&world, [WORLD4, WORLD6], [NODE4, NODE6]);
    let file = it.network.node.home().join("ip-masq-agent");
    fs::write(file, "nonMasqueradeCIDRs: [192.0.2.0/24, '2001:db8::/64']").unwrap();
    assert!(it.wrote());
    one.must_be_seen_by(&world, [WORLD4, WORLD6], [&one.v4, &one.v6]);
    it.network.leave(&one);
}

#[test]
fn ipv6_is_left_alone_unless_asked_for() {
    let mut it = Masquerading::with(&json!({}), "", Options::default());
    let world = it.network.world();
    let one = it.network.guest("one");
    it.reconcile();
    assert_eq!(must_reach(&one.pod, &world, WORLD4).to_string(), NODE4);
    must_not_reach(&one.pod, &world, WORLD6);
    it.network.leave(&one);
}

#[test]
fn source_ports_are_never_node_ports() {
    let mut it = Masquerading::new(&json!({}), PODS);
    let world = it.network.world();
    let one = it.network.guest("one");
    it.reconcile();
    // Addresses are usable from here on.
    one.must_be_seen_by(&world, [WORLD4, WORLD6], [NODE4, NODE6]);
    for address in [WORLD4, WORLD6] {
        for ports in
            [tcp_source_ports(&one, &world, address), udp_source_ports(&one, &world, address)]
        {
            let is_allowed = |port: &u16| matches!(port, 1024..=29_999 | 32_768..);
            assert!(ports.iter().all(is_allowed), "{ports:?}");
            // Both ranges are used: by chance alone, each has hundreds.
            let low = ports.iter().filter(|port| **port < 30_000).count();
            assert!(low > 100 && ports.len() - low > 100, "{low} of {}", ports.len());
        }
    }
    it.network.leave(&one);
}

/// The source ports that a server in the world sees of as many connections from a pod.
fn tcp_source_ports(from: &Guest, world: &Space, address: &str) -> BTreeSet<u16> {
    let any = if address.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
    let listener = world.enter(|| TcpListener::bind(any)).unwrap();
    let target = SocketAddr::new(address.parse().unwrap(), listener.local_addr().unwrap().port());
    thread::scope(|scope| {
        let seen =
            scope.spawn(|| (0..CONNECTIONS).map(|_| listener.accept().unwrap().1.port()).collect());
        from.pod.enter(|| {
            for _ in 0..CONNECTIONS {
                // Two connections can be given one port: SYNs are then sent again after a second.
                TcpStream::connect_timeout(&target, Duration::from_secs(10)).unwrap();
            }
        });
        seen.join().unwrap()
    })
}

/// As above, with datagrams that each come from a socket of their own.
fn udp_source_ports(from: &Guest, world: &Space, address: &str) -> BTreeSet<u16> {
    let any = if address.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
    let server = world.enter(|| UdpSocket::bind(any)).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let target = SocketAddr::new(address.parse().unwrap(), server.local_addr().unwrap().port());
    let next = || {
        from.pod.enter(|| UdpSocket::bind(any).unwrap().send_to(b"?", target)).unwrap();
        server.recv_from(&mut [0; 8]).unwrap().1.port()
    };
    (0..CONNECTIONS).map(|_| next()).collect()
}

#[test]
fn with_the_plugins_own_masquerading_each_connection_is_masqueraded_once() {
    let mut it = Masquerading::new(&json!({"ipMasq": true, "ipMasqBackend": "iptables"}), PODS);
    let world = it.network.world();
    let before = it.network.guest("before");
    it.reconcile();
    let after = it.network.guest("after");
    for guest in [&before, &after] {
        guest.must_be_seen_by(&world, [WORLD4, WORLD6], [NODE4, NODE6]);
        it.network.node.sh("iptables -t nat -Z; ip6tables -t nat -Z");
        for address in [WORLD4, WORLD6] {
            let seen = tcp_source_ports(guest, &world, address);
            assert!(seen.len() > CONNECTIONS / 2);
        }
        assert_eq!(masqueraded(&it.network.node), [CONNECTIONS; 2]);
    }
    before.must_be_seen_by(&after.pod, [&after.v4, &after.v6], [&before.v4, &before.v6]);
    it.network.leave(&before);
    it.network.leave(&after);
}

/// How many packets all rules that masquerade have seen: of each connection, the first.
fn masqueraded(node: &Node) -> [usize; 2] {
    [("iptables", '4'), ("ip6tables", '6')].map(|(program, family)| {
        // The plugins' own, and those of policyd.
        let saved = node.sh(&format!(
            "{program}-save -c -t nat
             nft list chain inet podwire-masquerade PODWIRE-MASQUERADE-{family} 2>/dev/null || true"
        ));
        let by_iptables = saved.lines().filter(|line| line.contains("-j MASQUERADE"));
        let by_iptables = by_iptables.map(|line| line[1..].split(':').next().unwrap());
        let by_nft = saved.lines().filter_map(|line| line.split_once("counter packets "));
        let by_nft = by_nft.map(|(_, count)| count.split(' ').next().unwrap());
        by_iptables.chain(by_nft).map(|it| it.parse::<usize>().unwrap()).sum()
    })
}

#[test]
fn nothing_is_written_without_need_and_nothing_is_left_behind() {
    let mut it = Masquerading::new(&json!({}), PODS);
    it.network.node.sh("iptables -t nat -A POSTROUTING -s 203.0.113.1 -j MASQUERADE");
    it.network.node.sh("ip6tables -t nat -N FOREIGN");
    let before = it.tables();
    assert!(it.wrote());
    let installed = it.tables();
    assert!(!it.wrote());
    let by_nft = [
        "nft flush table inet podwire-masquerade",
        "nft delete table inet podwire-masquerade",
        "nft flush ruleset",
        "nft flush chain inet podwire-masquerade postrouting",
        "nft insert rule inet podwire-masquerade PODWIRE-MASQUERADE-6 accept",
        "nft delete table inet podwire-masquerade; nft add table inet podwire-masquerade '{ flags dormant; }'",
    ];
    let by_iptables = [
        "iptables -t nat -F PODWIRE-MASQUERADE",
        "iptables -t nat -F POSTROUTING; iptables -t nat -A POSTROUTING -s 203.0.113.1 -j MASQUERADE",
        "ip6tables -t nat -D PODWIRE-MASQUERADE 1",
        "iptables -t nat -I PODWIRE-MASQUERADE -j ACCEPT",
        "ip6tables-save -t nat | grep -e '-A POSTROUTING' | sed 's/^/ip6tables -t nat /' | sh",
        "ip6tables -t nat -F POSTROUTING; ip6tables -t nat -X FOREIGN; ip6tables -t nat -N FOREIGN;
         ip6tables -t nat -F PODWIRE-MASQUERADE; ip6tables -t nat -X PODWIRE-MASQUERADE",
    ];
    for damage in if by_nftables() { by_nft } else { by_iptables } {
        it.network.node.sh(damage);
        assert_ne!(it.tables(), installed, "{damage}");
        assert!(it.wrote(), "{damage}");
        assert_eq!(it.tables(), installed, "{damage}");
        assert!(!it.wrote(), "{damage}");
    }
    let mut programs = Programs::new(OsRunner, "");
    it.network.node.enter(|| masquerade::remove(kind(), &mut programs)).unwrap();
    assert_eq!(it.tables(), before);
}

#[test]
fn ipv6_rules_go_when_ipv6_is_turned_off() {
    let mut it = Masquerading::new(&json!({}), "");
    it.reconcile();
    let file = it.network.node.home().join("ip-masq-agent");
    it.agent = Agent::new(&file, Options::default(), kind(), Programs::new(OsRunner, ""));
    assert!(it.wrote());
    let six = it.network.node.sh("ip6tables-save -t nat; nft list ruleset ip6");
    assert!(!six.contains("PODWIRE") && !it.tables().contains("MASQUERADE-6"), "{six}");
    assert!(it.tables().contains("PODWIRE"));
}
