//! Published ports: whoever may gets to the container by them, and nobody else's packets do.

use std::net::SocketAddr;
use std::time::Duration;

use lab::probe::{Protocol, Server, must_not_reach_at, must_reach_at};
use lab::{Call, Reply};
use serde_json::{Value, json};

use crate::network::{Guest, NODE4, NODE6, Network, WORLD4, WORLD6, dual};

/// Each of these by each backend.
macro_rules! by_both {
    ($($name:ident)*) => {
        mod by_iptables {
            $(#[test] fn $name() { super::$name("iptables"); })*
        }
        mod by_nftables {
            $(#[test] fn $name() { super::$name("nftables"); })*
        }
    };
}

mod flows;

by_both! {
    a_port_is_reached_from_everywhere
    a_port_of_one_address_is_not_reached_by_another
    masquerading_is_as_it_is_configured
    conditions_hold
    packets_to_other_hosts_are_left_alone
    services_come_first
    a_port_is_held_by_who_is_there
    a_port_of_one_address_is_held_against_all
    all_networks_of_a_container_may_publish_its_ports
}

const PATIENCE: Duration = Duration::from_secs(15);

/// A node whose containers publish ports.
struct Site {
    network: Network,
    backend: &'static str,
}

impl Site {
    fn bridge(backend: &'static str) -> Self {
        let conf = json!({"type": "bridge", "bridge": "br0", "isDefaultGateway": true, "ipMasq": true,
            "hairpinMode": true, "ipam": dual(&json!([]))});
        Self { network: Network::new(conf), backend }
    }

    fn routed(backend: &'static str) -> Self {
        let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
        let conf = json!({"type": "ptp", "ipMasq": true, "ipam": dual(&routes)});
        Self { network: Network::new(conf), backend }
    }

    /// Each kind of node.
    fn all(backend: &'static str) -> [Self; 2] {
        [Self::bridge(backend), Self::routed(backend)]
    }

    fn call(&self, command: &str, guest: &Guest, mappings: &Value, keys: &Value) -> Reply {
        let mut conf = json!({"cniVersion": "1.0.0", "name": "net1", "type": "portmap", "backend": self.backend,
            "prevResult": guest.result, "runtimeConfig": {"portMappings": mappings}});
        for (key, value) in keys.as_object().expect("keys are an object") {
            conf[key] = value.clone();
        }
        let call = Call::new("portmap", command).container(guest.pod.name());
        call.netns(&guest.pod.path()).conf(&conf).run(&self.network.node, &self.network.podwire)
    }

    fn publish(&self, guest: &Guest, mappings: &Value) {
        let _ = self.call("ADD", guest, mappings, &json!({})).ok();
        let _ = self.call("CHECK", guest, mappings, &json!({})).ok();
    }

    /// As a runtime does it: the last of the list first.
    fn leave(&self, guest: &Guest, mappings: &Value) {
        self.leave_ports(guest, mappings);
        self.network.leave(guest);
    }

    fn leave_ports(&self, guest: &Guest, mappings: &Value) {
        let _ = self.call("DEL", guest, mappings, &json!({})).ok();
    }
}

fn mapping(protocol: Protocol, host_port: u16, container_port: u16) -> Value {
    let protocol = if protocol == Protocol::Tcp { "tcp" } else { "udp" };
    json!({"hostPort": host_port, "containerPort": container_port, "protocol": protocol})
}

/// Ports 8080 of both protocols lead to port 80, and 8086 to 86: a server of IPv6 takes those of IPv4 as well.
fn both() -> Value {
    let of = |it| [mapping(it, 8080, 80), mapping(it, 8086, 86)];
    json!([of(Protocol::Tcp), of(Protocol::Udp)].concat())
}

/// The port that is published for a family.
fn port(address: &str) -> u16 {
    if address.contains(':') { 8086 } else { 8080 }
}

/// The guest's servers behind the published port of a family, of each protocol.
fn servers(guest: &Guest, address: &str) -> [Server; 2] {
    let like = address.parse().expect("an address");
    let port = port(address) - 8000;
    [Protocol::Tcp, Protocol::Udp].map(|it| Server::start_at(&guest.pod, it, like, port))
}

/// Where a port is published.
fn at(address: &str) -> String {
    to(address, port(address))
}

fn to(address: &str, port: u16) -> String {
    SocketAddr::new(address.parse().expect("an address"), port).to_string()
}

fn a_port_is_reached_from_everywhere(backend: &'static str) {
    for site in Site::all(backend) {
        let world = site.network.world();
        let (one, two) = (site.network.guest("one"), site.network.guest("two"));
        site.publish(&one, &both());
        let node = &site.network.node;
        for (address, gateway, v) in [(NODE4, "10.1.0.1", &one.v4), (NODE6, "fd00:1::1", &one.v6)] {
            for server in servers(&one, v) {
                let is_bridge = site.network.node.try_sh("ip link show br0").status.success();
                let what = format!("{} {address} bridge {is_bridge}", site.backend);
                // The world is seen as itself.
                let seen = must_reach_at(&world, &server, &at(address)).to_string();
                assert_eq!(seen, if v.contains('.') { WORLD4 } else { WORLD6 }, "{what}");
                // What could be answered past the node is not: other containers', and its own.
                for from in [&two.pod, &one.pod] {
                    let seen = must_reach_at(from, &server, &at(address)).to_string();
                    assert_eq!(seen, gateway, "{what}");
                }
                let _ = must_reach_at(&two.pod, &server, &at(gateway));
                // The host itself.
                let _ = must_reach_at(node, &server, &at(address));
                if v.contains('.') {
                    let seen = must_reach_at(node, &server, &at("127.0.0.1")).to_string();
                    assert_eq!(seen, gateway, "{what}");
                }
            }
        }
        site.leave(&one, &both());
        let server = Server::start(&two.pod, Protocol::Tcp, "10.1.0.1".parse().unwrap());
        must_not_reach_at(&world, &server, &at(NODE4));
        site.leave(&two, &json!([]));
    }
}

fn a_port_of_one_address_is_not_reached_by_another(backend: &'static str) {
    let site = Site::bridge(backend);
    let world = site.network.world();
    site.network.node.sh("ip addr add 192.0.2.77/24 dev up0");
    let one = site.network.guest("one");
    let mut only = mapping(Protocol::Tcp, 8080, 80);
    only["hostIP"] = json!("192.0.2.77");
    let only = json!([only]);
    site.publish(&one, &only);
    let [server, _] = servers(&one, &one.v4);
    let _ = must_reach_at(&world, &server, "192.0.2.77:8080");
    must_not_reach_at(&world, &server, &at(NODE4));
    must_not_reach_at(&site.network.node, &server, "127.0.0.1:8080");
    site.leave(&one, &only);
}

fn masquerading_is_as_it_is_configured(backend: &'static str) {
    let site = Site::bridge(backend);
    let world = site.network.world();
    let one = site.network.guest("one");
    let [server, _] = servers(&one, &one.v4);
    let _ = site.call("ADD", &one, &both(), &json!({"masqAll": true})).ok();
    assert_eq!(must_reach_at(&world, &server, &at(NODE4)).to_string(), "10.1.0.1");
    let _ = site.call("ADD", &one, &both(), &json!({"snat": false})).ok();
    assert_eq!(must_reach_at(&world, &server, &at(NODE4)).to_string(), WORLD4);
    must_not_reach_at(&site.network.node, &server, "127.0.0.1:8080");
    let _ = site.call("ADD", &one, &both(), &json!({"markMasqBit": 3})).ok();
    let _ = must_reach_at(&site.network.node, &server, "127.0.0.1:8080");
    site.leave(&one, &both());
}

fn conditions_hold(backend: &'static str) {
    let site = Site::bridge(backend);
    let keys = match backend {
        "iptables" => json!({"conditionsV4": ["!", "-s", WORLD4]}),
        _ => json!({"conditionsV4": ["ip saddr !=", WORLD4]}),
    };
    let world = site.network.world();
    world.sh("ip addr add 192.0.2.3/24 dev eth0");
    let one = site.network.guest("one");
    let [server, _] = servers(&one, &one.v4);
    let _ = site.call("ADD", &one, &both(), &keys).ok();
    let _ = site.call("CHECK", &one, &both(), &keys).ok();
    must_not_reach_at(&world, &server, &at(NODE4));
    world.sh("ip addr del 192.0.2.2/24 dev eth0");
    world.sh("ip addr add 192.0.2.3/24 dev eth0 2>/dev/null || true");
    let _ = must_reach_at(&world, &server, &at(NODE4));
    let _ = site.call("DEL", &one, &both(), &keys).ok();
    assert_eq!(site.network.node.sh("nft list ruleset | grep -c hostports- || true").trim(), "0");
    site.network.leave(&one);
}

/// GHSA-jv3w-x3r3-g6rm: packets to others' ports of the same number were redirected, too.
fn packets_to_other_hosts_are_left_alone(backend: &'static str) {
    for site in Site::all(backend) {
        let world = site.network.world();
        let (one, two) = (site.network.guest("one"), site.network.guest("two"));
        // Nobody listens in the container: who gets there gets no answer.
        site.publish(&one, &both());
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let server = Server::start_at(&world, protocol, WORLD4.parse().unwrap(), 8080);
            let six = Server::start_at(&world, protocol, WORLD6.parse().unwrap(), 8086);
            for from in [&one.pod, &two.pod] {
                assert_eq!(must_reach_at(from, &server, &at(WORLD4)).to_string(), NODE4);
                assert_eq!(must_reach_at(from, &six, &at(WORLD6)).to_string(), NODE6);
            }
            let _ = must_reach_at(&site.network.node, &server, &at(WORLD4));
        }
        // Of a container's own port it is the same.
        let server = Server::start_at(&two.pod, Protocol::Tcp, two.v4.parse().unwrap(), 8080);
        let _ = must_reach_at(&one.pod, &server, &at(&two.v4));
        site.leave(&one, &both());
        site.leave(&two, &json!([]));
    }
}

/// CVE-2019-9946: a published port came before the rules of Services that were there, such as a NodePort.
fn services_come_first(backend: &'static str) {
    const SERVICE: &str = "iptables -t nat -N KUBE-SERVICES; iptables -t nat -A PREROUTING -j KUBE-SERVICES
         iptables -t nat -A KUBE-SERVICES -d 192.0.2.1 -p tcp --dport 8080 -j DNAT --to 10.1.0.3:80";
    const BY_NFT: &str = "nft 'table ip kube-proxy {
             chain services {
                 type nat hook prerouting priority dstnat
                 ip daddr 192.0.2.1 tcp dport 8080 dnat to 10.1.0.3:80
             }
         }'";
    // Within nf_tables chains of one place are called in the order in which they came; ours is in another.
    let orders: &[(&str, bool, &str)] = match backend {
        "iptables" => &[
            ("iptables", true, SERVICE),
            ("nftables", true, SERVICE),
            ("nftables", false, SERVICE),
        ],
        _ => &[("nftables", true, BY_NFT), ("nftables", false, BY_NFT)],
    };
    for (backend, is_before, service) in orders.iter().copied() {
        let site = Site::bridge(backend);
        let world = site.network.world();
        let (one, two) = (site.network.guest("one"), site.network.guest("two"));
        assert_eq!(two.v4, "10.1.0.3");
        if is_before {
            site.network.node.sh(service);
        }
        site.publish(&one, &both());
        if !is_before {
            site.network.node.sh(service);
        }
        // Nobody listens where the published port leads.
        let [server, _] = servers(&two, &two.v4);
        let _ = must_reach_at(&world, &server, &at(NODE4));
        site.leave(&one, &both());
        site.leave(&two, &json!([]));
    }
}

/// CVE-2020-8558: with `route_localnet` the kernel takes packets to 127.0.0.1 from containers.
#[test]
fn the_hosts_loopback_is_its_own() {
    for keys in [json!({}), json!({"conditionsV4": ["ip saddr !=", WORLD4]})] {
        let site = Site::bridge("nftables");
        let one = site.network.guest("one");
        site.network.node.set_sysctl("net/ipv4/conf/br0/rp_filter", "0");
        site.network.node.set_sysctl("net/ipv4/conf/br0/route_localnet", "1");
        one.pod.sh("ip addr flush dev lo; ip route flush table local type broadcast || true
         ip route add 127.0.0.1/32 via 10.1.0.1 dev eth0 src 10.1.0.2");
        one.pod.set_sysctl("net/ipv4/conf/eth0/route_localnet", "1");
        // That it can fail: until the first port is published, the kernel takes them.
        let server = Server::start(&site.network.node, Protocol::Tcp, "127.0.0.1".parse().unwrap());
        let loopback = to("127.0.0.1", server.port());
        let _ = must_reach_at(&one.pod, &server, &loopback);
        let _ = site.call("ADD", &one, &both(), &keys).ok();
        must_not_reach_at(&one.pod, &server, &loopback);
        let _ = must_reach_at(&site.network.node, &server, &loopback);
        let _ = site.call("DEL", &one, &both(), &keys).ok();
        site.network.leave(&one);
    }
}

/// A container that is there keeps its port, and who asks for it is told whose it is.
fn a_port_is_held_by_who_is_there(backend: &'static str) {
    for site in Site::all(backend) {
        let (one, two) = (site.network.guest("one"), site.network.guest("two"));
        // The leases are elsewhere, as the configuration says: a folder of before tells nothing of them.
        let former = site.network.node.var_lib().join("cni/networks/net1");
        std::fs::create_dir_all(&former).expect("the folder can be made");
        site.publish(&one, &both());
        let before = site.network.node.sh("nft -s list ruleset");
        let error = site.call("ADD", &two, &both(), &json!({})).expect_error(7);
        for part in ["8080/tcp", "\"one\"", "portMappings[0]", one.v4.as_str()] {
            assert!(error.msg.contains(part), "{}", error.msg);
        }
        let after = site.network.node.sh("nft -s list ruleset");
        assert_eq!(before, after);
        // By the other backend as well.
        let other = if backend == "iptables" { "nftables" } else { "iptables" };
        let _ = site.call("ADD", &two, &both(), &json!({"backend": other})).expect_error(7);
        // Another protocol, port or address is another thing.
        let mut free = mapping(Protocol::Tcp, 8081, 80);
        free["hostIP"] = json!(NODE4);
        let free = json!([free]);
        site.publish(&two, &free);
        site.leave(&two, &free);
        // Whose container has gone without a word, its port is free.
        site.network.leave(&one);
        let three = site.network.guest("three");
        let reply = site.call("ADD", &three, &both(), &json!({}));
        let _ = reply.ok();
        assert!(
            reply.stderr.contains("is taken from") && reply.stderr.contains("\"one\""),
            "{reply}"
        );
        let [server, _] = servers(&three, &three.v4);
        let _ = must_reach_at(&three.pod, &server, &at("10.1.0.1"));
        // The late DEL of the first takes nothing from it.
        let _ = site.call("DEL", &one, &both(), &json!({})).ok();
        let _ = site.call("CHECK", &three, &both(), &json!({})).ok();
        site.leave(&three, &both());
    }
}

/// Runtimes tell each network of a container the same ports. They lead to it by one that is there.
fn all_networks_of_a_container_may_publish_its_ports(backend: &'static str) {
    let site = Site::bridge(backend);
    let Network { node, podwire, .. } = &site.network;
    let rules = || node.sh("nft -s list ruleset; iptables-save -t nat").matches("8080").count();
    let (one, other) = (site.network.guest("one"), site.network.guest("other"));
    let bridge = json!({"cniVersion": "1.0.0", "name": "net2", "type": "bridge", "bridge": "br1",
        "isGateway": true, "ipam": {"type": "host-local", "dataDir": node.data(),
            "ranges": [[{"subnet": "10.2.0.0/24"}], [{"subnet": "fd00:2::/64"}]]}});
    let second = |plugin: &str, command: &str, conf: &Value| {
        let call = Call::new(plugin, command).container("one").netns(&one.pod.path());
        call.ifname("eth1").conf(conf).run(node, podwire)
    };
    let result = second("bridge", "ADD", &bridge).ok();
    let portmap = json!({"cniVersion": "1.0.0", "name": "net2", "type": "portmap",
        "backend": backend, "prevResult": result, "runtimeConfig": {"portMappings": both()}});
    let first = |command: &str| site.call(command, &one, &both(), &json!({}));
    let second_ports = |command: &str| second("portmap", command, &portmap);
    // One that comes again changes nothing.
    for _ in 0..2 {
        let _ = first("ADD").ok();
        let _ = second_ports("ADD").ok();
    }
    let behind = [("10.1.0.1", servers(&one, &one.v4)), ("fd00:1::1", servers(&one, &one.v6))];
    let is_whole = || {
        for (address, servers) in &behind {
            for server in servers {
                let _ = must_reach_at(&other.pod, server, &at(address));
            }
        }
    };
    is_whole();
    let _ = first("CHECK").ok();
    let _ = second_ports("CHECK").ok();
    // It is not another container's.
    let _ = site.call("ADD", &other, &both(), &json!({})).expect_error(7);
    let _ = second_ports("DEL").ok();
    let _ = first("CHECK").ok();
    is_whole();
    // Who goes first takes nothing from the other but what was its own.
    let _ = second_ports("ADD").ok();
    let _ = first("DEL").ok();
    let _ = second_ports("ADD").ok();
    let _ = second_ports("CHECK").ok();
    let _ = second_ports("DEL").ok();
    assert_eq!(rules(), 0);
    let _ = second("bridge", "DEL", &bridge).ok();
    site.network.leave(&one);
    site.network.leave(&other);
}

/// Ports of one address and of all are in each other's way, and who is there keeps his; of two addresses they are not.
fn a_port_of_one_address_is_held_against_all(backend: &'static str) {
    let site = Site::bridge(backend);
    let (one, two) = (site.network.guest("one"), site.network.guest("two"));
    let at = |address: &str| {
        let mut it = mapping(Protocol::Tcp, 8080, 80);
        it["hostIP"] = json!(address);
        json!([it])
    };
    for (first, second) in [("192.0.2.77", ""), ("", "192.0.2.77"), (NODE6, "::"), ("::", NODE6)] {
        let (first, second) = (at(first), at(second));
        site.publish(&one, &first);
        // What others have published beside does not hide it.
        let many = json!([at("192.0.2.78")[0], mapping(Protocol::Tcp, 9999, 80)]);
        if first != at("") {
            site.publish(&two, &many);
            site.leave_ports(&two, &many);
        }
        let before = site.network.node.sh("nft -s list ruleset");
        let error = site.call("ADD", &two, &second, &json!({})).expect_error(7);
        for part in ["8080/tcp", "\"one\"", "portMappings[0]"] {
            assert!(error.msg.contains(part), "{}", error.msg);
        }
        assert_eq!(before, site.network.node.sh("nft -s list ruleset"));
        site.leave_ports(&one, &first);
        site.publish(&two, &second);
        site.leave_ports(&two, &second);
    }
    site.network.leave(&one);
    site.network.leave(&two);
}

/// Ports that the reference has published by nf_tables are held like others, and go with their container.
#[test]
fn a_port_of_the_references_is_held_by_who_is_there() {
    let site = Site::bridge("nftables");
    let (one, two) = (site.network.guest("one"), site.network.guest("two"));
    let mut bound = mapping(Protocol::Udp, 8081, 80);
    bound["hostIP"] = json!(NODE4);
    let published = json!([mapping(Protocol::Tcp, 8080, 80), bound]);
    let conf = json!({"cniVersion": "1.0.0", "name": "net1", "type": "portmap", "backend": "nftables",
        "prevResult": one.result, "runtimeConfig": {"portMappings": published}});
    let call = Call::new("portmap", "ADD").container("one").netns(&one.pod.path()).conf(&conf);
    let _ = call.run(&site.network.node, &lab::Suite::reference()).ok();
    let before = site.network.node.sh("nft -s list ruleset");
    for (protocol, port) in [(Protocol::Tcp, 8080), (Protocol::Udp, 8081)] {
        for backend in ["nftables", "iptables"] {
            let wanted = json!([mapping(protocol, port, 80)]);
            let error =
                site.call("ADD", &two, &wanted, &json!({"backend": backend})).expect_error(7);
            assert!(
                error.msg.contains(&format!("{port}/")) && error.msg.contains("\"one\""),
                "{error:?}"
            );
        }
    }
    assert_eq!(before, site.network.node.sh("nft -s list ruleset"));
    let free = json!([mapping(Protocol::Udp, 8080, 80), mapping(Protocol::Tcp, 8081, 80)]);
    site.publish(&two, &free);
    site.leave_ports(&two, &free);
    // Whose container has gone without a word, its ports are free.
    site.network.leave(&one);
    let wanted = json!([mapping(Protocol::Tcp, 8080, 80)]);
    let reply = site.call("ADD", &two, &wanted, &json!({}));
    assert!(reply.succeeded() && reply.stderr.contains("is taken from"), "{reply}");
    let left =
        site.network.node.sh("nft list table ip cni_hostport; nft list table ip6 cni_hostport");
    assert!(!left.contains("dnat") && !left.contains("masquerade "), "{left}");
    site.leave(&two, &wanted);
}
