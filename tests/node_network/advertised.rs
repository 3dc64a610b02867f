//! Nodes that know their router of IPv6 by its advertisements.

use std::thread::sleep;
use std::time::{Duration, Instant};

use lab::{Node, slowed};

use crate::nodes::Nodes;

const PATIENCE: Duration = Duration::from_secs(20);

fn has_router(node: &Node) -> bool {
    node.sh("ip -6 route show default").contains("proto ra")
}

fn wait_for_router(nodes: &Nodes, is_waiting: impl Fn() -> bool) {
    let started = Instant::now();
    while is_waiting() {
        assert!(started.elapsed() < slowed(PATIENCE), "no advertisement is taken");
        nodes.switch.advertise();
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_node_that_forwards_keeps_its_router_and_hears_of_it() {
    let mut nodes = Nodes::new(2);
    wait_for_router(&nodes, || nodes.all.iter().any(|it| !has_router(&it.node)));
    nodes.settle();
    let [with, without] = [0, 1].map(|it| &nodes.all[it].node);
    assert_eq!(with.sysctl("net/ipv6/conf/all/forwarding").unwrap(), "1");
    assert!(has_router(with) && has_router(without));
    with.sh("ip -6 route del default");
    wait_for_router(&nodes, || !has_router(with));
    // That the test can fail: as it is when somebody just turns forwarding on.
    without.set_sysctl("net/ipv6/conf/all/forwarding", "0");
    without.set_sysctl("net/ipv6/conf/eth0/accept_ra", "1");
    without.set_sysctl("net/ipv6/conf/all/forwarding", "1");
    without.sh("ip -6 route del default 2>/dev/null || :");
    for _ in 0..10 {
        nodes.switch.advertise();
        sleep(Duration::from_millis(50));
    }
    assert!(!has_router(without));
    // That was somebody else's decision.
    nodes.settle();
    assert_eq!(nodes.all[1].node.sysctl("net/ipv6/conf/eth0/accept_ra").unwrap(), "1");
    for host in &nodes.all {
        host.node.sh("ip -6 route del default 2>/dev/null || :");
    }
    nodes.clean_up();
}
