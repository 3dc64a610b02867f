//! Many calls at once on one pool.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use lab::{Pod, Reply};

use crate::common::{Site, bridge_with_all, ptp_with_all};

const PODS: usize = 200;
/// As many as a node with a few runtimes' workers starts at once.
const AT_ONCE: usize = 40;

#[test]
fn two_hundred_pods_of_a_bridge() {
    add_and_delete_all(&Site::new(bridge_with_all()));
}

#[test]
fn two_hundred_routed_pods() {
    add_and_delete_all(&Site::new(ptp_with_all()));
}

fn add_and_delete_all(site: &Site) {
    let pods: Vec<Pod> = (0..PODS).map(|n| site.node.pod(&format!("pod{n}"))).collect();
    let before = site.world(&[]);
    let added = for_each(&pods, |pod| site.add(pod));
    let mut addresses = BTreeSet::new();
    for reply in &added {
        for ip in reply.ok()["ips"].as_array().expect("ips") {
            let address = ip["address"].as_str().expect("address").to_owned();
            assert!(addresses.insert(address.clone()), "{address} was given twice");
        }
    }
    assert_eq!(addresses.len(), 2 * PODS, "an address of each family for each pod");
    let veths = site.node.sh("ip -o link show type veth");
    assert_eq!(veths.lines().count(), PODS, "a veth for each pod");
    for reply in for_each(&pods, |pod| site.del(pod)) {
        assert!(reply.succeeded(), "{reply}");
    }
    site.world(&[]).must_be(&before, "after all have gone");
}

/// Runs a call for each pod, many at once.
fn for_each(pods: &[Pod], call: impl Fn(&Pod) -> Reply + Sync) -> Vec<Reply> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut replies = Vec::new();
        while let Some(pod) = pods.get(next.fetch_add(1, Ordering::Relaxed)) {
            replies.push(call(pod));
        }
        replies
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|t| t.join().expect("the calls return")).collect()
    })
}
