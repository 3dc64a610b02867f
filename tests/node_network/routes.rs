//! Routes between nodes, with real traffic over them.

use lab::has_iptables;
use lab::probe::must_not_reach;
use policyd::dataplane::Programs;
use policyd::node_network::conflist::Main;
use policyd::node_network::{self, Defect};
use runner::OsRunner;

use crate::nodes::{Nodes, are_apart, are_joined, member};

#[test]
fn pods_of_three_nodes_reach_each_other_and_those_of_a_node_that_went_do_not() {
    let mut nodes = Nodes::new(3);
    nodes.settle();
    let pods: Vec<_> = nodes.all.iter().map(|it| it.pod(&format!("pod-{}", it.name))).collect();
    are_joined(&pods[0], &pods[1]);
    are_joined(&pods[1], &pods[2]);
    are_joined(&pods[2], &pods[0]);
    // The node itself reaches the pods of others.
    for address in &pods[2].1 {
        lab::probe::must_reach(&nodes.all[0].node, &pods[2].0, &address.to_string());
    }
    nodes.members.remove("node-3");
    let reports: Vec<_> = {
        let members = nodes.members.clone();
        nodes.all[..2].iter_mut().map(|it| it.reconcile(&members, true)).collect()
    };
    for report in reports {
        assert_eq!((report.state(), report.changed_routes), (Ok(()), (0, 2)));
    }
    are_apart(&pods[0], &pods[2]);
    are_joined(&pods[0], &pods[1]);
    assert!(!nodes.all[0].routes(true).contains("192.0.2.3"));
    for (host, (pod, _)) in nodes.all.iter().zip(&pods) {
        host.remove(pod);
    }
    nodes.clean_up();
}

#[test]
fn pods_on_bridges_of_two_nodes_reach_each_other() {
    let mut nodes = Nodes::with(2, Main::Bridge);
    nodes.settle();
    let pods: Vec<_> = nodes.all.iter().map(|it| it.pod(&format!("pod-{}", it.name))).collect();
    are_joined(&pods[0], &pods[1]);
    // With the bridge's own route there, nothing is to be done.
    nodes.settle();
    for (host, (pod, _)) in nodes.all.iter().zip(&pods) {
        host.remove(pod);
        host.node.sh("ip link del podwire0");
    }
    nodes.clean_up();
}

#[test]
fn what_no_pod_has_is_refused_at_once_and_does_not_leave_the_node() {
    let mut nodes = Nodes::new(2);
    nodes.settle();
    let host = &nodes.all[0].node;
    host.sh("ip route add default via 192.0.2.2; ip -6 route add default via 2001:db8::2");
    for address in ["10.244.1.99", "fd00:1::99"] {
        let said = host.try_sh(&format!("ip route get {address}"));
        assert!(!said.status.success() && said.stderr.contains("No route to host"), "{said:?}");
    }
    let (pod, addresses) = nodes.all[0].pod("pod");
    assert!(host.sh(&format!("ip route get {}", addresses[0])).contains("dev veth"));
    nodes.all[0].remove(&pod);
    host.sh("ip route del default; ip -6 route del default");
    nodes.clean_up();
}

#[test]
fn stale_routes_of_an_earlier_run_go_at_the_start_and_those_of_others_stay() {
    let mut nodes = Nodes::new(2);
    let host = &nodes.all[0];
    // Of a node that went while nobody looked, of one that has another address now, and odd ones.
    host.node.sh("ip route add 10.244.7.0/24 via 192.0.2.7 proto 112 metric 112
         ip route add 10.244.2.0/24 via 192.0.2.8 proto 112 metric 112
         ip route add unreachable 10.244.9.0/24 proto 112
         ip route add 10.244.8.0/24 dev eth0 proto 112 table 100
         ip -6 route add fd00:7::/64 via 2001:db8::7 proto 112
         ip -6 route add fd00:2::/64 via 2001:db8::8 proto 112 metric 112");
    host.node.sh("ip route add 10.244.7.0/24 via 192.0.2.7 proto static metric 500
         ip route add 10.244.2.0/24 via 192.0.2.2 metric 7
         ip route add 10.99.0.0/16 via 192.0.2.2 proto bird
         ip route add blackhole 10.98.0.0/16 proto 80
         ip -6 route add fd00:2::/64 via 2001:db8::2 metric 1024
         ip -6 route add fd99::/64 via 2001:db8::2 proto static");
    let foreign = host.routes(false);
    nodes.settle();
    let host = &nodes.all[0];
    assert_eq!(host.routes(false), foreign);
    let ours = host.routes(true);
    for stale in ["192.0.2.7", "192.0.2.8", "10.244.9.0", "2001:db8::7", "2001:db8::8"] {
        assert!(!ours.contains(stale), "{stale} in {ours}");
    }
    assert_eq!(host.node.sh("ip route show table 100"), "");
    let programs = &mut Programs::new(OsRunner, "");
    let was_there = host.node.enter(|| node_network::remove_left_over(programs)).unwrap();
    assert!(was_there);
    assert_eq!((host.routes(true), host.routes(false)), (String::new(), foreign));
    let was_there = host.node.enter(|| node_network::remove_left_over(programs)).unwrap();
    assert!(!was_there);
}

#[test]
fn a_node_elsewhere_is_told_and_has_no_route_until_it_comes_here() {
    let mut nodes = Nodes::new(2);
    let near = member(2);
    let far = policyd::node_network::Member {
        addresses: vec!["203.0.113.2".parse().unwrap(), "2001:db8:9::2".parse().unwrap()],
        ..near.clone()
    };
    nodes.members.insert(far.name.clone(), far);
    let report = &nodes.reconcile()[0];
    assert_eq!((report.state(), report.unreachable_nodes(), report.routes), (Ok(()), 1, 2));
    assert!(report.defects.iter().all(|it| matches!(it, Defect::NotOnLink { .. })));
    assert!(!nodes.all[0].routes(true).contains("10.244.2.0"));
    nodes.members.insert(near.name.clone(), near);
    nodes.settle();
    let pods: Vec<_> = nodes.all.iter().map(|it| it.pod(&format!("pod-{}", it.name))).collect();
    are_joined(&pods[0], &pods[1]);
    for (host, (pod, _)) in nodes.all.iter().zip(&pods) {
        host.remove(pod);
    }
    nodes.clean_up();
}

#[test]
fn a_node_with_another_address_is_found_there_and_one_with_other_ranges_too() {
    let mut nodes = Nodes::new(2);
    nodes.settle();
    nodes.all[1]
        .node
        .sh("ip addr add 192.0.2.77/24 dev eth0; ip -6 addr add 2001:db8::77/64 dev eth0 nodad");
    let mut moved = member(2);
    moved.addresses = ["192.0.2.77", "2001:db8::77"].map(|it| it.parse().unwrap()).into();
    nodes.members.insert(moved.name.clone(), moved.clone());
    nodes.settle();
    let ours = nodes.all[0].routes(true);
    assert!(ours.contains("via 192.0.2.77") && !ours.contains("via 192.0.2.2 "), "{ours}");
    assert!(ours.contains("via 2001:db8::77") && !ours.contains("via 2001:db8::2 "), "{ours}");
    moved.pod_ranges = vec!["10.244.200.0/24".parse().unwrap()];
    nodes.members.insert(moved.name.clone(), moved);
    nodes.settle();
    let (ours, own) = (nodes.all[0].routes(true), nodes.all[1].routes(true));
    assert!(ours.contains("10.244.200.0/24 via") && !ours.contains("10.244.2.0"), "{ours}");
    assert!(own.contains("unreachable 10.244.200.0/24") && !own.contains("10.244.2.0"), "{own}");
    if has_iptables() {
        let accepted = nodes.all[1].node.sh("iptables-save -t filter");
        let is_new = accepted.contains("10.244.200.0/24");
        assert!(is_new && !accepted.contains("10.244.2.0"), "{accepted}");
    }
    assert_eq!(
        nodes.all[1].list()["plugins"][0]["ipam"]["ranges"][0][0]["subnet"],
        "10.244.200.0/24"
    );
    // New pods have the new range.
    let pods = [nodes.all[0].pod("one"), nodes.all[1].pod("two")];
    assert_eq!(pods[1].1.len(), 1);
    lab::probe::must_reach(&pods[0].0, &pods[1].0, &pods[1].1[0].to_string());
    must_not_reach(&pods[0].0, &pods[1].0, "10.244.2.2");
    for (host, (pod, _)) in nodes.all.iter().zip(&pods) {
        host.remove(pod);
    }
}
