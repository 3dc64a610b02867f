//! CHECK tells what changed, and nothing else.

use serde_json::{Value, json};

use crate::common::{Site, bridge_with_all};

/// ADD, then `change` on the node, then CHECK with the result: its exit.
fn check_after(conf: Value, change: &str) -> bool {
    let site = Site::new(conf);
    let pod = site.node.pod("pod1");
    let result = site.add(&pod).ok();
    site.node.sh(change);
    let conf = site.conf_with(&json!({"prevResult": result}));
    let reply = site.run(&site.call("CHECK", &pod).conf(&conf));
    let _ = site.del(&pod).ok();
    reply.succeeded()
}

#[test]
fn a_bridge_that_is_no_gateway_may_follow_its_ports() {
    let level_two =
        json!({"cniVersion": "1.0.0", "name": "net1", "type": "bridge", "bridge": "br0"});
    assert!(check_after(level_two, "ip link set br0 address 02:00:00:00:00:99"));
}

#[test]
fn a_gateway_keeps_its_address() {
    assert!(check_after(bridge_with_all(), "true"));
    assert!(!check_after(bridge_with_all(), "ip link set br0 address 02:00:00:00:00:99"));
}
