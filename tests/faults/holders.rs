//! A container that is there keeps its ports, however it is reached and whatever else there is that seems to tell
//! otherwise.

use std::path::PathBuf;

use lab::{Call, Pod, Reply, Suite};
use serde_json::json;

use crate::common::Site;
use crate::rules::path_with;
use crate::{firewall, portmap};

const BACKENDS: [&str; 2] = ["iptables", "nftables"];

/// A node with a bridge, whose containers are attached by hand.
struct Bridged {
    site: Site,
    backend: &'static str,
}

/// A container's interface: its id, name and address.
#[derive(Clone, Copy)]
struct End<'a> {
    pod: &'a Pod,
    container_id: &'a str,
    ifname: &'a str,
    address: &'a str,
}

impl Bridged {
    fn new(backend: &'static str) -> Self {
        let site = Site::new(portmap::conf(backend));
        site.node
            .sh("ip link add br0 type bridge; ip link set br0 up; ip addr add 10.1.0.1/16 dev br0");
        Self { site, backend }
    }

    /// An interface in a container, with an address.
    fn attach(&self, pod: &Pod, ifname: &str, cidr: &str) {
        let path = pod.path();
        self.site.node.sh(&format!(
            "ip link add {0}{ifname} type veth peer name {ifname} netns {1}; ip link set {0}{ifname} up master br0",
            pod.name(),
            path.display()
        ));
        pod.sh(&format!("ip link set {ifname} up; ip addr add {cidr} dev {ifname}"));
    }

    /// A call about port 8080 in a network.
    fn call(&self, command: &str, network: &str, end: End<'_>, path: Option<&str>) -> Reply {
        let address = format!("{}/16", end.address);
        let result = json!({"cniVersion": "1.0.0", "interfaces": [{"name": end.ifname, "sandbox": "/n"}],
            "ips": [{"address": address, "interface": 0}]});
        let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
        let keys = json!({"name": network, "prevResult": result, "backend": self.backend,
            "runtimeConfig": {"portMappings": ports}});
        let call = Call::new("portmap", command).container(end.container_id).ifname(end.ifname);
        let call = call.netns(&end.pod.path()).conf(&self.site.conf_with(&keys));
        self.site.run(&path.map_or(call.clone(), |path| call.env("PATH", path)))
    }

    /// The first publishes a port, and the second does not get it.
    fn keeps(&self, network: &str, first: End<'_>, second: End<'_>) {
        let before = self.site.world(&[]);
        let _ = self.call("ADD", network, first, None).ok();
        let published = self.site.world(&[]);
        let error = self.call("ADD", network, second, None).expect_error(7);
        assert!(error.msg.contains(first.address), "{}", error.msg);
        self.site.world(&[]).must_be(&published, "after a refusal");
        let _ = self.call("CHECK", network, first, None).ok();
        let _ = self.call("DEL", network, second, None).ok();
        let _ = self.call("CHECK", network, first, None).ok();
        let _ = self.call("DEL", network, first, None).ok();
        self.site.world(&[]).must_be(&before, self.backend);
    }

    /// Where host-local keeps a network's leases.
    fn leases(&self, network: &str) -> PathBuf {
        self.site.node.var_lib().join("cni/networks").join(network)
    }

    /// A lease says that an address is of a container's first interface.
    fn lease(&self, network: &str, address: &str, container_id: &str) {
        let folder = self.leases(network);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(address), format!("{container_id}\r\neth0")).unwrap();
    }

    /// Lets rules that all share, and neighbours, be there once.
    fn warm_up(&self, end: End<'_>) {
        let _ = self.call("ADD", "net1", end, None).ok();
        let _ = self.call("DEL", "net1", end, None).ok();
    }
}

fn end<'a>(pod: &'a Pod, address: &'a str) -> End<'a> {
    End { pod, container_id: pod.name(), ifname: "eth0", address }
}

/// The network's leases are elsewhere by now: what is in the folder of before is of others, long gone.
#[test]
fn leases_of_before_take_no_port() {
    for backend in BACKENDS {
        let bridged = Bridged::new(backend);
        let [one, two] = ["one", "two"].map(|it| bridged.site.node.pod(it));
        bridged.attach(&one, "eth0", "10.1.0.2/16");
        bridged.attach(&two, "eth0", "10.1.0.3/16");
        bridged.warm_up(end(&one, "10.1.0.2"));
        for address in ["10.1.0.2", "10.1.0.3"] {
            bridged.lease("net1", address, "of-before");
        }
        bridged.keeps("net1", end(&one, "10.1.0.2"), end(&two, "10.1.0.3"));
        // Where the newcomer's own lease is, it is told who has which address by now.
        bridged.lease("net1", "10.1.0.3", "two");
        let _ = bridged.call("ADD", "net1", end(&one, "10.1.0.2"), None).ok();
        let reply = bridged.call("ADD", "net1", end(&two, "10.1.0.3"), None);
        assert!(reply.succeeded() && reply.stderr.contains("is taken from"), "{reply}");
    }
}

/// Neither do they keep the rules of who goes.
#[test]
fn leases_of_before_keep_no_rules() {
    let site = Site::new(firewall::conf("iptables"));
    let pod = site.node.pod("one");
    site.node
        .sh("ip link add br0 type bridge; ip link set br0 up; ip addr add 10.1.0.1/16 dev br0");
    site.node.sh(&format!(
        "ip link add v0 type veth peer name eth0 netns {}; ip link set v0 up master br0",
        pod.path().display()
    ));
    pod.sh("ip link set eth0 up; ip addr add 10.1.0.2/16 dev eth0");
    let folder = site.node.var_lib().join("cni/networks/net1");
    std::fs::create_dir_all(&folder).unwrap();
    let result = json!({"cniVersion": "1.0.0", "interfaces": [{"name": "br0"}],
        "ips": [{"address": "10.1.0.2/16"}]});
    let keys = json!({"prevResult": result, "ingressPolicy": "open"});
    let call = |command: &str| {
        let call = Call::new("firewall", command).container("one").netns(&pod.path());
        let _ = site.run(&call.conf(&site.conf_with(&keys))).ok();
    };
    let rules = || site.node.sh("iptables-save -t filter").matches("10.1.0.2").count();
    for _ in 0..2 {
        call("ADD");
        assert!(rules() > 0);
        call("DEL");
        assert_eq!(rules(), 0);
        std::fs::write(folder.join("10.1.0.2"), "of-before\r\neth0").unwrap();
    }
    // What is valid is no garbage, whatever is in the folder.
    call("ADD");
    let gc = json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": [{"containerID": "one", "ifname": "eth0"}]});
    let gc = Call::new("firewall", "GC")
        .unset("CNI_CONTAINERID")
        .unset("CNI_IFNAME")
        .conf(&site.conf_with(&gc));
    let before = site.node.sh("iptables-save -t filter | grep -v '^#'");
    let _ = site.run(&gc).ok();
    assert_eq!(site.node.sh("iptables-save -t filter | grep -v '^#'"), before);
    call("CHECK");
    call("DEL");
    assert_eq!(rules(), 0);
}

/// Nobody asks where it is behind a router.
#[test]
fn a_container_behind_a_gateway_keeps_its_port() {
    for backend in BACKENDS {
        let bridged = Bridged::new(backend);
        let [one, two, router] = ["one", "two", "router"].map(|it| bridged.site.node.pod(it));
        bridged.attach(&router, "eth0", "10.1.0.9/16");
        bridged.attach(&two, "eth0", "10.1.0.3/16");
        bridged
            .site
            .node
            .sh("ip route add 10.5.0.0/24 via 10.1.0.9; ip route add default via 10.1.0.9");
        bridged.warm_up(end(&two, "10.1.0.3"));
        bridged.keeps("net1", end(&one, "10.5.0.2"), end(&two, "10.1.0.3"));
        // Whoever is nowhere but where everything is does not, nor one who should be beside the newcomer.
        bridged.site.node.sh("ip route add 10.1.77.0/24 via 10.1.0.9");
        for gone in ["10.6.0.2", "10.1.77.2"] {
            let _ = bridged.call("ADD", "net1", end(&one, gone), None).ok();
            let reply = bridged.call("ADD", "net1", end(&two, "10.1.0.3"), None);
            assert!(reply.succeeded() && reply.stderr.contains("is taken from"), "{reply}");
            let _ = bridged.call("DEL", "net1", end(&two, "10.1.0.3"), None).ok();
        }
    }
}

/// A container that answers no question where it is, as the kernel was told.
#[test]
fn who_is_not_asked_keeps_its_port() {
    for backend in BACKENDS {
        let bridged = Bridged::new(backend);
        let [one, two] = ["one", "two"].map(|it| bridged.site.node.pod(it));
        bridged.attach(&one, "eth0", "10.1.0.2/16");
        bridged.attach(&two, "eth0", "10.1.0.3/16");
        bridged.warm_up(end(&two, "10.1.0.3"));
        one.sh("ip link set eth0 arp off");
        let node = &bridged.site.node;
        let mac = one.sh("cat /sys/class/net/eth0/address");
        for told in ["nud permanent", "extern_learn"] {
            node.sh(&format!("ip neigh replace 10.1.0.2 lladdr {} dev br0 {told}", mac.trim()));
            let before = node.sh("ip neigh show 10.1.0.2");
            bridged.keeps("net1", end(&one, "10.1.0.2"), end(&two, "10.1.0.3"));
            assert_eq!(node.sh("ip neigh show 10.1.0.2"), before);
        }
        // Nobody on the link is asked.
        node.sh(
            "ip link add v9 type veth peer name v8; ip link set v8 up; ip link set v9 up arp off",
        );
        node.sh("ip route add 10.2.0.2 dev v9; sysctl -qw net.ipv4.conf.v9.route_localnet=1");
        bridged.keeps("net1", end(&one, "10.2.0.2"), end(&two, "10.1.0.3"));
    }
}

/// A comment of nf_tables has room for 128 bytes: the names at its end are not taken for whole ones.
#[test]
fn names_for_which_there_is_no_room_mislead_nobody() {
    let bridged = Bridged::new("nftables");
    let [one, two] = ["one", "two"].map(|it| bridged.site.node.pod(it));
    bridged.attach(&one, "eth0", "10.1.0.2/16");
    bridged.attach(&one, "eth1", "10.1.0.22/16");
    bridged.attach(&two, "eth0", "10.1.0.3/16");
    bridged.warm_up(end(&two, "10.1.0.3"));
    let (id, other) = ("a".repeat(64), "b".repeat(64));
    for length in [60, 72, 75, 78, 84, 120] {
        let network = "n".repeat(length);
        bridged.lease(&network, "10.1.0.2", &id);
        bridged.lease(&network, "10.1.0.3", &other);
        let first = End { container_id: &id, ..end(&one, "10.1.0.2") };
        let second = End { container_id: &other, ..end(&two, "10.1.0.3") };
        bridged.keeps(&network, first, second);
        // Its own second network may publish what the first does.
        let beside = End { ifname: "eth1", address: "10.1.0.22", ..first };
        let _ = bridged.call("ADD", &network, first, None).ok();
        for command in ["ADD", "CHECK", "DEL"] {
            let _ = bridged.call(command, "net2", beside, None).ok();
        }
        let _ = bridged.call("CHECK", &network, first, None).ok();
        let _ = bridged.call("DEL", &network, first, None).ok();
        std::fs::remove_dir_all(bridged.leases(&network)).unwrap();
    }
}

/// A node whose programs were exchanged has rules in the tables of old.
#[test]
fn a_port_in_the_tables_of_old_is_held() {
    let [nft, legacy] = ["nft", "legacy"].map(path_with);
    let path = |it: &tempfile::TempDir| it.path().to_str().unwrap().to_owned();
    let (nft, legacy) = (path(&nft), path(&legacy));
    let both = format!("{nft}:/usr/sbin");
    for backend in BACKENDS {
        let mut bridged = Bridged::new(backend);
        let [one, two] = ["one", "two"].map(|it| bridged.site.node.pod(it));
        bridged.attach(&one, "eth0", "10.1.0.2/16");
        bridged.attach(&two, "eth0", "10.1.0.3/16");
        let (first, second) = (end(&one, "10.1.0.2"), end(&two, "10.1.0.3"));
        let mut by_old = |command: &str, path: &str| {
            bridged.backend = "iptables";
            let _ = bridged.call(command, "net1", first, Some(path)).ok();
            bridged.backend = backend;
        };
        by_old("ADD", &legacy);
        let has_rule = |bridged: &Bridged| {
            bridged.site.node.sh("iptables-legacy-save -t nat").contains("to-destination 10.1.0.2:")
        };
        assert!(has_rule(&bridged));
        let error = bridged.call("ADD", "net1", second, Some(&both)).expect_error(7);
        assert!(error.msg.contains("\"one\""), "{}", error.msg);
        assert!(has_rule(&bridged));
        // Whose container has gone, its rules there go.
        one.sh("ip link del eth0");
        let reply = bridged.call("ADD", "net1", second, Some(&both));
        assert!(reply.succeeded() && reply.stderr.contains("is taken from"), "{reply}");
        assert!(!has_rule(&bridged));
        let _ = bridged.call("CHECK", "net1", second, Some(&both)).ok();
        let _ = bridged.call("DEL", "net1", second, Some(&both)).ok();
        assert_eq!(
            bridged
                .site
                .node
                .sh("nft list ruleset; iptables-legacy-save -t nat")
                .matches("10.1.0.")
                .count(),
            0
        );
    }
}

/// An interface of a container.
struct Of<'a> {
    pod: &'a Pod,
    ifname: &'a str,
    addresses: &'a [&'a str],
    ports: &'a [u16],
}

impl Bridged {
    fn run(&self, command: &str, of: &Of<'_>) -> Reply {
        self.run_by(&self.site.podwire, command, of)
    }

    fn run_by(&self, suite: &Suite, command: &str, of: &Of<'_>) -> Reply {
        let Of { pod, ifname, addresses, ports } = of;
        let ips = addresses.iter().map(|it| json!({"address": it, "interface": 0}));
        let result = json!({"cniVersion": "1.0.0", "interfaces": [{"name": ifname, "sandbox": "/n"}],
            "ips": Vec::from_iter(ips)});
        let of_port = |it: &u16| json!({"hostPort": it, "containerPort": 80, "protocol": "udp"});
        let ports: Vec<_> = ports.iter().map(of_port).collect();
        let keys = json!({"prevResult": result, "runtimeConfig": {"portMappings": ports}});
        let call = Call::new("portmap", command).container(pod.name()).netns(&pod.path());
        call.ifname(ifname).conf(&self.site.conf_with(&keys)).run(&self.site.node, suite)
    }

    /// What leads to an address.
    fn led(&self, to: &str) -> Vec<String> {
        let save = "iptables-save -t nat; ip6tables-save -t nat; nft -s list table inet podwire-portmap || true";
        let text = self.site.node.sh(save);
        text.lines().filter(|it| it.contains(to)).map(str::to_owned).collect()
    }
}

/// Of a container that is there only what leads to an address that it is not at any more can be taken.
#[test]
fn who_is_there_at_one_address_keeps_the_ports_there() {
    for backend in BACKENDS {
        let bridged = Bridged::new(backend);
        let node = &bridged.site.node;
        let [one, two] = ["one", "two"].map(|it| node.pod(it));
        node.sh("ip addr add fd00:1::1/64 dev br0 nodad");
        for (pod, ifname, number) in [(&one, "eth0", 2), (&one, "eth1", 3), (&two, "eth0", 4)] {
            bridged.attach(pod, ifname, &format!("10.1.0.{number}/16"));
            pod.sh(&format!("ip addr add fd00:1::{number}/64 dev {ifname} nodad"));
        }
        let run = |command: &str, pod: &Pod, ifname: &str, addresses: &[&str], port: u16| {
            bridged.run(command, &Of { pod, ifname, addresses, ports: &[port] })
        };
        let is_ok = |reply: Reply| {
            assert!(reply.succeeded() && reply.stderr.is_empty(), "{backend}: {reply}");
        };
        let takes = |addresses: &[&str], port| {
            let reply = run("ADD", &two, "eth0", addresses, port);
            assert!(reply.succeeded() && reply.stderr.contains("is taken from"), "{reply}");
            is_ok(run("CHECK", &two, "eth0", addresses, port));
            is_ok(run("DEL", &two, "eth0", addresses, port));
        };
        let led = |to: &str| bridged.led(to);
        let (both, six) = (["10.1.0.2/16", "fd00:1::2/64"], ["fd00:1::4/64"]);
        for command in ["ADD", "DEL"] {
            is_ok(run(command, &one, "eth0", &both, 8080));
        }
        let world = || {
            let mut world = bridged.site.world(&[]);
            world.lines.retain(|it| !it.contains("oneeth1"));
            world
        };
        let before = world();
        // One of its families is off.
        is_ok(run("ADD", &one, "eth0", &both[..1], 8080));
        let alone = led("10.1.0.2");
        is_ok(run("DEL", &one, "eth0", &both[..1], 8080));
        is_ok(run("ADD", &one, "eth0", &both, 8080));
        one.sh("ip addr del fd00:1::2/64 dev eth0");
        takes(&six, 8080);
        assert_eq!((led("10.1.0.2"), led("fd00:1::2")), (alone, Vec::new()), "{backend}");
        let error = run("ADD", &two, "eth0", &["10.1.0.4/16"], 8080).expect_error(7);
        assert!(error.msg.contains("10.1.0.2"), "{}", error.msg);
        is_ok(run("CHECK", &one, "eth0", &both[..1], 8080));
        // One of its interfaces has gone.
        let second = ["10.1.0.3/16", "fd00:1::3/64"];
        is_ok(run("ADD", &one, "eth1", &second, 8081));
        one.sh("ip link del eth1");
        takes(&["10.1.0.4/16", "fd00:1::4/64"], 8081);
        assert_eq!(led("10.1.0.3").len() + led("fd00:1::3").len(), 0, "{backend}");
        is_ok(run("CHECK", &one, "eth0", &both[..1], 8080));
        is_ok(run("DEL", &one, "eth0", &both, 8080));
        world().must_be(&before, backend);
    }
}

/// Who wants ports of one who was at an address, and of another who is there by now and is gone elsewhere, gets those, and
/// none of the other's.
#[test]
fn who_has_an_address_of_one_that_has_gone_keeps_its_ports() {
    for backend in BACKENDS {
        let bridged = Bridged::new(backend);
        let [ghost, there, new] = ["ghost", "there", "new"].map(|it| bridged.site.node.pod(it));
        bridged.attach(&there, "eth0", "10.1.0.3/16");
        bridged.attach(&there, "eth1", "10.1.0.33/16");
        bridged.attach(&new, "eth0", "10.1.0.4/16");
        let first = Of { pod: &there, ifname: "eth0", addresses: &["10.1.0.3/16"], ports: &[9090] };
        let second = Of { ifname: "eth1", addresses: &["10.1.0.33/16"], ports: &[8081], ..first };
        let gone = Of { pod: &ghost, ports: &[8080], ..first };
        let newcomer = Of { pod: &new, addresses: &["10.1.0.4/16"], ports: &[8080, 8081], ..first };
        let _ = bridged.run("ADD", &gone).ok();
        for (address, id) in [("10.1.0.3", "there"), ("10.1.0.4", "new")] {
            bridged.lease("net1", address, id);
        }
        for of in [&first, &second] {
            let _ = bridged.run("ADD", of).ok();
        }
        there.sh("ip link del eth1");
        let reply = bridged.run("ADD", &newcomer);
        assert!(reply.succeeded(), "{reply}");
        assert_eq!(reply.stderr.matches("is taken from").count(), 2, "{reply}");
        for of in [&first, &newcomer] {
            let reply = bridged.run("CHECK", of);
            assert!(reply.succeeded(), "{backend}: {reply}");
        }
        assert_eq!(bridged.led("10.1.0.33"), [""; 0], "{backend}");
        for of in [&first, &newcomer] {
            let _ = bridged.run("DEL", of).ok();
        }
        assert_eq!(bridged.led("10.1.0."), [""; 0], "{backend}");
    }
}

/// Of who has gone all goes, also what leads to an address of a family that the newcomer has none of: others may get it.
#[test]
fn who_takes_a_port_by_one_family_leaves_none_of_the_other() {
    for backend in BACKENDS {
        let bridged = Bridged::new(backend);
        let [gone, new] = ["gone", "new"].map(|it| bridged.site.node.pod(it));
        bridged.site.node.sh("ip addr add fd00:1::1/64 dev br0 nodad");
        bridged.attach(&new, "eth0", "10.1.0.4/16");
        let both = ["10.1.0.3/16", "fd00:1::3/64"];
        let gone = Of { pod: &gone, ifname: "eth0", addresses: &both, ports: &[8080, 8081] };
        let newcomer = Of { pod: &new, addresses: &["10.1.0.4/16"], ports: &[8080], ..gone };
        let _ = bridged.run("ADD", &gone).ok();
        assert!(!bridged.led("fd00:1::3").is_empty(), "{backend}");
        let reply = bridged.run("ADD", &newcomer);
        assert!(reply.succeeded() && reply.stderr.contains("is taken from"), "{reply}");
        let left = ["10.1.0.3", "fd00:1::3"].map(|it| bridged.led(it).len());
        assert_eq!(left, [0, 0], "{backend}");
        for command in ["CHECK", "DEL"] {
            let _ = bridged.run(command, &newcomer).ok();
        }
        let left = ["10.1.0.", "fd00:1::"].map(|it| bridged.led(it).len());
        assert_eq!(left, [0, 0], "{backend}");
    }
}

/// Without iptables' programs the kernel tells what is published by them.
#[test]
fn a_port_by_iptables_is_held_though_its_programs_have_gone() {
    let bridged = Bridged::new("nftables");
    let [one, two] = ["one", "two"].map(|it| bridged.site.node.pod(it));
    bridged.attach(&one, "eth0", "10.1.0.2/16");
    bridged.attach(&two, "eth0", "10.1.0.3/16");
    let (first, second) = (end(&one, "10.1.0.2"), end(&two, "10.1.0.3"));
    let by_iptables = Bridged { site: bridged.site, backend: "iptables" };
    let _ = by_iptables.call("ADD", "net1", first, None).ok();
    let bridged = Bridged { site: by_iptables.site, backend: "nftables" };
    let error = bridged.call("ADD", "net1", second, Some("/nowhere")).expect_error(7);
    assert!(error.msg.contains("10.1.0.2"), "{}", error.msg);
    one.sh("ip link del eth0");
    let reply = bridged.call("ADD", "net1", second, Some("/nowhere"));
    assert!(reply.succeeded() && reply.stderr.contains("is taken from"), "{reply}");
    assert_eq!(bridged.led("10.1.0.2"), [""; 0]);
    for command in ["CHECK", "DEL"] {
        let _ = bridged.call(command, "net1", second, Some("/nowhere")).ok();
    }
    assert_eq!(bridged.led("10.1.0."), [""; 0]);
}

/// The reference's rules of a family go together: as long as the container is at one of its addresses, they stay.
#[test]
fn the_references_rules_of_who_is_there_stay() {
    let bridged = Bridged::new("nftables");
    let [there, new] = ["there", "new"].map(|it| bridged.site.node.pod(it));
    bridged.site.node.sh("ip addr add fd00:1::1/64 dev br0 nodad");
    bridged.attach(&there, "eth0", "10.1.0.2/16");
    bridged.attach(&there, "eth1", "10.1.0.3/16");
    there.sh("ip addr add fd00:1::3/64 dev eth1 nodad");
    bridged.attach(&new, "eth0", "fd00:1::4/64");
    let first = Of { pod: &there, ifname: "eth0", addresses: &["10.1.0.2/16"], ports: &[9090] };
    let both = ["10.1.0.3/16", "fd00:1::3/64"];
    let second = Of { ifname: "eth1", addresses: &both, ports: &[8081], ..first };
    let newcomer = Of { pod: &new, addresses: &["fd00:1::4/64"], ports: &[8081], ..first };
    for of in [&first, &second] {
        let _ = bridged.run_by(&Suite::reference(), "ADD", of).ok();
    }
    let published = |port: &str| {
        bridged.site.node.sh("nft -s list table ip cni_hostport").matches(port).count()
    };
    let before = published("9090");
    assert!(before > 0);
    there.sh("ip link del eth1");
    let reply = bridged.run("ADD", &newcomer);
    assert!(reply.succeeded() && reply.stderr.contains("is taken from"), "{reply}");
    assert_eq!(published("9090"), before);
    for of in [&newcomer, &first] {
        let _ = bridged.run("DEL", of).ok();
    }
    assert_eq!(published("9090"), 0);
}

/// Who takes the ports of many that have gone asks for all of them at once, and what each of them had goes.
#[test]
fn ports_of_many_who_have_gone_are_taken() {
    for backend in BACKENDS {
        let bridged = Bridged::new(backend);
        let pod = bridged.site.node.pod("new");
        bridged.attach(&pod, "eth0", "10.1.9.9/16");
        bridged.warm_up(end(&pod, "10.1.9.9"));
        let before = bridged.site.world(&[]);
        let run = |command: &str, id: &str, address: &str, ports: std::ops::Range<u16>| {
            let result = json!({"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": "/n"}],
                "ips": [{"address": address, "interface": 0}]});
            let of_port = |port| json!({"hostPort": port, "containerPort": 80, "protocol": "tcp"});
            // Who comes new wants one of the two that each has.
            let both = |it| [Some(of_port(it)), (id != "new").then(|| of_port(it + 10_000))];
            let ports: Vec<_> = ports.flat_map(both).flatten().collect();
            let keys = json!({"prevResult": result, "runtimeConfig": {"portMappings": ports}});
            let conf = bridged.site.conf_with(&keys);
            bridged
                .site
                .run(&Call::new("portmap", command).container(id).netns(&pod.path()).conf(&conf))
        };
        for number in 1..=40 {
            let (id, address) = (format!("dead-{number}"), format!("10.1.1.{number}/16"));
            let _ = run("ADD", &id, &address, 8000 + number..8001 + number).ok();
        }
        let all = 8001..8041;
        let reply = run("ADD", "new", "10.1.9.9/16", all.clone());
        let _ = reply.ok();
        assert!(reply.stderr.matches("is taken from").count() >= 40, "{reply}");
        let _ = run("CHECK", "new", "10.1.9.9/16", all.clone()).ok();
        let _ = run("DEL", "new", "10.1.9.9/16", all).ok();
        bridged.site.world(&[]).must_be(&before, backend);
    }
}
