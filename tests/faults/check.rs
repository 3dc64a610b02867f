//! CHECK tells what changed, and nothing else.

use lab::Reply;
use serde_json::{Value, json};

use crate::common::{Site, bridge_with_all, ptp_with_all};

/// Where somebody changes something.
#[derive(Clone, Copy)]
enum At {
    Node,
    Pod,
}

/// ADD, then `change`, then CHECK with the result of ADD.
fn check_after(conf: Value, at: At, change: &str) -> Reply {
    let site = Site::new(conf);
    let pod = site.node.pod("pod1");
    let result = site.add(&pod).ok();
    match at {
        At::Node => site.node.sh(change),
        At::Pod => pod.sh(change),
    };
    let conf = site.conf_with(&json!({"prevResult": result}));
    let reply = site.run(&site.call("CHECK", &pod).conf(&conf));
    let _ = site.del(&pod).ok();
    reply
}

/// The change is found, and the text of the error names it.
fn must_be_found(conf: Value, at: At, change: &str, text: &str) {
    let error = check_after(conf, at, change).expect_error(102);
    assert!(error.msg.contains(text), "{change}: {}", error.msg);
}

fn level_two() -> Value {
    json!({"cniVersion": "1.0.0", "name": "net1", "type": "bridge", "bridge": "br0"})
}

#[test]
fn a_bridge_that_is_no_gateway_may_follow_its_ports() {
    let reply = check_after(level_two(), At::Node, "ip link set br0 address 02:00:00:00:00:99");
    assert!(reply.succeeded(), "{reply}");
}

#[test]
fn a_link_without_addresses_is_up_unless_it_was_asked_to_be_down() {
    must_be_found(level_two(), At::Pod, "ip link set eth0 down", "\"eth0\" is down");
    let mut down = level_two();
    down["disableContainerInterface"] = json!(true);
    let reply = check_after(down, At::Pod, "true");
    assert!(reply.succeeded(), "{reply}");
}

#[test]
fn a_gateway_keeps_its_address() {
    let change = "ip link set br0 address 02:00:00:00:00:99";
    must_be_found(bridge_with_all(), At::Node, change, "02:00:00:00:00:99");
}

#[test]
fn the_hosts_end_is_a_port_of_the_bridge() {
    let port = "$(basename -a /proc/sys/net/ipv4/conf/veth*)";
    for change in [format!("ip link set {port} nomaster"), "ip link del br0".to_owned()] {
        must_be_found(bridge_with_all(), At::Node, &change, "br0");
    }
}

#[test]
fn what_is_gone_from_the_container_is_found() {
    for (change, text) in [
        ("ip link set eth0 down", "\"eth0\" is down"),
        ("ip link set eth0 down; ip link set eth0 name eth9", "link \"eth0\""),
        ("ip link set eth0 address 02:00:00:00:00:99", "02:00:00:00:00:99"),
        ("ip -4 addr flush dev eth0", "addr 10.1.0."),
        ("ip -6 addr flush dev eth0", "addr fd00:1::"),
        ("ip route del 10.1.0.0/16", "Route 10.1.0.0/16"),
        ("ip route del fd00:1::/64", "Route fd00:1::/64"),
        ("ip route del default", "Route 0.0.0.0/0"),
        ("ip -6 route del default", "Route ::/0"),
    ] {
        for conf in [bridge_with_all(), ptp_with_all()] {
            must_be_found(conf, At::Pod, change, text);
        }
    }
}

/// A later plugin of the chain may add to the interface, or move its routes to a table of its own.
#[test]
fn what_was_added_or_moved_is_no_change() {
    for change in [
        "true",
        "ip addr add 10.77.0.1/24 dev eth0; ip route add 10.78.0.0/16 dev eth0",
        "ip route show default | while read -r route; do ip route add $route table 100; done
         ip route del default",
    ] {
        for conf in [bridge_with_all(), ptp_with_all()] {
            let reply = check_after(conf, At::Pod, change);
            assert!(reply.succeeded(), "{change}: {reply}");
        }
    }
}
