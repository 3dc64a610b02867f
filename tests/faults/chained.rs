//! Plugins that stand behind the one that makes the interface: what they did is undone, whenever and
//! however they end.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use lab::{Call, Pod, Suite, program};
use serde_json::{Value, json};

use crate::common::{Site, bandwidth_with_all, bridge_with_all, sbr_with_all, tuning_with_all};
use crate::kills::Dice;

const ROUNDS: usize = 100;

/// A pod of a bridge, and a plugin behind that.
struct Chained {
    site: Site,
    pod: Pod,
    conf: Value,
}

impl Chained {
    fn new(conf: Value) -> Self {
        // The addresses stay the same when the interface is made anew.
        let addresses = json!([{"address": "10.1.0.7/24", "gateway": "10.1.0.1"},
            {"address": "fd00:1::7/64", "gateway": "fd00:1::1"}]);
        let mut bridge = bridge_with_all();
        bridge["ipam"] = json!({"type": "static", "addresses": addresses});
        let site = Site::new(bridge);
        let pod = site.node.pod("pod1");
        let mut chained = Self { site, pod, conf };
        chained.attach();
        chained
    }

    /// Adds the pod to the bridge.
    fn attach(&mut self) {
        self.conf["prevResult"] = self.site.add(&self.pod).ok();
    }

    /// The same interface anew.
    fn renew(&mut self) {
        let _ = self.site.del(&self.pod).ok();
        self.attach();
    }

    fn call(&self, command: &str, keys: &Value) -> Call {
        let mut conf = self.conf.clone();
        for (key, value) in keys.as_object().expect("keys are an object") {
            conf[key] = value.clone();
        }
        let plugin = conf["type"].as_str().expect("a type").to_owned();
        Call::new(&plugin, command).container(self.pod.name()).netns(&self.pod.path()).conf(&conf)
    }

    fn must(&self, command: &str) {
        let _ = self.site.run(&self.call(command, &json!({}))).ok();
    }

    fn world(&self) -> lab::World {
        self.site.world(&[&self.pod])
    }

    /// Kills ADDs at random moments. What was there before is there again after each DEL, `renew` aside,
    /// which is run after it.
    fn kill_and_delete(&mut self, renew: impl Fn(&mut Self)) {
        let mut window = Duration::MAX;
        for _ in 0..5 {
            let started = Instant::now();
            self.must("ADD");
            window = window.min(started.elapsed());
            self.must("DEL");
            renew(self);
        }
        let before = self.world();
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        let mut killed = 0;
        for round in 0..ROUNDS {
            let moment = dice.up_to(u64::try_from(window.as_micros()).unwrap());
            let moment = Duration::from_micros(moment);
            let add = self.call("ADD", &json!({}));
            let mut add = add.start(&self.site.node, &self.site.podwire);
            thread::sleep(moment);
            add.kill();
            if add.finish().exit.is_none() {
                killed += 1;
                window += window / 16;
            } else {
                window -= window / 6;
            }
            self.must("DEL");
            renew(self);
            self.world().must_be(&before, &format!("round {round}, killed after {moment:?}"));
        }
        assert!(killed > ROUNDS / 3, "only {killed} of {ROUNDS} kills hit a running ADD");
    }
}

#[test]
fn after_a_killed_tuning_del_leaves_nothing() {
    // Parameters of the namespace go with that.
    let conf = json!({"cniVersion": "1.0.0", "name": "net1", "type": "tuning",
        "mac": "02:11:22:00:00:07", "promisc": true, "mtu": 1400, "allmulti": true, "txQLen": 5});
    Chained::new(conf).kill_and_delete(|_| ());
}

#[test]
fn a_tuning_that_fails_late_leaves_everything_as_it_was() {
    let chained = Chained::new(tuning_with_all());
    let before = chained.world();
    // The MTU is set by then, and the parameters are written.
    let multicast = json!({"mac": "01:11:22:00:00:07"});
    let failed = |when: &str, before: &lab::World| {
        let error = chained.site.run(&chained.call("ADD", &multicast)).expect_error(100);
        assert!(error.msg.contains("MAC address of \"eth0\""), "{}", error.msg);
        chained.world().must_be(before, when);
    };
    let made = chained.site.node.run_dir().join("cni/tuning");
    fs::create_dir_all(&made).unwrap();
    failed("after a failed ADD", &chained.world());
    fs::remove_dir_all(chained.site.node.run_dir().join("cni")).unwrap();
    chained.world().must_be(&before, "without the folder");
    chained.must("ADD");
    let tuned = chained.world();
    tuned.must_have(&["pod1 sysctl eth0 ipv4/arp_filter=1", "pod1 link eth0 mtu=1300"]);
    failed("after a second ADD that failed", &tuned);
    chained.must("CHECK");
    chained.must("DEL");
}

#[test]
fn tuning_is_no_use_where_parameters_cannot_be_written() {
    let chained = Chained::new(tuning_with_all());
    let before = chained.world();
    // The first is written by then.
    let keys = json!({"sysctl": {"net.ipv4.ip_default_ttl": "33",
        "net.ipv4.conf.IFNAME.no_such_thing": "1"}});
    let error = chained.site.run(&chained.call("ADD", &keys)).expect_error(100);
    assert!(error.msg.contains("conf/eth0/no_such_thing"), "{}", error.msg);
    let mut after = chained.world();
    after.lines.retain(|line| !line.starts_with("file /run/cni/"));
    after.must_be(&before, "after a failed ADD");
    assert_eq!(fs::read_dir(chained.site.node.run_dir().join("cni/tuning")).unwrap().count(), 0);
}

#[test]
fn after_a_killed_sbr_del_leaves_nothing() {
    // The routes that it moves come back with the interface.
    Chained::new(sbr_with_all()).kill_and_delete(Chained::renew);
}

#[test]
fn after_sbr_has_failed_everything_is_as_it_was() {
    let chained = Chained::new(sbr_with_all());
    let before = chained.world();
    // That of IPv6 comes last: all else is there by then.
    let keys = json!({"gateways": ["10.1.0.1", "fd00:9::1"]});
    let error = chained.site.run(&chained.call("ADD", &keys)).expect_error(100);
    assert!(error.msg.contains("::/0 via fd00:9::1"), "{}", error.msg);
    chained.world().must_be(&before, "after a failed ADD");
}

#[test]
fn after_a_killed_bandwidth_del_leaves_nothing() {
    // What limits the host's end goes with it.
    Chained::new(bandwidth_with_all()).kill_and_delete(Chained::renew);
}

#[test]
fn after_bandwidth_has_failed_everything_is_as_it_was() {
    let chained = Chained::new(bandwidth_with_all());
    let node = &chained.site.node;
    // A link that is none of its has the name, and the other: by then what the container is sent is limited.
    let names = chained.site.run(&chained.call("ADD", &json!({}))).ok();
    let name = names["interfaces"][3]["name"].as_str().unwrap();
    chained.must("DEL");
    node.sh("tc qdisc del dev $(ip -o link show type veth | cut -d: -f2 | cut -d@ -f1) root");
    node.sh(&format!("ip link add {name} type bridge"));
    let own = chained.site.run(&chained.call("ADD", &json!({}))).ok();
    let own = own["interfaces"][3]["name"].as_str().unwrap();
    assert_ne!(own, name);
    chained.must("DEL");
    node.sh("tc qdisc del dev $(ip -o link show type veth | cut -d: -f2 | cut -d@ -f1) root");
    node.sh(&format!("ip link add {own} type bridge"));
    let before = chained.world();
    let error = chained.site.run(&chained.call("ADD", &json!({}))).expect_error(100);
    assert!(error.msg.contains(own), "{}", error.msg);
    chained.world().must_be(&before, "after a failed ADD");
    chained.must("DEL");
    chained.world().must_be(&before, "after DEL: they are not its own");
}

/// Two limited interfaces of one container, of which the second is `second`'s.
struct Limited {
    chained: Chained,
    second: Value,
}

impl Limited {
    fn new() -> Self {
        let chained = Chained::new(
            json!({"cniVersion": "1.0.0", "name": "net1", "type": "bandwidth",
            "ingressRate": 8_000_000, "ingressBurst": 80_000, "egressRate": 16_000_000, "egressBurst": 160_000}),
        );
        let ipam = json!({"type": "static", "addresses": [{"address": "10.1.0.8/24"}]});
        let conf = chained.site.conf_with(&json!({"ipam": ipam}));
        let call = chained.site.call("ADD", &chained.pod).ifname("eth1").conf(&conf);
        let second = chained.site.run(&call).ok();
        Self { chained, second }
    }

    /// Runs a command for the second interface.
    fn second(&self, command: &str) -> Value {
        let call = self.chained.call(command, &json!({"prevResult": self.second}));
        self.chained.site.run(&call.ifname("eth1")).ok()
    }

    /// What limits the host's end goes with it, which stays here.
    fn free_second(&self) {
        let name = self.second["interfaces"][1]["name"].as_str().unwrap();
        self.chained.site.node.sh(&format!("tc qdisc del dev {name} root"));
    }

    fn ifbs(&self) -> String {
        self.chained.site.node.sh("ip -o link show type ifb")
    }
}

/// The reference has one for each container, and gives it no alias.
#[test]
fn an_ifb_of_the_reference_is_of_the_interface_that_it_limits() {
    let limited = Limited::new();
    let (chained, reference) = (&limited.chained, Suite::reference());
    let first = chained.call("ADD", &json!({})).run(&chained.site.node, &reference).ok();
    let check = chained.call("CHECK", &json!({"prevResult": first}));
    let with_first = chained.world();
    // What was never limited, and what is.
    limited.second("DEL");
    chained.world().must_be(&with_first, "after DEL of the second");
    limited.second("ADD");
    limited.second("CHECK");
    let _ = check.run(&chained.site.node, &reference).ok();
    let _ = chained.site.run(&check).ok();
    limited.second("DEL");
    limited.free_second();
    chained.world().must_be(&with_first, "after the second has come and gone");
    chained.must("DEL");
    assert_eq!(limited.ifbs(), "");
}

/// An ADD gives it its alias after it has made it.
#[test]
fn an_ifb_that_has_no_alias_yet_is_known_by_its_second_name() {
    let limited = Limited::new();
    limited.chained.must("ADD");
    let with_first = limited.chained.world();
    let added = limited.second("ADD");
    let names = added["interfaces"].as_array().unwrap();
    let name = names.last().unwrap()["name"].as_str().unwrap();
    limited.second("DEL");
    limited.free_second();
    let killed = || limited.chained.site.node.sh(&format!("ip link add {name} type ifb"));
    killed();
    limited.second("DEL");
    limited.chained.world().must_be(&with_first, "after DEL");
    killed();
    limited.second("ADD");
    limited.second("CHECK");
    limited.second("DEL");
    limited.free_second();
    limited.chained.world().must_be(&with_first, "after ADD and DEL");
    limited.chained.must("DEL");
    assert_eq!(limited.ifbs(), "");
}

#[test]
fn parameters_that_are_read_only_are_told() {
    let chained = Chained::new(tuning_with_all());
    let node = &chained.site.node;
    for words in
        [&["--bind", "/proc/sys", "/proc/sys"][..], &["-o", "remount,bind,ro", "/proc/sys"]]
    {
        let mut mount = program("/bin/mount");
        mount.args(words);
        assert!(node.run(mount).status.success(), "mount {words:?}");
    }
    let status = chained.call("STATUS", &json!({"cniVersion": "1.1.0", "prevResult": null}));
    let error = chained.site.run(&status).expect_error(50);
    assert!(error.msg.contains("/proc/sys is mounted read-only"), "{}", error.msg);
    let before = chained.world();
    let error = chained.site.run(&chained.call("ADD", &json!({}))).expect_error(100);
    assert!(error.msg.contains("is /proc/sys read-only?"), "{}", error.msg);
    let mut after = chained.world();
    after.lines.retain(|line| !line.starts_with("file /run/cni/") || !line.contains("/ mode="));
    after.must_be(&before, "after a failed ADD");
    // Links are set by other means.
    let link = json!({"sysctl": null, "args": null});
    let _ = chained.site.run(&chained.call("ADD", &link)).ok();
    chained.must("DEL");
}

/// A file of the reference plugin does not tell its network, and another network's is none of ours.
#[test]
fn gc_leaves_the_files_that_are_not_of_its_network() {
    let chained = Chained::new(tuning_with_all());
    let (site, pod) = (&chained.site, &chained.pod);
    let folder = site.node.run_dir().join("cni/tuning");
    let files = || fs::read_dir(&folder).map_or(0, Iterator::count);
    let gc = |network: &str| {
        let keys = json!({"cniVersion": "1.1.0", "name": network, "prevResult": null,
            "cni.dev/valid-attachments": []});
        let gc = chained.call("GC", &keys).unset("CNI_CONTAINERID").unset("CNI_IFNAME");
        let _ = site.run(&gc.unset("CNI_NETNS")).ok();
        files()
    };
    let reference = Suite::reference();
    let _ = chained.call("ADD", &json!({})).container("theirs").run(&site.node, &reference).ok();
    chained.must("ADD");
    // What an ADD leaves that is killed before it has changed anything.
    fs::copy(folder.join("pod1_eth0.json"), folder.join("killed_eth0.json.draft")).unwrap();
    assert_eq!(gc("net1"), 3, "the interface is still there");
    pod.sh("ip link del eth0");
    assert_eq!(gc("net2"), 3);
    assert_eq!(gc("net1"), 1);
    assert!(folder.join("theirs_eth0.json").exists());
    chained.must("DEL");
}

/// The namespace is gone: its rules and routes as well, and nothing is made in its place.
#[test]
fn sbr_needs_no_namespace_to_be_deleted() {
    let chained = Chained::new(sbr_with_all());
    chained.must("ADD");
    let before = chained.world();
    let vanished = chained.site.node.home().join("vanished");
    for _ in 0..2 {
        let del = chained.call("DEL", &json!({})).netns(&vanished);
        let _ = chained.site.run(&del).ok();
        assert!(!vanished.exists());
        let del = chained.call("DEL", &json!({})).unset("CNI_NETNS");
        let _ = chained.site.run(&del).ok();
    }
    // What a namespace was mounted on stays behind as a file.
    fs::write(&vanished, "").unwrap();
    let _ = chained.site.run(&chained.call("DEL", &json!({})).netns(&vanished)).ok();
    fs::remove_file(&vanished).unwrap();
    chained.world().must_be(&before, "after DEL without the namespace");
}

/// Interfaces of one container that come at once, by either suite, get tables of their own.
#[test]
fn two_of_sbr_at_once_take_different_tables() {
    for second in [Suite::podwire(), Suite::reference()] {
        let chained = Chained::new(json!({"cniVersion": "1.0.0", "name": "net1", "type": "sbr"}));
        let (site, pod) = (&chained.site, &chained.pod);
        pod.sh(
            "ip link add net1 type bridge; ip link set net1 up; ip addr add 10.2.0.2/24 dev net1
            ip route add 10.8.0.0/16 via 10.2.0.1",
        );
        let ips = json!([{"address": "10.2.0.2/24", "gateway": "10.2.0.1"}]);
        let result = json!({"cniVersion": "1.0.0", "ips": ips});
        for round in 0..10 {
            let net1 = chained.call("ADD", &json!({"prevResult": result})).ifname("net1");
            let first = chained.call("ADD", &json!({})).start(&site.node, &site.podwire);
            let _ = net1.run(&site.node, &second).ok();
            let _ = first.finish().ok();
            let rules = pod.sh("ip rule show; ip -6 rule show");
            let tables =
                rules.lines().filter(|line| line.contains("from 10.") || line.contains("from fd"));
            let tables: BTreeSet<_> = tables.map(|line| line.rsplit("lookup ").next()).collect();
            assert_eq!(tables.len(), 3, "round {round}, with {}: {rules}", second.name);
            for (ifname, result) in [("eth0", &chained.conf["prevResult"]), ("net1", &result)] {
                let del = chained.call("DEL", &json!({"prevResult": result})).ifname(ifname);
                let _ = site.run(&del).ok();
            }
            // The networks that were moved.
            pod.sh("for it in eth0 net1; do ip link set $it down; ip link set $it up; done
                ip route replace 10.1.0.0/24 dev eth0; ip route replace 10.2.0.0/24 dev net1
                ip -6 addr replace fd00:1::7/64 dev eth0 nodad; ip -6 route replace fd00:1::/64 dev eth0");
        }
    }
}
