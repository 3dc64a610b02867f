//! firewall among others, at once, killed, after a reboot, and whatever programs there are.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::{Call, World, slowed};
use netlink::nftables::{Change, Client};
use ruleset::nft::{self, Element, Family, Key, Set, Table};
use serde_json::{Value, json};

use crate::common::Site;
use crate::rules::{
    all_at_once, killed_at_any_moment, made_as_by_programs, many_among_others, path_with,
    replaced_by_the_next,
};

/// Who drops what is forwarded, so that each backend has something to do.
const DROPS: &str = "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP; nft -f - <<END
table inet mine {
  chain forward { type filter hook forward priority 5; policy drop; }
}
END";

/// What a bridge would have answered for the container of a number.
fn result(number: u16) -> Value {
    json!({"cniVersion": "1.0.0", "interfaces": [{"name": "br0"}],
        "ips": [{"address": format!("10.1.{}.{}/16", number / 200, 2 + number % 200)},
                {"address": format!("fd00:1::{:x}/64", number + 2)}]})
}

/// Every key that goes together with the others.
pub(crate) fn conf(backend: &str) -> Value {
    json!({"cniVersion": "1.0.0", "name": "net1", "type": "firewall", "backend": backend,
        "ingressPolicy": "isolated", "iptablesAdminChainName": "CNI-ADMIN", "firewalldZone": "trusted",
        "prevResult": result(0)})
}

/// A node that drops what it forwards, on which one container has come and gone.
fn site(backend: &str) -> Site {
    let site = Site::new(conf(backend));
    site.node.sh(DROPS);
    for command in ["ADD", "DEL"] {
        let _ = site.run(&call(&site, command, 0)).ok();
    }
    site
}

fn call(site: &Site, command: &str, number: u16) -> Call {
    Call::new("firewall", command)
        .container(&format!("container-{number}"))
        .env("CNI_NETNS", "/run/netns/vanished")
        .conf(&site.conf_with(&json!({"prevResult": result(number)})))
}

const BACKENDS: [&str; 2] = ["iptables", "nftables"];

#[test]
fn many_at_once_among_the_rules_of_others() {
    for backend in BACKENDS {
        let site = site(backend);
        many_among_others(&site, &|command, number| call(&site, command, number));
    }
}

/// The very first ones make what all share.
#[test]
fn many_at_once_on_a_node_that_has_nothing_yet() {
    for backend in BACKENDS {
        let site = Site::new(json!({"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}));
        site.node.sh(DROPS);
        let numbers: Vec<u16> = (1..=20).collect();
        let run = |command: &'static str| {
            let site = &site;
            move |number| {
                let mut conf = conf(backend);
                conf["prevResult"] = result(number);
                site.run(&call(site, command, number).conf(&conf))
            }
        };
        all_at_once(&numbers, run("ADD"));
        all_at_once(&numbers, run("CHECK"));
        all_at_once(&numbers, run("DEL"));
        let left = site.world(&[]);
        assert!(!left.lines.iter().any(|line| line.contains("10.1.0.")), "{backend}: {left:#?}");
    }
}

/// Each changes what the others have just read.
#[test]
fn networks_come_to_a_bridge_and_leave_it_at_once() {
    let site = Site::new(json!({"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}));
    let conf = |number: u16| {
        let policy = if number.is_multiple_of(2) { "isolated" } else { "same-bridge" };
        json!({"cniVersion": "1.1.0", "name": format!("net{number}"), "type": "firewall",
            "backend": "nftables", "ingressPolicy": policy, "prevResult": result(number)})
    };
    let run = |command: &'static str| {
        let site = &site;
        move |number| site.run(&call(site, command, number).conf(&conf(number)))
    };
    let leave = |number| {
        let mut conf = conf(number);
        conf["cni.dev/valid-attachments"] = json!([]);
        let gc = Call::new("firewall", "GC").unset("CNI_CONTAINERID").unset("CNI_IFNAME");
        site.run(&gc.conf(&conf))
    };
    let (first, second): (Vec<u16>, Vec<u16>) = ((1..=12).collect(), (13..=24).collect());
    all_at_once(&first, run("ADD"));
    all_at_once(&first, run("CHECK"));
    let all: Vec<u16> = (1..=24).collect();
    all_at_once(&all, |number| if number <= 12 { leave(number) } else { run("ADD")(number) });
    all_at_once(&second, run("CHECK"));
    run("CHECK")(2).expect_error(102);
    all_at_once(&second, leave);
    assert!(!site.node.sh("nft list tables").contains("podwire-firewall"));
}

/// Whoever writes to nf_tables all the time is waited for.
#[test]
fn a_network_comes_and_leaves_among_changes_of_others() {
    let site = site("nftables");
    let set = Set::new("numbers", [Key::Priority]);
    // Changes until it is told to end, as fast as it can.
    let change_until = |name: &str, begun: &AtomicUsize, is_over: &AtomicBool| {
        let table = Table { family: Family::Inet, name };
        let mut client = Client::open().unwrap().unwrap();
        client.change(table, &[Change::Table(None), Change::Set(&set)]).unwrap();
        begun.fetch_add(1, Ordering::Relaxed);
        for number in 0_u32.. {
            if is_over.load(Ordering::Relaxed) {
                return client.change(table, &[Change::DeleteAll]).unwrap();
            }
            let element = set.encode(&Element::new([nft::Value::Priority(number)]));
            client.change(table, &[Change::Elements(&set.name, &element)]).unwrap();
        }
    };
    let gc = || {
        let keys = json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": []});
        let call = Call::new("firewall", "GC").unset("CNI_CONTAINERID").unset("CNI_IFNAME");
        site.run(&call.conf(&site.conf_with(&keys)))
    };
    let _ = gc().ok();
    // What many networks want takes its time to be read.
    let other = site.conf_with(&json!({"name": "net2", "prevResult": result(2)}));
    let _ = site.run(&call(&site, "ADD", 2).conf(&other)).ok();
    let wishes: Vec<_> = (1..400).map(|it| format!("\"br0\" . ::{it:x} : drop")).collect();
    let file = site.node.home().join("wishes.nft");
    let script = format!("add element inet podwire-firewall networks {{ {} }}", wishes.join(", "));
    std::fs::write(&file, script).unwrap();
    site.node.sh(&format!("nft -f {}", file.display()));
    let before = site.world(&[]);
    for command in ["ADD", "GC"] {
        let (begun, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let reply = thread::scope(|scope| {
            for name in ["others-1", "others-2", "others-3"] {
                let (node, change_until) = (&site.node, &change_until);
                let (begun, is_over) = (&begun, &is_over);
                scope.spawn(move || node.enter(|| change_until(name, begun, is_over)));
            }
            // One that panicked is told of when the scope ends.
            let patience = Instant::now() + slowed(Duration::from_secs(5));
            while begun.load(Ordering::Relaxed) < 3 && Instant::now() < patience {
                thread::sleep(Duration::from_millis(10));
            }
            let run = || if command == "ADD" { site.run(&call(&site, "ADD", 1)) } else { gc() };
            let called = scope.spawn(run);
            thread::sleep(Duration::from_secs(4));
            is_over.store(true, Ordering::Relaxed);
            called.join().unwrap()
        });
        assert!(reply.succeeded(), "{command}: {reply}");
    }
    let _ = site.run(&call(&site, "DEL", 1)).ok();
    site.world(&[]).must_be(&before, "after all");
}

#[test]
fn an_add_replaces_what_an_earlier_one_made() {
    for backend in BACKENDS {
        let site = site(backend);
        replaced_by_the_next(&site, &result(1), &|command, of| {
            let keys = json!({"prevResult": of});
            call(&site, command, 1).conf(&site.conf_with(&keys))
        });
    }
}

#[test]
fn after_a_kill_del_leaves_nothing() {
    for backend in BACKENDS {
        let site = site(backend);
        // A runtime may have no result then.
        let without_result = site.conf_with(&json!({"prevResult": null}));
        killed_at_any_moment(&site, &|command| call(&site, command, 1), &|round| {
            let del = call(&site, "DEL", 1);
            if round % 2 == 0 { del.conf(&without_result) } else { del }
        });
    }
}

/// GC knows attachments by container and interface, and only those of its network.
#[test]
fn garbage_is_told_by_container_and_interface() {
    for backend in BACKENDS {
        let site = site(backend);
        let before = site.world(&[]);
        let run = |command: &str, number: u16, ifname: &str, network: &str| {
            let keys = json!({"name": network, "prevResult": result(number)});
            let call = call(&site, command, number).ifname(ifname).conf(&site.conf_with(&keys));
            site.run(&call)
        };
        for (number, ifname, network) in
            [(1, "eth0", "net1"), (2, "net1", "net1"), (3, "eth0", "net2")]
        {
            let _ = run("ADD", number, ifname, network).ok();
        }
        let gc = |valid: &Value| {
            let keys = json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": valid});
            let call = Call::new("firewall", "GC").unset("CNI_CONTAINERID").unset("CNI_IFNAME");
            let _ = site.run(&call.conf(&site.conf_with(&keys))).ok();
        };
        gc(&json!([{"containerID": "container-1", "ifname": "eth0"},
            {"containerID": "container-2", "ifname": "eth0"}]));
        let _ = run("CHECK", 1, "eth0", "net1").ok();
        let _ = run("CHECK", 3, "eth0", "net2").ok();
        run("CHECK", 2, "net1", "net1").expect_error(102);
        // After a reboot nothing of it is there.
        site.node.sh("nft flush ruleset");
        gc(&json!([]));
        site.node.sh(DROPS);
        let _ = run("ADD", 1, "eth0", "net1").ok();
        let _ = run("CHECK", 1, "eth0", "net1").ok();
        for number in [1, 2] {
            let _ = run("DEL", number, "eth0", "net1").ok();
        }
        let left = lines_of_containers(&site.world(&[]));
        assert_eq!(left, lines_of_containers(&before), "{backend}");
    }
}

fn lines_of_containers(world: &World) -> Vec<String> {
    let is_one = |line: &&String| line.contains("CNI-FW-") || line.contains("10.1.0.");
    world.lines.iter().filter(is_one).cloned().collect()
}

#[test]
fn rules_of_either_kind_of_iptables_are_made_checked_and_removed() {
    let kinds = [path_with("nft"), path_with("legacy")];
    for add in &kinds {
        let site = Site::new(conf("iptables"));
        let with = |command: &str, path: &str| site.run(&call(&site, command, 1).env("PATH", path));
        let rules = || {
            let saves = "iptables-nft-save -t filter; ip6tables-nft-save -t filter; \
                         iptables-legacy-save -t filter; ip6tables-legacy-save -t filter";
            let is_own = |line: &&str| line.contains("CNI-FW-") || line.contains("10.1.0.");
            site.node.sh(saves).lines().filter(is_own).count()
        };
        let path = add.path().to_str().unwrap();
        let _ = with("ADD", path).ok();
        assert!(rules() >= 5);
        let _ = with("CHECK", path).ok();
        let _ = with("ADD", path).ok();
        let _ = with("CHECK", path).ok();
        // By the programs of the node, of which it has both kinds.
        let _ = site.run(&call(&site, "DEL", 1)).ok();
        assert_eq!(rules(), 0);
        let _ = with("ADD", path).ok();
        let _ = with("DEL", path).ok();
        assert_eq!(rules(), 0);
    }
}

#[test]
fn an_add_makes_what_the_programs_would() {
    let site = site("iptables");
    made_as_by_programs(&site, &|command| call(&site, command, 1));
}

/// What nft has put into iptables' tables its programs cannot list, and go on with.
const UNREADABLE: &str = "nft -f - <<END
table ip filter {
  chain FORWARD { type filter hook forward priority 0; policy drop; ct state established accept; }
}
table ip6 filter {
  chain FORWARD { type filter hook forward priority 0; policy drop; ct state established accept; }
}
END";

#[test]
fn among_rules_that_iptables_cannot_read() {
    for backend in BACKENDS {
        let site = Site::new(conf(backend));
        site.node.sh(UNREADABLE);
        assert!(site.node.sh("iptables-save -t filter").contains("is incompatible"));
        let run = |command, number| site.run(&call(&site, command, number));
        for command in ["ADD", "DEL"] {
            let _ = run(command, 0).ok();
        }
        let listed = || site.node.sh("nft -s list table ip filter; nft -s list table ip6 filter");
        let before = listed();
        let _ = run("ADD", 1).ok();
        let one = listed();
        let _ = run("CHECK", 1).ok();
        let _ = run("ADD", 1).ok();
        assert_eq!(listed(), one, "{backend}: once more");
        let _ = run("ADD", 2).ok();
        for number in [1, 2] {
            let _ = run("CHECK", number).ok();
        }
        // What all share is made again, and what has gone is told.
        site.node.sh("for it in ip ip6; do nft flush chain $it filter CNI-FORWARD; done");
        run("CHECK", 2).expect_error(102);
        let _ = run("ADD", 2).ok();
        let _ = run("CHECK", 2).ok();
        run("CHECK", 1).expect_error(102);
        let _ = run("ADD", 1).ok();
        for number in [2, 1] {
            let _ = run("CHECK", number).ok();
            let _ = run("DEL", number).ok();
        }
        assert_eq!(listed(), before, "{backend}");
    }
}

/// The configuration says another backend by now, and no DEL came between.
#[test]
fn an_add_by_nftables_replaces_one_by_iptables() {
    let site = Site::new(conf("iptables"));
    site.node.sh("nft -f - <<END
table inet mine { chain forward { type filter hook forward priority 0; policy drop; }; }
END");
    let by_nftables = site.conf_with(&json!({"backend": "nftables", "prevResult": result(1)}));
    for command in ["ADD", "DEL"] {
        let _ = site.run(&call(&site, command, 1)).ok();
        let _ = site.run(&call(&site, command, 1).conf(&by_nftables)).ok();
    }
    let before = lines_of_containers(&site.world(&[]));
    let _ = site.run(&call(&site, "ADD", 1).conf(&by_nftables)).ok();
    let alone = site.world(&[]);
    let _ = site.run(&call(&site, "DEL", 1).conf(&by_nftables)).ok();
    let _ = site.run(&call(&site, "ADD", 1)).ok();
    let _ = site.run(&call(&site, "ADD", 1).conf(&by_nftables)).ok();
    site.world(&[]).must_be(&alone, "in the place of the one by iptables");
    let _ = site.run(&call(&site, "CHECK", 1).conf(&by_nftables)).ok();
    let _ = site.run(&call(&site, "DEL", 1).conf(&by_nftables)).ok();
    assert_eq!(lines_of_containers(&site.world(&[])), before);
}

/// For a node that goes back to the reference, which cannot.
#[test]
fn the_documented_commands_remove_what_is_by_nftables() {
    let docs = include_str!("../../docs/replace-reference-plugins.md");
    let mut lines = docs.lines().map(str::trim);
    let rules = lines.find(|it| it.starts_with("nft -a list ruleset |")).expect("it is told");
    let bridges = lines.next().expect("what keeps bridges apart comes next");
    let site = Site::new(json!({"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}));
    // Of the others' comments none is taken for podwire's.
    site.node.sh("nft -f - <<END
table inet mine {
  chain forward { type filter hook forward priority 0; policy drop; ip saddr 10.9.0.1 accept comment \"0a-0b, of mine\"; }
}
END");
    let before = site.world(&[]);
    for number in [1, 2] {
        let mut conf = conf("nftables");
        conf["prevResult"] = result(number);
        let _ = site.run(&call(&site, "ADD", number).conf(&conf)).ok();
    }
    assert!(site.node.sh("nft list table inet mine").contains("id: container-2"));
    site.node.sh(&format!("{rules}; {bridges}"));
    let mut left = site.world(&[]);
    left.lines.retain(|line| !line.contains("/run/podwire/"));
    left.must_be(&before, "after the commands");
}

/// Neither `nft` nor `iptables` is installed.
#[test]
fn without_programs_nftables_serves() {
    let mut conf = conf("nftables");
    let site = Site::new(conf.clone());
    site.node.sh(DROPS);
    let before = site.world(&[]);
    for backend in [json!("nftables"), Value::Null] {
        conf["backend"] = backend;
        conf["prevResult"] = result(1);
        for command in ["ADD", "CHECK", "DEL"] {
            let call = call(&site, command, 1).conf(&conf).env("PATH", "/nowhere");
            let reply = site.run(&call);
            assert!(reply.succeeded(), "{reply}");
            if command == "ADD" {
                assert!(site.node.sh("nft list ruleset").contains("id: container-1"));
            }
        }
        site.world(&[]).must_be(&before, "without programs");
    }
}
