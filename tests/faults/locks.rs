//! Locks that others hold.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use lab::Call;
use serde_json::{Value, json};

use crate::common::{Site, bridge_with_all, ptp_with_all};

/// A lock below `/run`, and a time that is longer than one wait for it and shorter than two.
struct Lock {
    name: &'static str,
    one_wait: Duration,
}

/// podwire's own lock on iptables.
const OWN_LOCK: Lock = Lock { name: "podwire/iptables.lock", one_wait: Duration::from_secs(50) };
/// The lock of all programs that use the old tables.
const XTABLES_LOCK: Lock = Lock { name: "xtables.lock", one_wait: Duration::from_secs(18) };

/// host-local alone, so that nothing else can be what waits.
fn site() -> Site {
    Site::new(json!({"cniVersion": "1.0.0", "name": "net1", "type": "host-local",
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]]}}))
}

fn hold(lock: &Path) -> File {
    let file = File::options().write(true).create(true).truncate(false).open(lock).unwrap();
    file.lock().unwrap();
    file
}

fn lock_of(site: &Site) -> File {
    hold(&site.node.data().join("net1/lock"))
}

/// A bound that the runtime's own time-out does not reach; the harness kills what hangs.
#[test]
fn a_held_lock_is_an_error_that_says_try_again() {
    let site = site();
    let pod = site.node.pod("pod1");
    let before = site.world(&[]);
    let held = lock_of(&site);
    let error = site.add(&pod).expect_error(11);
    assert!(error.msg.contains("lock"), "{}", error.msg);
    drop(held);
    site.world(&[]).must_be(&before, "after an ADD that could not get the lock");
    let _ = site.add(&pod).ok();
    let _ = site.del(&pod).ok();
}

#[test]
fn a_lock_that_is_released_in_time_is_waited_for() {
    let site = site();
    let pod = site.node.pod("pod1");
    let held = lock_of(&site);
    let release = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        drop(held);
    });
    let _ = site.add(&pod).ok();
    release.join().unwrap();
    let _ = site.del(&pod).ok();
}

#[test]
fn a_held_lock_rolls_a_bridge_back() {
    let site = Site::new(bridge_with_all());
    let pod = site.node.pod("pod1");
    let before = site.world(&[&pod]);
    let held = lock_of(&site);
    site.add(&pod).expect_error(11);
    drop(held);
    site.world(&[&pod]).must_be(&before, "after an ADD that could not get the lock");
    let _ = site.del(&pod).ok();
}

/// STATUS is asked every few seconds: it takes no lock and changes nothing.
#[test]
fn status_takes_no_lock() {
    let mut site = Site::new(bridge_with_all());
    site.conf["cniVersion"] = json!("1.1.0");
    let pod = site.node.pod("pod1");
    let held = lock_of(&site);
    let before = site.world(&[&pod]);
    let _ = site.run(&site.call("STATUS", &pod)).ok();
    site.world(&[&pod]).must_be(&before, "after STATUS");
    drop(held);
    // An unusable data directory is what no ADD survives.
    let mut ipam = site.conf["ipam"].clone();
    let file = site.node.home().join("file");
    fs::write(&file, "").unwrap();
    ipam["dataDir"] = json!(file);
    let conf = site.conf_with(&json!({"ipam": ipam}));
    site.run(&site.call("STATUS", &pod).conf(&conf)).expect_error(50);
}

/// A call that must give up with code 11 while `lock` is held, and not wait for it again to undo
/// what it did.
fn must_give_up(site: &Site, call: &Call, lock: &Lock) {
    let held = hold(&site.node.run_dir().join(lock.name));
    let started = Instant::now();
    let error = site.run(call).expect_error(11);
    let waited = started.elapsed();
    assert!(waited < lock.one_wait, "{} was waited for for {waited:?}", lock.name);
    assert!(error.msg.contains("lock"), "{}", error.msg);
    drop(held);
}

fn add_must_give_up(conf: Value) {
    let site = Site::new(conf);
    let pod = site.node.pod("pod1");
    let before = site.world(&[&pod]);
    must_give_up(&site, &site.call("ADD", &pod), &OWN_LOCK);
    site.world(&[&pod]).must_be(&before, "after an ADD that could not get the lock");
    let _ = site.add(&pod).ok();
    let _ = site.del(&pod).ok();
}

/// What is not behind the lock is gone after the first DEL, and the rules after the second.
fn del_must_give_up(conf: Value) {
    let site = Site::new(conf);
    let pod = site.node.pod("pod1");
    let before = site.world(&[&pod]);
    let _ = site.add(&pod).ok();
    must_give_up(&site, &site.call("DEL", &pod), &OWN_LOCK);
    let left = site.world(&[&pod]).lines;
    let (rules, others): (Vec<_>, Vec<_>) =
        left.iter().filter(|line| !before.lines.contains(line)).partition(|l| l.contains("CNI-"));
    assert!(!rules.is_empty(), "rules cannot be removed without the lock");
    assert!(others.is_empty(), "DEL left {others:#?}");
    let _ = site.del(&pod).ok();
    site.world(&[&pod]).must_be(&before, "after a DEL that got the lock");
}

/// All at once, because each waits for half a minute.
#[test]
fn a_held_iptables_lock_is_waited_for_once() {
    thread::scope(|scope| {
        for conf in [bridge_with_all(), ptp_with_all()] {
            let add = conf.clone();
            scope.spawn(|| add_must_give_up(add));
            scope.spawn(|| del_must_give_up(conf));
        }
    });
}

/// A `PATH` on which iptables is the old tables', whose programs share a lock with all others.
fn legacy_iptables(dir: &Path) -> String {
    for name in ["iptables-restore", "iptables-save", "ip6tables-restore", "ip6tables-save"] {
        symlink("/usr/sbin/xtables-legacy-multi", dir.join(name)).unwrap();
    }
    dir.to_str().unwrap().to_owned()
}

fn legacy_must_give_up(conf: Value) {
    let site = Site::new(conf);
    let pod = site.node.pod("pod1");
    let path = legacy_iptables(site.node.home());
    let call = |command| site.call(command, &pod).env("PATH", &path);
    let _ = site.run(&call("ADD")).ok();
    let _ = site.run(&call("DEL")).ok();
    let before = site.world(&[&pod]);
    must_give_up(&site, &call("ADD"), &XTABLES_LOCK);
    site.world(&[&pod]).must_be(&before, "after an ADD that could not get the lock");
    let rules = site.node.sh("iptables-legacy-save -t nat; ip6tables-legacy-save -t nat");
    assert!(rules.contains("POSTROUTING") && !rules.contains("CNI-"), "{rules}");
}

#[test]
fn a_held_xtables_lock_is_an_error_that_says_try_again() {
    thread::scope(|scope| {
        for conf in [bridge_with_all(), ptp_with_all()] {
            scope.spawn(|| legacy_must_give_up(conf));
        }
    });
}
