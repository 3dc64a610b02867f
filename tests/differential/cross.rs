//! A node may change its plugins while pods run: what one suite added, the other checks and deletes.

use std::fs;

use lab::{Call, Node, Suite, World};
use serde_json::{Value, json};

/// One way from suite to suite.
struct Switch {
    plugin: &'static str,
    conf: Value,
    /// The configuration of bridge where that stands before this one, by the suite that adds.
    base: Option<Value>,
}

fn switches() -> Vec<Switch> {
    let v4 = json!([[{"subnet": "10.1.0.0/24"}]]);
    let v6 = json!([[{"subnet": "fd00:1::/64"}]]);
    let dual = json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]);
    let bridge = |ranges: &Value, backend: Option<&str>| Switch {
        plugin: "bridge",
        base: None,
        conf: json!({"bridge": "br0", "isDefaultGateway": true, "ipMasq": backend.is_some(), "ipMasqBackend": backend,
            "ipam": {"type": "host-local", "ranges": ranges}}),
    };
    let ptp = |backend: Option<&str>| Switch {
        plugin: "ptp",
        base: None,
        conf: json!({"ipMasq": backend.is_some(), "ipMasqBackend": backend, "ipam": {"type": "host-local", "ranges": dual,
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}}),
    };
    vec![
        bridge(&v4, None),
        bridge(&v6, None),
        bridge(&dual, None),
        bridge(&v4, Some("iptables")),
        bridge(&dual, Some("iptables")),
        bridge(&dual, Some("nftables")),
        Switch {
            plugin: "bridge",
            base: None,
            conf: json!({"bridge": "br0", "macspoofchk": true, "ipam": {"type": "host-local", "ranges": v4}}),
        },
        ptp(None),
        ptp(Some("iptables")),
        ptp(Some("nftables")),
        Switch { plugin: "loopback", base: None, conf: json!({}) },
        Switch {
            plugin: "tuning",
            base: Some(json!({"bridge": "br0", "ipam": {"type": "host-local", "ranges": dual}})),
            conf: json!({"mac": "02:11:22:00:00:07", "promisc": true, "mtu": 1400, "allmulti": true, "txQLen": 5}),
        },
        Switch {
            plugin: "sbr",
            base: Some(
                json!({"type": "bridge", "isDefaultGateway": true, "ipam": {"type": "host-local", "ranges": v4}}),
            ),
            conf: json!({}),
        },
        Switch {
            plugin: "sbr",
            base: Some(json!({"bridge": "br0", "ipam": {"type": "host-local", "ranges": dual}})),
            conf: json!({"table": 500}),
        },
        Switch {
            plugin: "bandwidth",
            base: Some(json!({"bridge": "br0", "ipam": {"type": "host-local", "ranges": dual}})),
            conf: json!({"ingressRate": 8_000_000, "ingressBurst": 80_000,
                "egressRate": 16_000_000, "egressBurst": 160_000}),
        },
        limited(u32::MAX.into()),
        limited(u64::from(u32::MAX) * 8 - 1),
        portmap("iptables"),
        firewall("open"),
        firewall("isolated"),
        Switch {
            plugin: "host-local",
            base: None,
            conf: json!({"ipam": {"type": "host-local", "ranges": dual}}),
        },
    ]
}

/// A pod's rate with the burst of a runtime, as it is told by that.
fn limited(burst: u64) -> Switch {
    let limits = json!({"ingressRate": 10_000_000, "ingressBurst": burst,
        "egressRate": 10_000_000, "egressBurst": burst});
    Switch {
        plugin: "bandwidth",
        base: Some(
            json!({"bridge": "br0", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]]}}),
        ),
        conf: json!({"runtimeConfig": {"bandwidth": limits}}),
    }
}

/// Ports of a container whose interface somebody else has made.
fn portmap(backend: &str) -> Switch {
    let mapping = |protocol: &str, host_port: u16, host_ip: &str| {
        json!({"hostPort": host_port,
        "containerPort": 80, "protocol": protocol, "hostIP": host_ip})
    };
    let many = (9000..9020).map(|port| mapping("udp", port, ""));
    let some = [mapping("tcp", 8080, ""), mapping("tcp", 8081, "192.0.2.1")];
    let mappings: Vec<Value> = some.into_iter().chain(many).collect();
    Switch {
        plugin: "portmap",
        base: None,
        conf: json!({"backend": backend, "runtimeConfig": {"portMappings": mappings},
            "prevResult": {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": "/n"}],
                "ips": [{"address": "10.1.0.2/24", "interface": 0}, {"address": "fd00:1::2/64", "interface": 0}]}}),
    }
}

/// A container of both families, whose packets iptables lets pass.
fn firewall(policy: &str) -> Switch {
    let ranges = json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]);
    Switch {
        plugin: "firewall",
        base: Some(json!({"bridge": "br0", "ipam": {"type": "host-local", "ranges": ranges}})),
        conf: json!({"backend": "iptables", "ingressPolicy": policy}),
    }
}

#[test]
fn podwire_deletes_what_the_reference_added() {
    for switch in switches() {
        add_check_delete(&switch, &Suite::reference(), &Suite::podwire());
    }
    // The other way round the reference knows nothing of maps.
    add_check_delete(&portmap("nftables"), &Suite::reference(), &Suite::podwire());
}

#[test]
fn the_reference_deletes_what_podwire_added() {
    for switch in switches() {
        add_check_delete(&switch, &Suite::podwire(), &Suite::reference());
    }
}

/// What the reference's DEL leaves of an ADD of podwire's is a record of an address that others may have next.
#[test]
fn a_record_that_the_reference_left_takes_no_rules_of_others() {
    for other in [Suite::podwire(), Suite::reference()] {
        for late in ["GC", "DEL"] {
            let site = Firewalled::new();
            let passes = || site.passing().iter().filter(|it| it.contains(ADDRESS)).count();
            site.call("ADD", "first", ADDRESS, &Suite::podwire());
            site.call("DEL", "first", ADDRESS, &Suite::reference());
            assert_eq!(passes(), 0, "{late}");
            site.lease("second", &other);
            site.call("ADD", "second", ADDRESS, &other);
            site.late(late);
            assert_eq!(passes(), 2, "{late} of one whose address {}'s other has", other.name);
            site.call("CHECK", "second", ADDRESS, &Suite::podwire());
            site.call("DEL", "second", ADDRESS, &Suite::podwire());
            site.must_be_clean();
        }
    }
}

/// A container that the reference had in between, at another address: what the record says goes, and what the result
/// says.
#[test]
fn beside_a_record_that_the_reference_left_the_result_is_heard() {
    let site = Firewalled::new();
    site.call("ADD", "first", ADDRESS, &Suite::podwire());
    site.call("DEL", "first", ADDRESS, &Suite::reference());
    site.call("ADD", "first", "10.1.0.8", &Suite::reference());
    assert_eq!(site.passing().len(), 2);
    site.call("DEL", "first", "10.1.0.8", &Suite::podwire());
    site.must_be_clean();
}

/// An ADD of podwire's on top of the reference's: both have added the same rules, and the address is the container's by
/// its lease.
#[test]
fn what_both_have_added_for_a_container_podwire_deletes() {
    let site = Firewalled::new();
    site.lease("first", &Suite::reference());
    for suite in [Suite::reference(), Suite::podwire()] {
        site.call("ADD", "first", ADDRESS, &suite);
    }
    assert_eq!(site.passing().len(), 4);
    site.call("DEL", "first", ADDRESS, &Suite::podwire());
    site.must_be_clean();
}

const ADDRESS: &str = "10.1.0.7";

/// A node whose containers' packets pass by iptables.
struct Firewalled {
    node: Node,
}

impl Firewalled {
    fn new() -> Self {
        Self { node: Node::quick() }
    }

    fn call(&self, command: &str, container: &str, address: &str, suite: &Suite) {
        let conf = json!({"cniVersion": "1.0.0", "name": "net1", "type": "firewall", "backend": "iptables",
            "prevResult": {"cniVersion": "1.0.0", "interfaces": [{"name": "br0"}],
                "ips": [{"address": format!("{address}/24")}]}});
        let call = Call::new("firewall", command).container(container);
        let call = call.env("CNI_NETNS", "/run/netns/vanished");
        let reply = call.conf(&conf).run(&self.node, suite);
        assert!(reply.succeeded(), "{command} of {container} by {}: {reply}", suite.name);
    }

    /// host-local gave the address to a container. Of one that podwire serves records tell enough.
    fn lease(&self, container: &str, suite: &Suite) {
        if suite.name != "podwire" {
            let leases = self.node.var_lib().join("cni/networks/net1");
            fs::create_dir_all(&leases).expect("cannot make a directory");
            let text = format!("{container}\r\neth0");
            fs::write(leases.join(ADDRESS), text).expect("cannot write a lease");
        }
    }

    /// What comes late for the first one.
    fn late(&self, command: &str) {
        if command == "DEL" {
            return self.call("DEL", "first", ADDRESS, &Suite::podwire());
        }
        let conf = json!({"cniVersion": "1.1.0", "name": "net1", "type": "firewall", "backend": "iptables",
            "cni.dev/valid-attachments": [{"containerID": "second", "ifname": "eth0"}]});
        let gc = Call::new("firewall", "GC").unset("CNI_CONTAINERID").unset("CNI_IFNAME");
        let reply = gc.conf(&conf).run(&self.node, &Suite::podwire());
        assert!(reply.succeeded(), "{reply}");
    }

    fn saved(&self) -> String {
        self.node.sh("iptables-save -t filter")
    }

    /// The rules by which addresses' packets pass.
    fn passing(&self) -> Vec<String> {
        let saved = self.saved();
        let rules =
            saved.lines().filter(|it| it.starts_with("-A CNI-FORWARD") && it.ends_with("ACCEPT"));
        rules.map(str::to_owned).collect()
    }

    fn must_be_clean(&self) {
        let saved = self.saved();
        assert!(!saved.contains("10.1.0.") && !saved.contains("CNI-FW-"), "{saved}");
    }
}

fn add_check_delete(switch: &Switch, first: &Suite, second: &Suite) {
    let node = Node::quick();
    let pod = node.pod("pod1");
    let conf_of = |plugin: &str, conf: &Value| {
        let mut conf = conf.clone();
        conf["cniVersion"] = json!("1.0.0");
        conf["name"] = json!("net1");
        conf["type"] = json!(plugin);
        if conf["ipam"]["type"] == "host-local" {
            conf["ipam"]["dataDir"] = json!(node.data());
        }
        conf
    };
    let call = |command, container: &str, conf: &Value, suite: &Suite| {
        let plugin = conf["type"].as_str().expect("a plugin has a type");
        let call = Call::new(plugin, command).container(container).netns(&pod.path());
        call.conf(conf).run(&node, suite).ok()
    };
    let mut conf = conf_of(switch.plugin, &switch.conf);
    let base = switch.base.as_ref().map(|base| conf_of("bridge", base));
    // A bridge and its address outlive the pods, lo keeps its address, and rules that all share stay: they are there
    // before.
    let mut warm_up = conf.clone();
    if let Some(base) = &base {
        warm_up["prevResult"] = call("ADD", "warm-up", base, first);
    }
    for command in ["ADD", "DEL"] {
        call(command, "warm-up", &warm_up, first);
    }
    if let Some(base) = &base {
        call("DEL", "warm-up", base, first);
    }
    let before = world(&node, &pod);
    let what = format!("{} by {}, then {}", switch.plugin, first.name, second.name);
    if let Some(base) = &base {
        conf["prevResult"] = call("ADD", "cid1", base, first);
    }
    let based = world(&node, &pod);
    conf["prevResult"] = call("ADD", "cid1", &conf, first);
    let added = world(&node, &pod);
    assert_ne!(based.lines, added.lines, "{what}: ADD did nothing");
    call("CHECK", "cid1", &conf, second);
    world(&node, &pod).must_be(&added, &format!("{what}: after CHECK"));
    call("DEL", "cid1", &conf, second);
    // What sbr moves goes with the interface, as the limit of its other end does.
    if !["sbr", "bandwidth"].contains(&switch.plugin) {
        let mut left = world(&node, &pod);
        // The reference knows nothing of firewall's records, to which nothing leads. That a port is isolated goes with
        // it.
        let is_isolated = |line: &String| line.contains(" linkinfo.info_slave_data.isolated=");
        left.lines.retain(|line| {
            (second.name == "podwire" || !line.contains(" filter CNI-FW-")) && !is_isolated(line)
        });
        let mut wanted = based.clone();
        wanted.lines.retain(|line| !is_isolated(line));
        left.must_be(&wanted, &format!("{what}: after DEL"));
    }
    call("DEL", "cid1", &conf, first);
    if let Some(base) = &base {
        call("DEL", "cid1", base, first);
    }
    world(&node, &pod).must_be(&before, &format!("{what}: after the other's DEL"));
}

/// Without a portless bridge's own state, and without locks, index, empty folders and where host-local was
/// last.
fn world(node: &Node, pod: &lab::Pod) -> World {
    let mut world = World::of(node, &[pod]).without_bridge("br0");
    let own = [
        "last_reserved_ip",
        ".podwire",
        "/run/podwire/",
        "file /run/cni/ ",
        "file /run/cni/tuning/ ",
    ];
    world.lines.retain(|line| !own.iter().any(|name| line.contains(name)));
    world
}
