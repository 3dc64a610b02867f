//! The world after ADD, for people to read: snapshots that were looked through by hand. After DEL it
//! is as before.

use lab::{Call, Node, Suite, World};
use serde_json::{Value, json};

/// Adds one pod, compares the world with the snapshot, deletes the pod, compares with before.
fn shows(name: &str, mut conf: Value) {
    let node = Node::quick();
    let podwire = Suite::podwire();
    conf["cniVersion"] = json!("1.1.0");
    conf["name"] = json!("net1");
    if conf["ipam"]["type"] == "host-local" {
        conf["ipam"]["dataDir"] = json!(node.data());
    }
    let plugin = conf["type"].as_str().expect("a type").to_owned();
    let pod = node.pod("pod1");
    let call = |command: &str, container: &str| {
        let call = Call::new(&plugin, command).container(container).netns(&pod.path());
        call.conf(&conf).run(&node, &podwire).ok()
    };
    // What stays by design is there before.
    call("ADD", "warm-up");
    call("DEL", "warm-up");
    let before = between_pods(&node, &pod);
    let result = call("ADD", "pod1");
    let world = World::of(&node, &[&pod]);
    let result = world.mask.apply(&format!("{result:#}"));
    let story = format!("{}\n{result}\n", world.brief());
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, story);
    });
    call("DEL", "pod1");
    between_pods(&node, &pod).must_be(&before, "after DEL");
}

/// Without the carrier of the bridge, which follows its ports, and host-local's own files.
fn between_pods(node: &Node, pod: &lab::Pod) -> World {
    let mut world = World::of(node, &[pod]);
    world.lines.retain(|line| {
        let carrier = ["flags=", "operstate=", "linkdown"].iter().any(|part| line.contains(part));
        let of_bridge = line.contains(" br0 ") || line.contains("dev=br0");
        !(of_bridge && carrier || line.contains("last_reserved_ip") || line.contains(".podwire"))
    });
    world
}

fn v4() -> Value {
    json!({"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]]})
}

fn dual() -> Value {
    json!({"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]})
}

#[test]
fn bridge_v4() {
    shows(
        "bridge-v4",
        json!({"type": "bridge", "bridge": "br0", "isDefaultGateway": true, "ipam": v4()}),
    );
}

#[test]
fn bridge_dual_stack() {
    shows(
        "bridge-dual-stack",
        json!({"type": "bridge", "bridge": "br0", "isDefaultGateway": true, "ipam": dual()}),
    );
}

#[test]
fn bridge_with_masquerade() {
    shows(
        "bridge-masquerade",
        json!({"type": "bridge", "bridge": "br0", "isDefaultGateway": true, "ipMasq": true, "ipam": dual()}),
    );
}

#[test]
fn bridge_layer_two() {
    shows("bridge-l2", json!({"type": "bridge", "bridge": "br0"}));
}

#[test]
fn bridge_port_options() {
    shows(
        "bridge-port-options",
        json!({"type": "bridge", "bridge": "br0", "mtu": 1400, "hairpinMode": true, "portIsolation": true,
            "enabledad": true, "runtimeConfig": {"mac": "02:11:22:00:00:05"}, "ipam": v4()}),
    );
}

#[test]
fn ptp_dual_stack() {
    let mut ipam = dual();
    ipam["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0", "mtu": 1400}]);
    shows("ptp-dual-stack", json!({"type": "ptp", "ipMasq": true, "ipam": ipam}));
}

#[test]
fn loopback() {
    shows("loopback", json!({"type": "loopback"}));
}
