//! Plugins that stand behind the one that makes the interface: what they did is undone, whenever and
//! however they end.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use lab::{Call, Pod};
use serde_json::{Value, json};

use crate::common::{Site, bridge_with_all, tuning_with_all};
use crate::kills::Dice;

const ROUNDS: usize = 100;

/// A pod of a bridge, and a plugin behind that.
struct Chained {
    site: Site,
    pod: Pod,
    conf: Value,
}

impl Chained {
    fn new(mut conf: Value) -> Self {
        let site = Site::new(bridge_with_all());
        let pod = site.node.pod("pod1");
        conf["prevResult"] = site.add(&pod).ok();
        Self { site, pod, conf }
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

    fn duration_of_an_add(&self) -> Duration {
        let started = Instant::now();
        self.must("ADD");
        let taken = started.elapsed();
        self.must("DEL");
        taken
    }

    /// Kills ADDs at random moments; the DEL after each leaves what was there before.
    fn kill_and_delete(&self) {
        self.must("ADD");
        self.must("DEL");
        let before = self.world();
        let mut window = (0..5).map(|_| self.duration_of_an_add()).min().unwrap();
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
    Chained::new(conf).kill_and_delete();
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
    let keys = json!({"sysctl": {"net.ipv4.conf.IFNAME.no_such_thing": "1"}});
    let error = chained.site.run(&chained.call("ADD", &keys)).expect_error(100);
    assert!(error.msg.contains("conf/eth0/no_such_thing"), "{}", error.msg);
    let mut after = chained.world();
    after.lines.retain(|line| !line.starts_with("file /run/cni/"));
    after.must_be(&before, "after a failed ADD");
    assert_eq!(fs::read_dir(chained.site.node.run_dir().join("cni/tuning")).unwrap().count(), 0);
}
