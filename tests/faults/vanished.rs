//! Namespaces that are gone, or go.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use lab::Pod;

use crate::common::{Site, bridge_with_all, ptp_with_all};

fn sites() -> [Site; 2] {
    [Site::new(bridge_with_all()), Site::new(ptp_with_all())]
}

/// The veth of a namespace goes with it, some time after its last descriptor.
fn wait_until_gone(site: &Site) {
    for _ in 0..1000 {
        if site.node.sh("ip -o link show type veth").is_empty() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("the veth of a vanished namespace stays");
}

#[test]
fn del_twice_succeeds_twice() {
    for site in sites() {
        let pod = site.node.pod("pod1");
        let before = site.world(&[&pod]);
        let _ = site.add(&pod).ok();
        for _ in 0..2 {
            let _ = site.del(&pod).ok();
            site.world(&[&pod]).must_be(&before, "after DEL");
        }
    }
}

/// A runtime that lost the namespace leaves the variable out (nerdctl, ctr).
#[test]
fn del_without_a_namespace_removes_all_that_is_on_the_node() {
    for site in sites() {
        for value in [None, Some("")] {
            let pod = site.node.pod("pod1");
            let before = site.world(&[]);
            let _ = site.add(&pod).ok();
            drop(pod);
            wait_until_gone(&site);
            let call = lab::Call::new(site.plugin(), "DEL").container("pod1").conf(&site.conf);
            let call = value.map_or(call.clone().unset("CNI_NETNS"), |v| call.env("CNI_NETNS", v));
            let _ = site.run(&call).ok();
            site.world(&[]).must_be(&before, &format!("after DEL with CNI_NETNS {value:?}"));
        }
    }
}

#[test]
fn del_of_a_vanished_namespace_removes_all_that_is_on_the_node() {
    for site in sites() {
        let pod = site.node.pod("pod1");
        let before = site.world(&[]);
        let link = pod.link_in(&site.node);
        let _ = site.run(&site.call("ADD", &pod).netns(&link)).ok();
        fs::remove_file(&link).unwrap();
        drop(pod);
        wait_until_gone(&site);
        let call =
            lab::Call::new(site.plugin(), "DEL").container("pod1").netns(&link).conf(&site.conf);
        for _ in 0..2 {
            let _ = site.run(&call).ok();
            site.world(&[]).must_be(&before, "after DEL");
        }
    }
}

/// The container's processes may have gone while the veth is there still: DEL by name alone.
#[test]
fn del_without_a_namespace_while_the_pod_lives_removes_lease_and_rules() {
    let site = Site::new(bridge_with_all());
    let pod = site.node.pod("pod1");
    let _ = site.add(&pod).ok();
    let _ = site.run(&site.call("DEL", &pod).unset("CNI_NETNS")).ok();
    let world = site.world(&[&pod]);
    let left = |what: &str| world.lines.iter().any(|line| line.contains(what));
    assert!(!left("CNI-"), "masquerade is left:\n{}", world.lines.join("\n"));
    assert!(!left("file net1/10."), "a lease is left:\n{}", world.lines.join("\n"));
    let _ = site.del(&pod).ok();
}

/// The path vanishes at some moment of an ADD; whichever it is, ADD or DEL cleans up.
#[test]
fn a_namespace_that_vanishes_half_way_leaves_nothing() {
    for site in sites() {
        for round in 0..40_u64 {
            let pod = site.node.pod("pod1");
            let before = site.world(&[]);
            let link = pod.link_in(&site.node);
            let add = site.call("ADD", &pod).netns(&link).start(&site.node, &site.podwire);
            thread::sleep(Duration::from_micros(100 * round));
            fs::remove_file(&link).unwrap();
            drop(pod);
            let added = add.finish();
            let del = lab::Call::new(site.plugin(), "DEL")
                .container("pod1")
                .netns(&link)
                .conf(&site.conf);
            let deleted = site.run(&del);
            assert!(deleted.succeeded(), "round {round}: {deleted}");
            wait_until_gone(&site);
            site.world(&[]).must_be(&before, &format!("round {round}, after ADD: {added}"));
        }
    }
}

/// The path of a process whose id was reused can lead to the node itself.
#[test]
fn the_nodes_own_namespace_is_refused_before_anything_is_touched() {
    for site in sites() {
        let before = site.world(&[]);
        let own: PathBuf = site.node.path();
        for command in ["ADD", "DEL", "CHECK"] {
            let call = lab::Call::new(site.plugin(), command).netns(&own).conf(&site.conf);
            let reply = site.run(&call);
            assert_eq!(reply.documents().len(), 1, "one document: {reply}");
            reply.expect_error(8);
            site.world(&[]).must_be(&before, &format!("after {command}"));
        }
    }
    let site = Site::new(bridge_with_all());
    let before = site.node.sh("ip -o link show lo");
    lab::Call::new("loopback", "DEL")
        .netns(&site.node.path())
        .conf(&site.conf)
        .run(&site.node, &site.podwire)
        .expect_error(8);
    assert_eq!(site.node.sh("ip -o link show lo"), before, "the node's lo went down");
}

/// Two pods of one node, of which one loses its namespace: nothing of the other may go.
#[test]
fn the_neighbour_is_not_touched() {
    for site in sites() {
        let (stays, goes): (Pod, Pod) = (site.node.pod("stays"), site.node.pod("goes"));
        let _ = site.add(&stays).ok();
        let before = site.world(&[&stays]);
        let _ = site.add(&goes).ok();
        drop(goes);
        let call = lab::Call::new(site.plugin(), "DEL")
            .container("goes")
            .unset("CNI_NETNS")
            .conf(&site.conf);
        let _ = site.run(&call).ok();
        for _ in 0..1000 {
            if site.node.sh("ip -o link show type veth").lines().count() == 1 {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        site.world(&[&stays]).must_be(&before, "after DEL of the neighbour");
        let _ = site.del(&stays).ok();
    }
}
