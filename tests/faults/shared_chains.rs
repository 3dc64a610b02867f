//! Interfaces of a container in one network share a chain of iptables: each keeps what is its own there.

use lab::{Call, Suite};
use serde_json::{Value, json};

use crate::common::{Site, bridge_with_all};

/// A container with two interfaces in one network, of both families.
struct Container {
    site: Site,
    pod: lab::Pod,
    results: [Value; 2],
}

impl Container {
    fn new() -> Self {
        let mut conf = bridge_with_all();
        conf["ipMasq"] = json!(false);
        let site = Site::new(conf);
        let pod = site.node.pod("pod1");
        let results = ["eth0", "eth1"].map(|it| site.run(&site.call("ADD", &pod).ifname(it)).ok());
        Self { site, pod, results }
    }

    /// A call for one of them, with these ports, each perhaps at an address of the host.
    fn call(&self, command: &str, number: usize, backend: &str, ports: &[(u16, &str)]) -> Call {
        let mapping = |(port, address): &(u16, &str)| json!({"hostPort": port, "containerPort": 80, "protocol": "tcp", "hostIP": address});
        let conf = json!({"cniVersion": "1.0.0", "name": "net1", "type": "portmap", "backend": backend,
            "prevResult": self.results[number],
            "runtimeConfig": {"portMappings": ports.iter().map(mapping).collect::<Vec<_>>()}});
        let call = Call::new("portmap", command).container("pod1").netns(&self.pod.path());
        call.ifname(&format!("eth{number}")).conf(&conf)
    }

    #[track_caller]
    fn run(&self, command: &str, number: usize, ports: &[(u16, &str)]) {
        let reply = self.site.run(&self.call(command, number, "iptables", ports));
        assert!(reply.succeeded(), "{command} of eth{number}: {reply}");
    }

    /// So often a port leads to the container, by a chain of either family.
    fn published(&self, port: u16) -> usize {
        let listed = self.site.node.sh("nft -s list table ip nat; nft -s list table ip6 nat");
        let of_port = format!("dport {port} ");
        listed.lines().filter(|it| it.contains(&of_port) && it.contains("dnat to")).count()
    }
}

/// A rule that leads to the chain also names ports that are published of the other family alone.
#[test]
fn a_rule_for_a_port_of_the_other_family_too_stays_with_who_needs_it() {
    let mixed: &[(u16, &str)] = &[(8085, "192.0.2.1"), (8086, "")];
    let of_one_family: &[(u16, &str)] = &[(8087, "0.0.0.0")];
    // A rule names fifteen: one is for the one family alone.
    let of_one = (8100..8115).map(|port| (port, "0.0.0.0"));
    let many: &[(u16, &str)] = &of_one.chain([(8086, "")]).collect::<Vec<_>>();
    let second: &[(u16, &str)] = &[(9000, "")];
    let all = [mixed, of_one_family, many];
    for (is_hidden, first) in [false, true].into_iter().flat_map(|it| all.map(|all| (it, all))) {
        let container = Container::new();
        // What all share is there.
        for command in ["ADD", "DEL"] {
            container.run(command, 1, second);
        }
        container.run("ADD", 0, first);
        if is_hidden {
            container.site.hide_from_iptables();
        }
        for (command, number) in [("ADD", 1), ("ADD", 0), ("ADD", 1), ("DEL", 1)] {
            container.run(command, number, if number == 0 { first } else { second });
            container.run("CHECK", 0, first);
            let listed = container.site.node.sh("nft -s list chain ip6 nat CNI-HOSTPORT-DNAT");
            let leads = |it: &str| it.contains("8086") && it.contains("jump CNI-DN-");
            assert_eq!(listed.lines().any(leads), first != of_one_family, "{command} {is_hidden}");
            if command == "ADD" {
                container.run("CHECK", 1, second);
            }
        }
        container.run("ADD", 1, second);
        container.run("DEL", 0, first);
        container.run("CHECK", 1, second);
        container.run("DEL", 1, second);
        assert!(!container.site.listed_by_nft().iter().any(|it| it.contains("CNI-DN-")));
    }
}

/// What leads to the chain for the other's port, which this one has, too, is no fault of this one's.
#[test]
fn what_another_interface_has_left_is_no_alarm() {
    let container = Container::new();
    let both: &[(u16, &str)] = &[(8000, ""), (8003, "")];
    container.run("ADD", 1, &both[..1]);
    container.run("ADD", 0, both);
    container.run("DEL", 1, &both[..1]);
    container.run("CHECK", 0, both);
    container.run("DEL", 0, both);
    assert!(!container.site.listed_by_nft().iter().any(|it| it.contains("CNI-DN-")));
}

#[test]
fn a_family_that_an_add_leaves_out_is_published_no_more_beside_another_interface() {
    let mut container = Container::new();
    let (first, second): (&[_], &[_]) = (&[(8080, "")], &[(8081, "")]);
    container.run("ADD", 0, first);
    container.run("ADD", 1, second);
    let ips = container.results[0]["ips"].as_array_mut().expect("a list");
    ips.retain(|ip| !ip["address"].as_str().is_some_and(|it| it.contains(':')));
    container.run("ADD", 0, first);
    assert_eq!([8080, 8081].map(|it| container.published(it)), [1, 2]);
    for number in [0, 1] {
        container.run("CHECK", number, if number == 0 { first } else { second });
    }
}

/// The programs are gone from the node: the kernel tells what they have made.
#[test]
fn without_programs_each_interfaces_ports_go_alone() {
    let container = Container::new();
    let (first, second): (&[_], &[_]) = (&[(8080, "")], &[(8081, "")]);
    let add = || {
        container.run("ADD", 0, first);
        container.run("ADD", 1, second);
        assert_eq!([8080, 8081].map(|it| container.published(it)), [2, 2]);
    };
    let run = |call: Call| {
        let reply = container.site.run(&call.env("PATH", "/nonexistent"));
        assert!(reply.succeeded() && reply.stderr.is_empty(), "{reply}");
    };
    add();
    run(container.call("DEL", 1, "iptables", second));
    assert_eq!([8080, 8081].map(|it| container.published(it)), [2, 0]);
    container.run("CHECK", 0, first);
    container.run("ADD", 1, second);
    // By the other backend it leaves nothing of the one before.
    run(container.call("ADD", 0, "nftables", first));
    assert_eq!([8080, 8081].map(|it| container.published(it)), [0, 2]);
    run(container.call("DEL", 0, "nftables", first));
    let conf = json!({"cniVersion": "1.1.0", "name": "net1", "type": "portmap", "backend": "iptables",
        "cni.dev/valid-attachments": []});
    run(Call::new("portmap", "GC").conf(&conf));
    assert!(!container.site.listed_by_nft().iter().any(|it| it.contains("CNI-DN-")));
}

/// An ADD that comes again, by us, replaces what the reference made; and CHECK asks for the interface's own.
#[test]
fn what_the_reference_has_by_nf_tables_is_replaced_and_is_no_other_interfaces() {
    let container = Container::new();
    let (site, reference) = (&container.site, Suite::reference());
    let (old, new): (&[_], &[_]) = (&[(8080, "")], &[(9090, ""), (9091, "")]);
    let of_reference = || {
        let listed = site.node.sh("nft list ruleset");
        listed.lines().filter(|it| it.contains("dnat") && it.contains("comment \"pod1\"")).count()
    };
    let by = |suite: &Suite, command, number, ports| {
        container.call(command, number, "nftables", ports).run(&site.node, suite)
    };
    let _ = by(&reference, "ADD", 0, old).ok();
    assert_eq!(of_reference(), 2);
    let _ = site.run(&container.call("ADD", 0, "nftables", new)).ok();
    assert_eq!(of_reference(), 0);
    assert!(site.run(&container.call("CHECK", 0, "nftables", new)).succeeded());
    // The reference's of one interface, and ours of the other.
    let _ = by(&reference, "ADD", 1, old).ok();
    let check = |number, ports| site.run(&container.call("CHECK", number, "nftables", ports));
    assert!(check(0, new).succeeded() && check(1, old).succeeded());
    site.node.sh("nft delete table inet podwire-portmap");
    let _ = check(0, new).expect_error(102);
    assert!(check(1, old).succeeded());
    // Among those of another interface the reference's rules stay.
    let _ = site.run(&container.call("ADD", 0, "nftables", new)).ok();
    assert_eq!(of_reference(), 2);
    for (number, ports) in [(0, new), (1, old)] {
        let _ = site.run(&container.call("DEL", number, "nftables", ports)).ok();
    }
    assert_eq!(of_reference(), 0);
}
