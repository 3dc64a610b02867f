//! Locks that others hold.

use std::fs::{self, File};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::common::{Site, bridge_with_all};

/// host-local alone, so that nothing else can be what waits.
fn site() -> Site {
    Site::new(json!({"cniVersion": "1.0.0", "name": "net1", "type": "host-local",
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]]}}))
}

fn lock_of(site: &Site) -> File {
    let file = File::options().write(true).open(site.node.data().join("net1/lock")).unwrap();
    file.lock().unwrap();
    file
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
