//! policyd is away, late, or dies in between.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use lab::probe::{must_not_reach, must_reach};
use lab::{Pod, Reply, has_iptables, slowed};
use serde_json::{Value, json};

use crate::agent::Manner;
use crate::site::{Site, addresses, ptp};

/// A pod that started without policyd: closed, remembered, and told so.
fn must_be_kept_back(site: &Site, pod: &Pod, reply: &Reply, wired: &Value) {
    assert_eq!(reply.ok(), *wired);
    assert!(reply.stderr.contains("the gate keeps the pod's traffic back"), "{reply}");
    assert_eq!(site.files(), [pod.name()]);
    assert_eq!(site.let_pass(), BTreeSet::new());
    assert_eq!(site.closed(), site.interfaces(&[pod]));
    assert!(site.check(pod, wired).succeeded());
}

#[test]
fn the_gate_keeps_a_pod_back_until_policyd_is_there() {
    let site = Site::new(ptp());
    let [one, two] = ["one", "two"].map(|name| site.node.pod(name));
    let agent = site.agent(Manner::Works);
    let first = site.add(&one).ok();
    drop(agent);
    let before = site.world(&[&one, &two]);
    let wired = site.wire(&two);
    let reply = site.protect(&two, &wired);
    assert_eq!(reply.ok(), wired);
    assert!(reply.stderr.contains("is it running?"), "{reply}");
    assert_eq!(site.let_pass(), addresses(&first));
    assert_eq!(site.closed(), site.interfaces(&[&two]));
    for address in addresses(&first) {
        must_not_reach(&two, &one, &address);
    }
    // The same again changes nothing.
    let added = site.world(&[&one, &two]);
    assert_eq!(site.protect(&two, &wired).ok(), wired);
    assert_eq!(site.protect(&one, &first).ok(), first);
    site.world(&[&one, &two]).must_be(&added, "after a second ADD");
    let agent = site.agent(Manner::Works);
    for address in addresses(&first) {
        must_reach(&two, &one, &address);
    }
    assert!(site.del(&two, &wired).succeeded());
    drop(agent);
    site.world(&[&one, &two]).must_be(&before, "after DEL");
}

#[test]
fn without_a_gate_no_pod_starts() {
    let site = Site::without_gate(ptp());
    let pod = site.node.pod("pod1");
    let wired = site.wire(&pod);
    let before = site.world(&[&pod]);
    let text = site.protect(&pod, &wired).expect_error(11).msg;
    assert!(text.contains("no gate"), "{text}");
    // Sets that no rule looks into are no gate either, nor are maps.
    if has_iptables() {
        site.node.sh("ipset create podwire-4-programmed hash:ip; ipset create podwire-6-programmed hash:ip family inet6");
    }
    site.node.sh("nft add table inet podwire
        nft add map inet podwire from-4 '{ type ipv4_addr : verdict; }'
        nft add map inet podwire from-6 '{ type ipv6_addr : verdict; }'");
    site.protect(&pod, &wired).expect_error(11);
    site.node.sh("nft delete table inet podwire");
    if has_iptables() {
        site.node.sh("ipset destroy");
    }
    site.world(&[&pod]).must_be(&before, "after refused ADDs");
    site.raise_gate();
    assert!(site.protect(&pod, &wired).succeeded());
    assert_eq!(site.files(), ["pod1"]);
}

#[test]
fn retry_has_the_runtime_try_again() {
    let site = Site::new(ptp()).with(&json!({"onAgentDown": "retry", "timeout": 300}));
    let pod = site.node.pod("pod1");
    let wired = site.wire(&pod);
    let before = site.world(&[&pod]);
    let text = site.protect(&pod, &wired).expect_error(11).msg;
    assert!(text.contains("is it running?"), "{text}");
    site.world(&[&pod]).must_be(&before, "after a refused ADD");
    for (manner, why) in [
        (Manner::Hangs, "within 300 ms"),
        (Manner::Fails, "the kernel refuses"),
        (Manner::Dies, "is it running?"),
    ] {
        let _agent = site.agent(manner);
        let text = site.protect(&pod, &wired).expect_error(11).msg;
        assert!(text.contains(why), "{text}");
        assert!(site.unprotect(&pod, &wired).succeeded());
    }
    site.world(&[&pod]).must_be(&before, "after failed ADDs and their DELs");
}

#[test]
fn a_policyd_that_is_late_or_dies_leaves_the_pod_to_the_gate() {
    for manner in [Manner::Hangs, Manner::Fails, Manner::Dies] {
        let site = Site::new(ptp()).with(&json!({"timeout": 300}));
        let pod = site.node.pod("pod1");
        let before = site.world(&[&pod]);
        let wired = site.wire(&pod);
        let agent = site.agent(manner);
        let reply = site.protect(&pod, &wired);
        if manner == Manner::Dies {
            agent.wait();
        } else {
            drop(agent);
        }
        must_be_kept_back(&site, &pod, &reply, &wired);
        // Whoever comes next finds it.
        let agent = site.agent(Manner::Works);
        assert_eq!((site.let_pass(), site.closed()), (addresses(&wired), BTreeSet::new()));
        drop(agent);
        // And one that is late does not keep it from going.
        let agent = site.agent(manner);
        let reply = site.unprotect(&pod, &wired);
        assert!(reply.succeeded(), "{reply}");
        assert_eq!((site.files(), site.let_pass()), (vec![], BTreeSet::new()), "{manner:?}");
        drop(agent);
        assert!(site.run(&site.main_call("DEL", &pod)).succeeded());
        // Its rules go when one comes that works.
        drop(site.agent(Manner::Works));
        site.world(&[&pod]).must_be(&before, "after DEL");
    }
}

#[test]
fn without_policyd_an_address_is_taken_out_before_it_is_free() {
    let site = Site::new(ptp());
    let pods = ["one", "two"].map(|name| site.node.pod(name));
    let agent = site.agent(Manner::Works);
    let results = [site.add(&pods[0]).ok(), site.add(&pods[1]).ok()];
    drop(agent);
    let reply = site.unprotect(&pods[0], &results[0]);
    assert!(reply.succeeded() && reply.stderr.contains("without policyd"), "{reply}");
    assert_eq!(site.let_pass(), addresses(&results[1]));
    assert_eq!(site.files(), ["two"]);
    // Another interface of the container, and one that is not attached any more, change nothing.
    for call in [
        site.policy_call("DEL", &pods[1], &results[1]).ifname("net1"),
        site.policy_call("DEL", &pods[0], &results[0]),
    ] {
        assert!(site.run(&call).succeeded());
        assert_eq!(site.let_pass(), addresses(&results[1]));
    }
    site.check(&pods[0], &results[0]).expect_error(102);
    assert!(site.check(&pods[1], &results[1]).succeeded());
}

/// An address whose former owner nobody took away is closed when it gets a new one.
#[test]
fn an_address_that_is_given_again_is_closed() {
    let site = Site::new(ptp());
    let [one, two] = ["one", "two"].map(|name| site.node.pod(name));
    let agent = site.agent(Manner::Works);
    let first = site.add(&one).ok();
    drop(agent);
    assert_eq!(site.let_pass(), addresses(&first));
    // The runtime lost the first, and with it its lease.
    assert!(site.run(&site.main_call("DEL", &one)).succeeded());
    let mut again = site.wire(&two);
    again["ips"] = first["ips"].clone();
    assert!(site.protect(&two, &again).succeeded());
    assert_eq!((site.let_pass(), site.closed()), (BTreeSet::new(), site.interfaces(&[&two])));
    // What is left of the first is not taken for the second.
    let _agent = site.agent(Manner::Works);
    assert!(site.protect(&two, &again).succeeded());
    assert_eq!((site.files(), site.let_pass()), (vec!["two".into()], addresses(&first)));
}

/// It starts between the plugin's first question and its file: neither misses the other.
#[test]
fn a_policyd_that_starts_meanwhile_misses_nothing() {
    let site = Site::new(ptp());
    for round in 0..10 {
        let pod = site.node.pod(&format!("pod{round}"));
        let wired = site.wire(&pod);
        let call = site.policy_call("ADD", &pod, &wired);
        let agent = thread::scope(|scope| {
            let adding = scope.spawn(|| site.run(&call));
            thread::sleep(Duration::from_millis(round));
            let agent = site.agent(Manner::Works);
            assert_eq!(adding.join().unwrap().ok(), wired);
            agent
        });
        assert_eq!((site.let_pass(), site.closed()), (addresses(&wired), BTreeSet::new()));
        drop(agent);
        let deleting = site.policy_call("DEL", &pod, &wired);
        let agent = thread::scope(|scope| {
            let deleting = scope.spawn(|| site.run(&deleting));
            thread::sleep(Duration::from_millis(round));
            let agent = site.agent(Manner::Works);
            assert!(deleting.join().unwrap().succeeded());
            agent
        });
        assert_eq!((site.files(), site.let_pass()), (vec![], BTreeSet::new()));
        drop(agent);
        assert!(site.run(&site.main_call("DEL", &pod)).succeeded());
    }
}

/// What the plugin did by itself beside a policyd that runs, policyd finds.
#[test]
fn a_policyd_that_was_too_late_finds_what_was_done() {
    let site = Site::new(ptp());
    let pod = site.node.pod("pod1");
    let wired = site.wire(&pod);
    assert!(site.protect(&pod, &wired).succeeded());
    let written = site.file(&pod);
    assert!(site.unprotect(&pod, &wired).succeeded());
    let _agent = site.agent(Manner::Works);
    let files = attachment::Files::new(&crate::agent::places(&site.node).files);
    files.put(&written).unwrap();
    let started = Instant::now();
    while site.let_pass() != addresses(&wired) {
        assert!(
            started.elapsed() < slowed(Duration::from_secs(40)),
            "policyd does not look at the files"
        );
        thread::sleep(Duration::from_millis(100));
    }
    assert!(site.del(&pod, &wired).succeeded());
    assert_eq!((site.files(), site.let_pass()), (vec![], BTreeSet::new()));
}
