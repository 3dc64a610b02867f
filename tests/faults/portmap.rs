//! portmap among others, at once, killed, after a reboot, and whatever programs there are.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::thread;
use std::time::Duration;

use lab::{Call, Pod};
use serde_json::{Value, json};

use crate::common::Site;
use crate::rules::{
    all_at_once, killed_at_any_moment, made_as_by_programs, many_among_others, path_with,
    replaced_by_the_next,
};

const BACKENDS: [&str; 2] = ["iptables", "nftables"];

/// What a bridge would have answered for the container of a number.
pub(crate) fn result(number: u16) -> Value {
    json!({"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": "/n"}],
        "ips": [{"address": format!("10.1.{}.{}/16", number / 200, 2 + number % 200), "interface": 0},
                {"address": format!("fd00:1::{:x}/64", number + 2), "interface": 0}]})
}

fn mappings(number: u16) -> Value {
    let of = |protocol: &str, host_port: u16| json!({"hostPort": host_port, "containerPort": 80, "protocol": protocol});
    json!([of("tcp", 10_000 + number), of("udp", 10_000 + number), of("tcp", 20_000 + number)])
}

pub(crate) fn conf(backend: &str) -> Value {
    json!({"cniVersion": "1.0.0", "name": "net1", "type": "portmap", "backend": backend,
        "prevResult": result(0), "runtimeConfig": {"portMappings": mappings(0)}})
}

pub(crate) fn call(site: &Site, command: &str, number: u16) -> Call {
    let keys =
        json!({"prevResult": result(number), "runtimeConfig": {"portMappings": mappings(number)}});
    Call::new("portmap", command)
        .container(&format!("container-{number}"))
        .env("CNI_NETNS", "/run/netns/vanished")
        .conf(&site.conf_with(&keys))
}

#[test]
fn many_at_once_among_the_rules_of_others() {
    for backend in BACKENDS {
        let site = Site::new(conf(backend));
        many_among_others(&site, &|command, number| call(&site, command, number));
    }
}

#[test]
fn an_add_makes_what_the_programs_would() {
    let site = Site::new(conf("iptables"));
    for keys in [
        json!({}),
        json!({"masqAll": true, "markMasqBit": 31}),
        json!({"snat": false, "runtimeConfig": {"portMappings": [
            {"hostPort": 53, "containerPort": 5353, "protocol": "sctp", "hostIP": "192.0.2.1"},
            {"hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "fd00:2::1"}]}}),
    ] {
        let call = |command| {
            let mut conf = site.conf_with(&json!({"prevResult": result(1)}));
            for (key, value) in keys.as_object().expect("it is one") {
                conf[key] = value.clone();
            }
            call(&site, command, 1).conf(&conf)
        };
        // The first makes what all share.
        for command in ["ADD", "DEL"] {
            let _ = site.run(&call(command)).ok();
        }
        made_as_by_programs(&site, &call);
    }
}

/// Of many that want one port at once one gets it. Nobody is at their addresses, so that each next one takes it over:
/// what counts is that one has it in the end, and all of it.
#[test]
fn a_port_that_many_want_is_ones() {
    for backend in BACKENDS {
        let site = Site::new(conf(backend));
        let before = site.world(&[]);
        let one_port = |command: &'static str, number: u16| {
            let keys = json!({"prevResult": result(number), "runtimeConfig": {"portMappings": mappings(1)}});
            site.run(&call(&site, command, number).conf(&site.conf_with(&keys)))
        };
        let numbers: Vec<u16> = (1..=8).collect();
        all_at_once(&numbers, |number| one_port("ADD", number));
        let has_it =
            numbers.iter().filter(|number| one_port("CHECK", **number).succeeded()).count();
        assert_eq!(has_it, 1, "{backend}");
        all_at_once(&numbers, |number| one_port("DEL", number));
        site.world(&[]).must_be(&before, backend);
    }
}

/// An address is given to another container before the DEL of the one that had it comes.
#[test]
fn a_late_del_takes_nothing_from_who_has_the_address_now() {
    for backend in BACKENDS {
        let site = Site::new(conf(backend));
        let before = site.world(&[]);
        let of = |command: &'static str, container: &str, ports: u16| {
            let keys = json!({"prevResult": result(1), "runtimeConfig": {"portMappings": mappings(ports)}});
            site.run(&call(&site, command, 1).container(container).conf(&site.conf_with(&keys)))
        };
        // Another port, and the same.
        for ports in [2, 1] {
            let _ = of("ADD", "a", 1).ok();
            let _ = of("ADD", "b", ports).ok();
            let _ = of("CHECK", "b", ports).ok();
            let _ = of("DEL", "a", 1).ok();
            let _ = of("CHECK", "b", ports).ok();
            let _ = of("DEL", "b", ports).ok();
            site.world(&[]).must_be(&before, backend);
        }
    }
}

#[test]
fn an_add_replaces_what_an_earlier_one_made() {
    for backend in BACKENDS {
        let site = Site::new(conf(backend));
        replaced_by_the_next(&site, &result(1), &|command, of| {
            let keys = json!({"prevResult": of, "runtimeConfig": {"portMappings": mappings(1)}});
            call(&site, command, 1).conf(&site.conf_with(&keys))
        });
    }
}

/// Also what it made by the other backend, whose rules might come first.
#[test]
fn an_add_replaces_what_an_earlier_one_made_by_the_other_backend() {
    for (first, second) in [("iptables", "nftables"), ("nftables", "iptables")] {
        let site = Site::new(conf(first));
        let run = |command: &str, backend: &str, number: u16| {
            let keys = json!({"prevResult": result(number), "backend": backend,
                "runtimeConfig": {"portMappings": mappings(number)}});
            let call = call(&site, command, 1).conf(&site.conf_with(&keys));
            let _ = site.run(&call).ok();
        };
        // What all share is there, of both.
        for command in ["ADD", "DEL"] {
            run(command, second, 9);
        }
        let before = site.world(&[]);
        run("ADD", first, 1);
        let by_first = site.world(&[]);
        run("ADD", second, 2);
        run("CHECK", second, 2);
        let text = site.node.sh("nft -s list ruleset; iptables-save -t nat; ip6tables-save -t nat");
        assert!(text.contains("10002") && !text.contains("10001"), "{first}: {text}");
        run("ADD", first, 1);
        site.world(&[]).must_be(&by_first, first);
        run("DEL", first, 1);
        site.world(&[]).must_be(&before, first);
    }
}

#[test]
fn after_a_kill_del_leaves_nothing() {
    for backend in BACKENDS {
        let site = Site::new(conf(backend));
        killed_at_any_moment(&site, &|command| call(&site, command, 1), &|_| call(&site, "DEL", 1));
    }
}

/// After a reboot the rules have gone, and the files of leases have not.
#[test]
fn what_a_reboot_left_is_no_garbage_and_no_obstacle() {
    for backend in BACKENDS {
        let site = Site::new(conf(backend));
        let before = site.world(&[]);
        let leases = site.node.var_lib().join("cni/networks/net1");
        std::fs::create_dir_all(&leases).unwrap();
        let lease = |number: u16| leases.join(format!("10.1.0.{}", 2 + number));
        for number in [1, 2] {
            let _ = site.run(&call(&site, "ADD", number)).ok();
            std::fs::write(lease(number), format!("container-{number}\r\neth0")).unwrap();
        }
        site.node.sh("nft flush ruleset");
        let gc = |valid: &[u16]| {
            let valid: Vec<Value> = valid
                .iter()
                .map(|it| json!({"containerID": format!("container-{it}"), "ifname": "eth0"}))
                .collect();
            let keys = json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": valid});
            let call = Call::new("portmap", "GC").conf(&site.conf_with(&keys));
            let call = call.unset("CNI_CONTAINERID").unset("CNI_IFNAME");
            let _ = site.run(&call).ok();
        };
        gc(&[]);
        // The container of before is not there, whatever its lease says: another gets its port.
        let taken =
            json!({"prevResult": result(3), "runtimeConfig": {"portMappings": mappings(1)}});
        let taken = site.conf_with(&taken);
        let _ = site.run(&call(&site, "ADD", 3).conf(&taken)).ok();
        gc(&[3]);
        let _ = site.run(&call(&site, "CHECK", 3).conf(&taken)).ok();
        // The late DELs of before take nothing from it.
        for number in [1, 2] {
            let _ = site.run(&call(&site, "DEL", number)).ok();
            std::fs::remove_file(lease(number)).unwrap();
        }
        let _ = site.run(&call(&site, "CHECK", 3).conf(&taken)).ok();
        gc(&[1, 2]);
        std::fs::remove_dir_all(site.node.var_lib().join("cni/networks")).unwrap();
        let left: BTreeSet<String> = site.world(&[]).lines.into_iter().collect();
        let own = |line: &&String| line.contains("CNI-DN-") || line.contains("container-");
        assert!(!left.iter().any(|line| own(&line)), "{backend}: {left:#?}");
        if backend == "nftables" {
            // What all share is there again.
            site.world(&[]).must_be(&before, backend);
        }
    }
}

/// GC knows attachments by container and interface, where the layout tells both.
#[test]
fn garbage_is_told_by_container_and_interface() {
    let site = Site::new(conf("nftables"));
    let with_interface = |command: &str, number: u16, ifname: &str| {
        let mut result = result(number);
        result["interfaces"][0]["name"] = json!(ifname);
        let keys =
            json!({"prevResult": result, "runtimeConfig": {"portMappings": mappings(number)}});
        let conf = site.conf_with(&keys);
        let _ = site.run(&call(&site, command, number).ifname(ifname).conf(&conf)).ok();
    };
    with_interface("ADD", 1, "eth0");
    with_interface("ADD", 2, "net1");
    let other = json!({"name": "net2", "prevResult": result(3), "runtimeConfig": {"portMappings": mappings(3)}});
    let other = site.conf_with(&other);
    let _ = site.run(&call(&site, "ADD", 3).conf(&other)).ok();
    let keys = json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": [
        {"containerID": "container-1", "ifname": "eth0"}, {"containerID": "container-2", "ifname": "eth0"}]});
    let gc = Call::new("portmap", "GC").unset("CNI_CONTAINERID").unset("CNI_IFNAME");
    let _ = site.run(&gc.clone().conf(&site.conf_with(&keys))).ok();
    with_interface("CHECK", 1, "eth0");
    let left = site.node.sh("nft list table inet podwire-portmap");
    assert!(left.contains("container-1") && !left.contains("container-2"), "{left}");
    // Another network's are not looked at.
    let _ = site.run(&call(&site, "CHECK", 3).conf(&other)).ok();
    // An absent list is not an empty one.
    let keys = json!({"cniVersion": "1.1.0"});
    site.run(&gc.conf(&site.conf_with(&keys))).expect_error(7);
}

/// The rules of containers, in the tables of nf_tables and in those of old.
fn rules(site: &Site) -> usize {
    let saves = "iptables-nft-save -t nat; ip6tables-nft-save -t nat; \
                 iptables-legacy-save -t nat; ip6tables-legacy-save -t nat";
    site.node.sh(saves).lines().filter(|line| line.contains("CNI-DN-")).count()
}

#[test]
fn rules_of_either_kind_of_iptables_are_made_checked_and_removed() {
    let kinds = [path_with("nft"), path_with("legacy")];
    for add in &kinds {
        let site = Site::new(conf("iptables"));
        let with = |command: &str, path: &str| site.run(&call(&site, command, 1).env("PATH", path));
        let path = add.path().to_str().unwrap();
        let _ = with("ADD", path).ok();
        assert!(rules(&site) > 10);
        let _ = with("CHECK", path).ok();
        let _ = with("ADD", path).ok();
        let _ = with("CHECK", path).ok();
        // By the programs of the node, of which it has both kinds.
        let _ = site.run(&call(&site, "DEL", 1)).ok();
        assert_eq!(rules(&site), 0);
        let _ = with("ADD", path).ok();
        let _ = with("DEL", path).ok();
        assert_eq!(rules(&site), 0);
    }
    // In nf_tables no program is needed to go.
    let site = Site::new(conf("iptables"));
    let path = kinds[0].path().to_str().unwrap();
    let _ = site.run(&call(&site, "ADD", 1).env("PATH", path)).ok();
    let reply = site.run(&call(&site, "DEL", 1).env("PATH", "/nowhere"));
    let _ = reply.ok();
    assert_eq!(reply.stderr, "", "{reply}");
    assert_eq!(rules(&site), 0);
}

/// Where none of the ports is published, ADD changes what it has not read: here it could not read it.
#[test]
fn a_port_beside_those_of_others_needs_one_program() {
    let site = Site::new(conf("iptables"));
    let path = path_with("nft");
    for family in ["iptables", "ip6tables"] {
        std::fs::remove_file(path.path().join(format!("{family}-save"))).unwrap();
    }
    let path = path.path().to_str().unwrap();
    let with =
        |command: &str, number: u16| site.run(&call(&site, command, number).env("PATH", path));
    let before = site.world(&[]);
    for number in 1..4 {
        let _ = with("ADD", number).ok();
    }
    for number in 1..4 {
        let _ = site.run(&call(&site, "CHECK", number)).ok();
    }
    // A second time, and with what all share gone, it must be read.
    with("ADD", 1).expect_error(103);
    let _ = site.run(&call(&site, "ADD", 1)).ok();
    site.node.sh("iptables -t nat -F CNI-HOSTPORT-MASQ");
    with("ADD", 4).expect_error(103);
    let _ = site.run(&call(&site, "ADD", 4)).ok();
    let _ = site.run(&call(&site, "CHECK", 4)).ok();
    for number in 1..5 {
        let _ = with("DEL", number).ok();
    }
    site.world(&[]).must_be(&before, "all have gone");
}

/// kube-proxy and Docker have tables nat on many nodes. Nobody reads them who has nothing there.
#[test]
fn by_nf_tables_no_program_is_needed_beside_tables_nat_of_others() {
    let site = Site::new(conf("nftables"));
    site.node.sh("for it in iptables ip6tables; do $it -t nat -A PREROUTING -p tcp --dport 7 -j RETURN; done");
    let path = tempfile::tempdir().unwrap();
    for name in ["iptables", "ip6tables"] {
        for end in ["", "-save", "-restore"] {
            symlink("/bin/false", path.path().join(format!("{name}{end}"))).unwrap();
        }
    }
    let path = path.path().to_str().unwrap();
    let before = site.world(&[]);
    for command in ["ADD", "CHECK", "ADD", "DEL"] {
        let reply = site.run(&call(&site, command, 1).env("PATH", path));
        assert!(reply.succeeded() && reply.stderr.is_empty(), "{command}: {reply}");
    }
    site.world(&[]).must_be(&before, "after DEL");
}

/// Whoever holds the lock is waited for, and not longer.
#[test]
fn a_lock_that_is_released_in_time_is_waited_for() {
    for backend in BACKENDS {
        let site = Site::new(conf(backend));
        let lock = site.node.run_dir().join("podwire/iptables.lock");
        let held = std::fs::File::options().write(true).open(lock).unwrap();
        held.lock().unwrap();
        let release = thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            drop(held);
        });
        let _ = site.run(&call(&site, "ADD", 1)).ok();
        release.join().unwrap();
        let _ = site.run(&call(&site, "DEL", 1)).ok();
    }
}

/// What nft has put into the tables iptables' programs cannot list.
#[test]
fn among_rules_that_iptables_cannot_read() {
    let site = Site::new(conf("iptables"));
    site.hide_from_iptables();
    let listed = || site.listed_by_nft();
    let before = listed();
    let run = |command: &str, ports: u16| {
        let keys =
            json!({"prevResult": result(1), "runtimeConfig": {"portMappings": mappings(ports)}});
        site.run(&call(&site, command, 1).conf(&site.conf_with(&keys)))
    };
    for ports in [1, 1, 2] {
        let _ = run("ADD", ports).ok();
        let _ = run("CHECK", ports).ok();
    }
    let text = site.node.sh("nft -s list table ip nat; nft -s list table ip6 nat");
    assert!(text.contains("10002") && !text.contains("10001"), "{text}");
    let _ = run("CHECK", 1).expect_error(102);
    let _ = site.run(&call(&site, "ADD", 5)).ok();
    // What all share may be gone, too.
    site.node.sh("nft flush chain ip nat CNI-HOSTPORT-MASQ");
    let _ = run("CHECK", 2).expect_error(102);
    let _ = run("ADD", 2).ok();
    let _ = run("CHECK", 2).ok();
    let _ = run("DEL", 2).ok();
    let _ = site.run(&call(&site, "CHECK", 5)).ok();
    let _ = site.run(&call(&site, "DEL", 5)).ok();
    assert_eq!(listed(), before);
}

/// They cannot list them from the start, and what they would write could not be found again.
#[test]
fn the_first_port_among_rules_that_iptables_cannot_read() {
    let site = Site::new(conf("iptables"));
    let node = &site.node;
    node.sh("nft delete table ip nat; nft delete table ip6 nat
        for it in ip ip6; do nft -f - <<END
table $it nat {
  chain POSTROUTING { type nat hook postrouting priority 100; policy accept; oifname x ct state new masquerade; }
}
END
        done");
    assert!(node.sh("iptables-save -t nat").contains("is incompatible"));
    let run = |command: &str, number: u16, ports: u16| {
        let keys = json!({"prevResult": result(number), "runtimeConfig": {"portMappings": mappings(ports)}});
        site.run(&call(&site, command, number).conf(&site.conf_with(&keys)))
    };
    let of_containers = || {
        let mut listed = site.listed_by_nft();
        listed.retain(|it| it.contains("CNI-DN-"));
        listed.len()
    };
    for number in [1, 2] {
        let _ = run("ADD", number, number).ok();
        let _ = run("CHECK", number, number).ok();
    }
    let each = of_containers() / 2;
    // A port of another's is seen, whose container is not there.
    let reply = run("ADD", 3, 1);
    assert!(reply.succeeded() && reply.stderr.contains("is taken from"), "{reply}");
    assert!(reply.stderr.contains("container-1"), "{reply}");
    let _ = run("CHECK", 3, 1).ok();
    let _ = run("CHECK", 1, 1).expect_error(102);
    assert_eq!(of_containers(), 2 * each);
    // Garbage goes, and what is valid stays.
    let valid = json!([{"containerID": "container-2", "ifname": "eth0"}]);
    let keys = json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": valid});
    let gc = Call::new("portmap", "GC").unset("CNI_CONTAINERID").unset("CNI_IFNAME");
    let _ = site.run(&gc.conf(&site.conf_with(&keys))).ok();
    let _ = run("CHECK", 2, 2).ok();
    assert_eq!(of_containers(), each);
    let _ = run("DEL", 2, 2).ok();
    assert_eq!(of_containers(), 0);
}

/// The host's loopback is led to links of containers, not to the link by which everybody else comes.
#[test]
fn the_hosts_uplink_gets_no_packets_of_its_loopback() {
    for backend in BACKENDS {
        let site = Site::new(conf(backend));
        let node = &site.node;
        node.sh("ip link add up0 type veth peer name up1; ip link set up0 up; ip link set up1 up
            ip addr add 192.0.2.1/24 dev up0; ip link add br0 type bridge; ip link set br0 up");
        let parameter = |link: &str| {
            node.sh(&format!("cat /proc/sys/net/ipv4/conf/{link}/route_localnet")).trim().to_owned()
        };
        let ways = ["default via 192.0.2.9", "default dev up0", "10.1.0.0/16 via 192.0.2.9"];
        for way in ways {
            node.sh(&format!("ip route add {way}"));
            for command in ["ADD", "CHECK", "DEL"] {
                let _ = site.run(&call(&site, command, 1)).ok();
            }
            assert_eq!(parameter("up0"), "0", "{backend} {way}");
            node.sh(&format!("ip route del {way}"));
        }
        node.sh("ip addr add 10.1.0.1/16 dev br0; ip route add default via 192.0.2.9");
        for command in ["ADD", "DEL"] {
            let _ = site.run(&call(&site, command, 1)).ok();
        }
        assert_eq!([parameter("up0"), parameter("br0")], ["0", "1"], "{backend}");
    }
}

/// `route_localnet` stays on the containers' links, and with it what keeps their packets from the host's loopback, however
/// the last port goes. A table of before had a guard of each class of conditions.
#[test]
fn the_guard_of_the_hosts_loopback_stays() {
    let conditions = json!({"conditionsV4": ["iifname", "up0"]});
    for (keys, is_of_before) in
        [(json!({}), false), (conditions.clone(), false), (conditions, true)]
    {
        for by_gc in [false, true] {
            let site = Site::new(conf("nftables"));
            let node = &site.node;
            // The class of those without conditions stays, and would have kept its guard.
            node.sh("nft delete table inet podwire-portmap");
            let mut conf = site.conf_with(&keys);
            conf["prevResult"] = result(1);
            conf["runtimeConfig"] = json!({"portMappings": mappings(1)});
            let run = |command: &str| {
                let reply = site.run(&call(&site, command, 1).conf(&conf));
                let _ = reply.ok();
            };
            run("ADD");
            let chain = || node.sh("nft list chain inet podwire-portmap loopback");
            let guards = || chain().matches("ip daddr 127.0.0.0/8 drop").count();
            if is_of_before {
                let table = node.sh("nft list table inet podwire-portmap");
                let name = table.lines().find_map(|it| it.trim().strip_prefix("chain hostports-"));
                let suffix = name.and_then(|it| it.strip_suffix(" {")).expect("a chain of a class");
                let rule = chain().replace("\"hostports ", &format!("\"hostports-{suffix} "));
                let file = node.home().join("before.nft");
                let script = format!("flush chain inet podwire-portmap loopback\n{rule}");
                std::fs::write(&file, script).unwrap();
                node.sh(&format!("nft -f {}", file.display()));
                assert!(chain().contains("\"hostports-"));
            }
            run("CHECK");
            assert_eq!(guards(), 1);
            if by_gc {
                let keys = json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": []});
                let gc = Call::new("portmap", "GC").conf(&site.conf_with(&keys));
                let gc = gc.unset("CNI_CONTAINERID").unset("CNI_IFNAME");
                let _ = site.run(&gc).ok();
            } else {
                run("DEL");
            }
            let left = node.sh("nft list table inet podwire-portmap");
            assert!(!left.contains("10.1.0.") && !left.contains("hostports-"), "{left}");
            assert_eq!(guards(), 1, "{left}");
            // And one is enough for all that come again; without it no port is as it should be.
            run("ADD");
            run("CHECK");
            assert_eq!(guards(), 1);
            node.sh("nft flush chain inet podwire-portmap loopback");
            let _ = site.run(&call(&site, "CHECK", 1).conf(&conf)).expect_error(102);
            run("ADD");
            run("CHECK");
            assert_eq!(guards(), 1);
        }
    }
}

/// An ADD that fails midway leaves nothing: here the kernel has no such parameter to set.
#[test]
fn a_failed_add_leaves_nothing() {
    for backend in BACKENDS {
        let site = Site::new(conf(backend));
        let pod: Pod = site.node.pod("pod1");
        site.node
            .sh("ip link add br0 type bridge; ip addr add 10.1.0.1/16 dev br0; ip link set br0 up");
        let before = site.world(&[&pod]);
        // The parameters are read-only, as in a container.
        let line = format!(
            "mount -o bind,ro /proc/sys /proc/sys && exec {}",
            site.podwire.plugin("portmap").display()
        );
        let conf = site.conf_with(
            &json!({"prevResult": result(1), "runtimeConfig": {"portMappings": mappings(1)}}),
        );
        std::fs::write(site.node.home().join("conf"), conf.to_string()).unwrap();
        let done = site.node.try_sh(&format!(
            "CNI_COMMAND=ADD CNI_CONTAINERID=c1 CNI_IFNAME=eth0 CNI_NETNS={} CNI_PATH=/ \
             unshare -m sh -c '{line}' < {}/conf",
            pod.path().display(),
            site.node.home().display()
        ));
        assert!(!done.status.success() && done.stdout.contains("route_localnet"), "{done:?}");
        site.world(&[&pod]).must_be(&before, backend);
    }
}
