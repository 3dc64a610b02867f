//! Pods' packets where others drop what is forwarded, and rules of others.

use std::time::Instant;

use lab::probe::must_not_reach;
use policyd::node_network::conflist::Main;
use runner::{Error, Output, Program, Runner};

use crate::nodes::{Nodes, are_apart, are_joined, keeper_by};

/// As Docker and ufw leave it, and as firewalld did.
const CLOSED: &str = "
for p in iptables ip6tables; do
    $p -N DOCKER-USER; $p -I FORWARD -j DOCKER-USER
    $p -P FORWARD DROP; $p -A FORWARD -j REJECT
done";
const OPENED: &str = "
for p in iptables ip6tables; do
    $p -P FORWARD ACCEPT; $p -F FORWARD; $p -X DOCKER-USER
done";

#[test]
fn pods_pass_where_forward_is_closed_and_others_and_denied_ones_do_not() {
    let mut nodes = Nodes::new(2);
    for host in &nodes.all {
        host.node.sh(CLOSED);
    }
    nodes.settle();
    let pods: Vec<_> = nodes.all.iter().map(|it| it.pod(&format!("pod-{}", it.name))).collect();
    are_joined(&pods[0], &pods[1]);
    // Others are as closed as before: not of the pods' ranges.
    let host = &nodes.all[0].node;
    let other = host.pod("other");
    host.sh(&format!("ip link add o0 type veth peer name eth0 netns {}; ip link set o0 up; ip addr add 198.51.100.1/24 dev o0", other.path().display()));
    other.sh("ip link set eth0 up; ip addr add 198.51.100.2/24 dev eth0; ip route add default via 198.51.100.1");
    nodes.all[1].node.sh("ip route add 198.51.100.0/24 via 192.0.2.1");
    must_not_reach(&other, &nodes.all[1].node, "192.0.2.2");
    host.sh("iptables -P FORWARD ACCEPT; iptables -D FORWARD -j REJECT");
    lab::probe::must_reach(&other, &nodes.all[1].node, "192.0.2.2");
    // What table mangle drops, as policyd does, is not opened.
    for (program, address) in ["iptables", "ip6tables"].iter().zip(&pods[0].1) {
        host.sh(&format!("{program} -t mangle -A FORWARD -d {address} -j DROP"));
    }
    are_apart(&pods[1], &pods[0]);
    for program in ["iptables", "ip6tables"] {
        host.sh(&format!("{program} -t mangle -F FORWARD"));
    }
    for (host, (pod, _)) in nodes.all.iter().zip(&pods) {
        host.remove(pod);
        host.node.sh(OPENED);
    }
    nodes.all[0].node.sh("ip link del o0");
    nodes.all[1].node.sh("ip route del 198.51.100.0/24");
    nodes.clean_up();
}

#[test]
fn rules_are_repaired_and_those_of_others_stay() {
    let mut nodes = Nodes::new(1);
    nodes.all[0].node.sh(CLOSED);
    nodes.settle();
    let members = nodes.members.clone();
    let host = &mut nodes.all[0];
    let saved = |host: &crate::nodes::Host| {
        let lines = host.node.sh("iptables-save -t filter; ip6tables-save -t filter");
        let lines = lines.lines().filter(|it| it.starts_with(['-', ':']));
        lines.map(|it| it.split(" [").next().unwrap().to_owned()).collect::<Vec<_>>().join("\n")
    };
    let good = saved(host);
    for damage in [
        "iptables -F PODWIRE-ACCEPT",
        "ip6tables -D FORWARD 1",
        "iptables -A PODWIRE-ACCEPT -j DROP",
        "iptables -I PODWIRE-ACCEPT -j RETURN",
        "iptables -I INPUT -j PODWIRE-ACCEPT",
        "ip6tables -F; ip6tables -X; ip6tables -N DOCKER-USER; ip6tables -A FORWARD -j DOCKER-USER; ip6tables -A FORWARD -j REJECT",
    ] {
        host.node.sh(damage);
        assert_ne!(saved(host), good, "{damage}");
        host.keeper.as_mut().unwrap().suspect_rules();
        let report = host.reconcile(&members, true);
        assert!(report.repairs.rules, "{damage}");
        assert_eq!(saved(host), good, "{damage}");
        host.keeper.as_mut().unwrap().suspect_rules();
        assert!(!host.reconcile(&members, true).repairs.rules, "{damage}");
    }
    // One who wants to be first may be.
    host.node.sh("iptables -I FORWARD -i nobody -j DROP");
    host.keeper.as_mut().unwrap().suspect_rules();
    assert!(!host.reconcile(&members, true).repairs.rules);
    host.node.sh(OPENED);
    nodes.clean_up();
}

/// As in an image that has none.
struct NoPrograms;

impl Runner for NoPrograms {
    fn run(&mut self, program: &Program<'_>) -> Result<Output, Error> {
        Err(Error::NotFound(program.file.clone()))
    }
}

#[test]
fn without_programs_it_says_so_where_forward_is_closed_and_only_there() {
    let nodes = Nodes::new(1);
    let host = &nodes.all[0];
    let mut keeper = keeper_by(NoPrograms, &host.node, &host.name, Main::Ptp);
    let mut state = || {
        keeper.suspect_rules();
        let look = || keeper.reconcile(&nodes.members, true, Instant::now());
        host.node.enter(look).state().map_err(|it| format!("{it:?}"))
    };
    assert_eq!(state(), Ok(()));
    for (program, family) in [("iptables", "ip"), ("ip6tables", "ip6")] {
        // As the program makes it in nf_tables.
        let chain = "'{ type filter hook forward priority 0; policy drop; }'";
        host.node.sh(&format!(
            "nft add table {family} filter; nft add chain {family} filter FORWARD {chain}"
        ));
        let told = state().unwrap_err();
        assert!(told.contains(&format!("{program}-save")), "{told}");
        host.node.sh(&format!("nft chain {family} filter FORWARD '{{ policy accept; }}'"));
        assert_eq!(state(), Ok(()));
        host.node.sh(&format!("nft delete table {family} filter"));
    }
    nodes.clean_up();
}
