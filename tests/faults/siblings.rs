//! What happens to one attachment leaves the container's others alone.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use lab::{Call, Suite};
use serde_json::{Value, json};

use crate::common::{Site, bridge_with_all, ptp_with_all};
use crate::rules::path_with;

fn masquerading(site: &Site) -> String {
    site.node
        .sh("iptables-save -t nat; ip6tables-save -t nat")
        .lines()
        .filter(|l| l.contains("CNI-"))
        .collect()
}

#[test]
fn a_failed_second_interface_does_not_take_the_firsts_masquerading() {
    for conf in [bridge_with_all(), ptp_with_all()] {
        let site = Site::new(conf);
        let pod = site.node.pod("pod1");
        let _ = site.add(&pod).ok();
        let before = masquerading(&site);
        assert!(before.contains("MASQUERADE"));
        let ipam = json!({"type": "host-local", "dataDir": site.node.data(), "ranges": [[{"subnet": "10.1.0.5/16"}]]});
        let broken = site.conf_with(&json!({"ipam": ipam}));
        site.run(&site.call("ADD", &pod).ifname("eth1").conf(&broken)).expect_error(7);
        assert!(site.run(&site.call("DEL", &pod).ifname("eth1")).succeeded());
        assert_eq!(masquerading(&site), before);
        let _ = site.del(&pod).ok();
        assert_eq!(masquerading(&site), "");
    }
}

/// Who has published nothing shares its chain of iptables, and the comment of the reference's rules of nf_tables, with an
/// interface of the container that has.
#[test]
fn an_interface_without_ports_leaves_those_of_the_first() {
    let site = Site::new(bridge_with_all());
    let peers = Suite::reference();
    let pod = site.node.pod("pod1");
    let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
    let results = ["eth0", "eth1"].map(|ifname| {
        let reply = site.run(&site.call("ADD", &pod).ifname(ifname));
        reply.ok()
    });
    let published = || {
        let rules =
            site.node.sh("iptables-save -t nat; ip6tables-save -t nat; nft -s list ruleset");
        let of_port = |it: &&str| it.contains("CNI-DN-") || it.contains(" 8080");
        rules.lines().filter(of_port).map(str::to_owned).collect::<Vec<_>>()
    };
    let portmap = |command, suite: &Suite, backend, number: usize, ports: &Value| {
        let conf = json!({"cniVersion": "1.0.0", "name": "net1", "type": "portmap", "backend": backend,
            "prevResult": results[number], "runtimeConfig": {"portMappings": ports}});
        let call = Call::new("portmap", command).container("pod1").netns(&pod.path()).conf(&conf);
        let _ = call.ifname(&format!("eth{number}")).run(&site.node, suite).ok();
    };
    for (suite, backend) in [
        (&site.podwire, "iptables"),
        (&site.podwire, "nftables"),
        (&peers, "iptables"),
        (&peers, "nftables"),
    ] {
        let before = published();
        portmap("ADD", suite, backend, 0, &ports);
        let with_ports = published();
        assert_ne!(with_ports, before, "{backend}");
        for no_ports in [json!([]), json!(null)] {
            portmap("ADD", &site.podwire, backend, 1, &no_ports);
            portmap("DEL", &site.podwire, backend, 1, &no_ports);
            assert_eq!(published(), with_ports, "{backend}");
        }
        // Of the first itself all goes, whatever is told of its ports.
        portmap("DEL", &site.podwire, backend, 0, &json!(null));
        assert_eq!(published(), before, "{backend}");
    }
}

/// Ports of two interfaces that share a chain of iptables: each ADD and DEL is about its own.
#[test]
fn interfaces_in_one_network_publish_ports_of_their_own() {
    let [nft, legacy] = ["nft", "legacy"].map(path_with);
    let programs = [("iptables", Some(&nft)), ("iptables", Some(&legacy)), ("nftables", None)];
    for (backend, path) in programs {
        let site = Site::new(bridge_with_all());
        let pod = site.node.pod("pod1");
        let results = ["eth0", "eth1"].map(|ifname| {
            let reply = site.run(&site.call("ADD", &pod).ifname(ifname));
            reply.ok()
        });
        let save = "for it in iptables-legacy ip6tables-legacy iptables-nft ip6tables-nft; do $it-save -t nat; done
            for it in 4 6; do nft -s list map inet podwire-portmap ports$it 2>/dev/null || true; done";
        let published = |port: u16| {
            let text = site.node.sh(save);
            let of_rule = format!("--dport {port} -j DNAT");
            text.matches(&of_rule).count() + text.matches(&format!("tcp . {port} ")).count()
        };
        let mapping = |port: u16| json!({"hostPort": port, "containerPort": 80, "protocol": "tcp"});
        let portmap = |command, number: usize, ports: &[u16], is_dual: bool| {
            let mut result = results[number].clone();
            if !is_dual {
                let ips = result["ips"].as_array_mut().expect("a list");
                ips.retain(|ip| !ip["address"].as_str().is_some_and(|it| it.contains(':')));
            }
            let mappings: Vec<Value> = ports.iter().map(|port| mapping(*port)).collect();
            let conf = json!({"cniVersion": "1.0.0", "name": "net1", "type": "portmap", "backend": backend,
                "prevResult": result, "runtimeConfig": {"portMappings": mappings}});
            let call =
                Call::new("portmap", command).container("pod1").netns(&pod.path()).conf(&conf);
            let call = call.ifname(&format!("eth{number}"));
            let call = path.map_or(call.clone(), |it| call.env("PATH", it.path()));
            site.run(&call)
        };
        let run = |command, number, ports: &[u16]| {
            let _ = portmap(command, number, ports, true).ok();
        };
        // What all share is there from here on.
        for command in ["ADD", "DEL"] {
            run(command, 0, &[8080]);
        }
        let before = site.world(&[&pod]);
        // As many as need a second rule.
        let many: Vec<u16> = (8100..8120).collect();
        run("ADD", 0, &[8080]);
        run("ADD", 1, &many);
        let check = |second: &[u16]| {
            run("CHECK", 0, &[8080]);
            run("CHECK", 1, second);
            assert_eq!((published(8080), published(second[0])), (2, 2), "{backend}");
        };
        check(&many);
        // One that comes again replaces its own.
        run("ADD", 1, &[8082, 8083]);
        check(&[8082, 8083]);
        assert_eq!(published(8100), 0);
        run("ADD", 0, &[8080]);
        check(&[8082, 8083]);
        let _ = portmap("CHECK", 0, &[8082], true).expect_error(102);
        // One of a single family leaves the other's second one.
        let _ = portmap("ADD", 1, &[8084], false).ok();
        run("CHECK", 0, &[8080]);
        assert_eq!((published(8080), published(8084)), (2, 1), "{backend}");
        run("DEL", 1, &[8084]);
        run("CHECK", 0, &[8080]);
        assert_eq!((published(8080), published(8084)), (2, 0), "{backend}");
        // And the first goes before the second.
        run("ADD", 1, &[8081]);
        run("DEL", 0, &[8080]);
        run("CHECK", 1, &[8081]);
        run("DEL", 1, &[8081]);
        site.world(&[&pod]).must_be(&before, backend);
    }
}

/// No result tells a DEL of version 0.3.1 which addresses are the interface's, and the container has them elsewhere too, or
/// has moved them: those are no other interface's, whose ports stay.
#[test]
fn a_del_without_a_result_takes_the_ports_of_addresses_that_are_elsewhere() {
    let moves = [
        "ip addr add 10.1.0.2/32 dev lo; ip addr add fd00:1::2/128 dev lo",
        "ip link add dm0 type bridge; ip link set dm0 up; ip addr flush dev eth0 scope global
         ip addr add 10.1.0.2/16 dev dm0; ip addr add fd00:1::2/64 dev dm0",
        // As who runs machines in containers has it, with all of its interfaces.
        "for it in 0 1; do
           ip link add dm$it type bridge; ip link set dm$it up; ip link set eth$it master dm$it
           ip addr flush dev eth$it scope global
           ip addr add 10.1.0.$((it + 2))/16 dev dm$it; ip addr add fd00:1::$((it + 2))/64 dev dm$it nodad
         done",
    ];
    for (backend, moved) in
        ["iptables", "nftables"].into_iter().flat_map(|it| moves.map(|moved| (it, moved)))
    {
        let site = Site::new(bridge_with_all());
        let pod = site.node.pod("pod1");
        let ports = |port: u16| json!([{"hostPort": port, "containerPort": 80, "protocol": "tcp"}]);
        let run = |command, number: u16, mappings: &Value, has_result: bool| {
            let addresses =
                [format!("10.1.0.{}/16", number + 2), format!("fd00:1::{}/64", number + 2)];
            let ips = addresses.iter().zip(["4", "6"]);
            let ips: Vec<Value> = ips
                .map(|(it, version)| json!({"address": it, "version": version, "interface": 0}))
                .collect();
            let ifname = format!("eth{number}");
            let result = json!({"cniVersion": "0.3.1", "interfaces": [{"name": ifname, "sandbox": "/n"}], "ips": ips});
            let conf = json!({"cniVersion": "0.3.1", "name": "net1", "type": "portmap", "backend": backend,
                "prevResult": if has_result { result } else { Value::Null },
                "runtimeConfig": {"portMappings": mappings}});
            let call = Call::new("portmap", command).container("pod1").netns(&pod.path());
            let reply = site.run(&call.ifname(&ifname).conf(&conf));
            assert!(reply.succeeded() && reply.stderr.is_empty(), "{backend} {moved}: {reply}");
        };
        pod.sh("for it in 0 1; do
              ip link add eth$it type veth peer name peer$it; ip link set eth$it up; ip link set peer$it up
              ip addr add 10.1.0.$((it + 2))/16 dev eth$it
              ip addr add fd00:1::$((it + 2))/64 dev eth$it nodad
            done");
        for command in ["ADD", "DEL"] {
            run(command, 1, &ports(8081), true);
        }
        let nothing = site.world(&[]);
        run("ADD", 1, &ports(8081), true);
        let before = site.world(&[]);
        for told in [ports(8080), json!([])] {
            run("ADD", 0, &ports(8080), true);
            assert!(site.world(&[]).lines.iter().any(|it| it.contains("8080")), "{backend}");
            if told == ports(8080) {
                pod.sh(moved);
            }
            run("DEL", 0, &told, false);
            site.world(&[]).must_be(&before, &format!("{backend}: {moved}"));
        }
        run("DEL", 1, &ports(8081), false);
        site.world(&[]).must_be(&nothing, backend);
    }
}

/// Where iptables does not list the rules, the kernel tells which are whose.
#[test]
fn a_del_beside_another_interface_among_rules_that_iptables_cannot_read() {
    let mut conf = bridge_with_all();
    conf["ipMasq"] = json!(false);
    let site = Site::new(conf);
    let pod = site.node.pod("pod1");
    let results = ["eth0", "eth1"].map(|it| site.run(&site.call("ADD", &pod).ifname(it)).ok());
    let at = |command, number: usize, port: usize| {
        let ports = json!([{"hostPort": port, "containerPort": 80, "protocol": "tcp"}]);
        let conf = json!({"cniVersion": "1.0.0", "name": "net1", "type": "portmap", "backend": "iptables",
            "prevResult": results[number], "runtimeConfig": {"portMappings": ports}});
        let call = Call::new("portmap", command).container("pod1").netns(&pod.path()).conf(&conf);
        site.run(&call.ifname(&format!("eth{number}")))
    };
    let portmap = |command, number: usize| at(command, number, 8080 + number);
    let of_container = || {
        let mut listed = site.listed_by_nft();
        listed.retain(|it| it.contains("CNI-DN-"));
        listed
    };
    // What all share is there, and whatever wrote the rules.
    for command in ["ADD", "DEL"] {
        let _ = portmap(command, 0).ok();
    }
    for is_hidden_before in [false, true] {
        if is_hidden_before {
            site.hide_from_iptables();
        }
        let _ = portmap("ADD", 1).ok();
        let alone = of_container();
        let _ = portmap("ADD", 0).ok();
        if !is_hidden_before {
            site.hide_from_iptables();
        }
        let both = of_container();
        // One that comes again replaces its own.
        for port in [8082, 8082, 8081] {
            let _ = at("ADD", 1, port).ok();
            assert_eq!(of_container().len(), both.len(), "{port}");
        }
        assert!(!of_container().iter().any(|it| it.contains("8082")));
        let _ = portmap("ADD", 0).ok();
        for number in [0, 1] {
            let reply = portmap("CHECK", number);
            assert!(reply.succeeded(), "{number}: {reply}");
        }
        let _ = portmap("DEL", 0).ok();
        assert_eq!(of_container(), alone, "of {both:#?}");
        let _ = portmap("DEL", 0).ok();
        assert_eq!(of_container(), alone);
        let _ = portmap("DEL", 1).ok();
        assert_eq!(of_container(), [""; 0]);
        // The same port of both: what marks for one is as for the other, and stays with it.
        let _ = at("ADD", 1, 8080).ok();
        let alone = site.listed_by_nft();
        let _ = at("DEL", 1, 8080).ok();
        for (number, port) in [(0, 8080), (1, 8080)] {
            let _ = at("ADD", number, port).ok();
        }
        let _ = at("DEL", 0, 8080).ok();
        assert_eq!(site.listed_by_nft(), alone);
        let _ = at("DEL", 1, 8080).ok();
        assert_eq!(of_container(), [""; 0]);
        site.node.sh("nft flush chain ip nat POSTROUTING; nft flush chain ip6 nat POSTROUTING");
    }
}

/// Of a family of which nothing is published nothing is missing.
#[test]
fn ports_of_one_family_are_no_alarm_beside_another_interface() {
    let site = Site::new(bridge_with_all());
    let pod = site.node.pod("pod1");
    let results = ["eth0", "eth1"].map(|it| site.run(&site.call("ADD", &pod).ifname(it)).ok());
    let portmap = |command, number: usize| {
        let ports = json!([{"hostPort": 8080 + number, "containerPort": 80, "protocol": "tcp", "hostIP": "0.0.0.0"}]);
        let conf = json!({"cniVersion": "1.0.0", "name": "net1", "type": "portmap", "backend": "iptables",
            "prevResult": results[number], "runtimeConfig": {"portMappings": ports}});
        let call = Call::new("portmap", command).container("pod1").netns(&pod.path()).conf(&conf);
        let reply = site.run(&call.ifname(&format!("eth{number}")));
        assert!(reply.succeeded(), "{command} {number}: {reply}");
    };
    for (command, number) in
        [("ADD", 0), ("ADD", 1), ("CHECK", 0), ("CHECK", 1), ("DEL", 1), ("CHECK", 0), ("DEL", 0)]
    {
        portmap(command, number);
    }
    let rules = site.node.sh("iptables-save -t nat; ip6tables-save -t nat");
    assert!(!rules.contains("CNI-DN-"), "{rules}");
}

/// Of two interfaces that share a chain each has its own ports there.
#[test]
fn whose_a_port_is_among_rules_that_iptables_cannot_read() {
    let mut conf = bridge_with_all();
    conf["ipMasq"] = json!(false);
    let site = Site::new(conf);
    let (pod, other) = (site.node.pod("pod1"), site.node.pod("pod2"));
    let add = |pod: &lab::Pod, ifname: &str| site.run(&site.call("ADD", pod).ifname(ifname)).ok();
    let results = [add(&pod, "eth0"), add(&pod, "eth1"), add(&other, "eth0")];
    let portmap = |command, number: usize, port: u16| {
        let ports = json!([{"hostPort": port, "containerPort": 80, "protocol": "tcp"}]);
        let (pod, ifname) = [(&pod, "eth0"), (&pod, "eth1"), (&other, "eth0")][number];
        let conf = json!({"cniVersion": "1.0.0", "name": "net1", "type": "portmap", "backend": "iptables",
            "prevResult": results[number], "runtimeConfig": {"portMappings": ports}});
        let call = Call::new("portmap", command).container(pod.name()).netns(&pod.path());
        site.run(&call.ifname(ifname).conf(&conf))
    };
    let first = results[0]["ips"][0]["address"].as_str().expect("an address").to_owned();
    for (number, port) in [(0, 8080), (1, 8081)] {
        let _ = portmap("ADD", number, port).ok();
    }
    site.hide_from_iptables();
    pod.sh("ip link del eth1");
    let error = portmap("ADD", 2, 8080).expect_error(7);
    assert!(
        error.msg.contains(&format!("at {} already", first.replace("/16", ""))),
        "{}",
        error.msg
    );
    let reply = portmap("ADD", 2, 8081);
    assert!(reply.succeeded() && reply.stderr.contains("is taken from"), "{reply}");
    for (number, port) in [(0, 8080), (2, 8081)] {
        let _ = portmap("DEL", number, port).ok();
    }
    assert!(!site.listed_by_nft().iter().any(|it| it.contains("CNI-DN-")));
}

/// A `PATH` on which the rules of one family can be made, and those of the other fail.
fn without_ip6tables(site: &Site) -> PathBuf {
    let dir = site.node.home().join("bin");
    fs::create_dir(&dir).unwrap();
    for name in ["iptables-restore", "iptables-save", "ip6tables-save"] {
        symlink(Path::new("/usr/sbin").join(name), dir.join(name)).unwrap();
    }
    symlink("/bin/false", dir.join("ip6tables-restore")).unwrap();
    dir
}

/// In another namespace the link can be made once more, and the ADD gets far.
#[test]
fn a_repeated_add_that_fails_late_keeps_what_the_first_made() {
    for conf in [bridge_with_all(), ptp_with_all()] {
        let site = Site::new(conf);
        let (first, second) = (site.node.pod("pod1"), site.node.pod("elsewhere"));
        let _ = site.add(&first).ok();
        let before = site.world(&[&first, &second]);
        assert!(before.lines.iter().any(|line| line.contains("file net1/10.1.0.")));
        let others = json!({"runtimeConfig": {"ips": ["10.1.0.77", "fd00:1::77"]}});
        let again = site.call("ADD", &second).container("pod1").conf(&site.conf_with(&others));
        for path in [without_ip6tables(&site), PathBuf::from("/nowhere")] {
            site.run(&again.clone().env("PATH", path)).expect_error(103);
            site.world(&[&first, &second]).must_be(&before, "after a second ADD");
        }
        let _ = site.del(&first).ok();
        assert_eq!(masquerading(&site), "");
    }
}

#[test]
fn a_second_interface_that_fails_late_leaves_the_first_as_it_was() {
    for conf in [bridge_with_all(), ptp_with_all()] {
        let site = Site::new(conf);
        let pod = site.node.pod("pod1");
        let _ = site.add(&pod).ok();
        let before = site.world(&[&pod]);
        let add = site.call("ADD", &pod).ifname("eth1").env("PATH", without_ip6tables(&site));
        site.run(&add).expect_error(103);
        site.world(&[&pod]).must_be(&before, "after a failed second ADD");
        let _ = site.run(&site.call("DEL", &pod).ifname("eth1")).ok();
        site.world(&[&pod]).must_be(&before, "after DEL of the second");
        let _ = site.del(&pod).ok();
        assert_eq!(masquerading(&site), "");
    }
}

/// Asked for once more, the attachment stays as it is, link, lease and rules.
#[test]
fn a_repeated_add_changes_nothing() {
    for conf in [bridge_with_all(), ptp_with_all()] {
        let site = Site::new(conf);
        let pod = site.node.pod("pod1");
        let _ = site.add(&pod).ok();
        let before = site.world(&[&pod]);
        site.add(&pod).expect_error(101);
        site.world(&[&pod]).must_be(&before, "after a second ADD");
        let args = "IgnoreUnknown=1;IP=10.1.0.77";
        assert!(!site.run(&site.call("ADD", &pod).args(args)).succeeded());
        site.world(&[&pod]).must_be(&before, "after a second ADD for another address");
        let _ = site.del(&pod).ok();
    }
}

#[test]
fn a_main_plugin_is_no_ipam_plugin() {
    for conf in [bridge_with_all(), ptp_with_all()] {
        let site = Site::new(conf);
        let pod = site.node.pod("pod1");
        let before = site.world(&[&pod]);
        for name in ["bridge", "ptp", "loopback", "tuning", "sbr", "podwire-policy"] {
            let conf = site.conf_with(&json!({"ipam": {"type": name}}));
            let text = site.run(&site.call("ADD", &pod).conf(&conf)).expect_error(7).msg;
            assert!(text.contains(name) && text.contains("no IPAM plugin"), "{text}");
            assert!(site.run(&site.call("DEL", &pod).conf(&conf)).succeeded());
        }
        site.world(&[&pod]).must_be(&before, "after refused delegation");
    }
}

#[test]
fn a_name_that_the_kernel_would_change_is_refused() {
    let site = Site::new(bridge_with_all());
    let pod = site.node.pod("pod1");
    let before = site.world(&[&pod]);
    site.run(&site.call("ADD", &pod).ifname("eth%d")).expect_error(4);
    site.run(&site.call("ADD", &pod).conf(&site.conf_with(&json!({"bridge": "br%d"}))))
        .expect_error(7);
    site.world(&[&pod]).must_be(&before, "after refused names");
}
