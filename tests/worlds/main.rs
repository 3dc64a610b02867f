//! The world after ADD, for people to read: snapshots that were looked through by hand. After DEL it
//! is as before.

use lab::{Call, Node, Suite, World};
use serde_json::{Value, json};

/// Adds one pod, compares the world with the snapshot, deletes the pod, compares with before.
fn shows(name: &str, conf: Value) {
    shows_list(name, vec![conf]);
}

/// The same by a list of plugins, each of which gets the result of the one before.
fn shows_list(name: &str, mut plugins: Vec<Value>) {
    let node = Node::quick();
    let podwire = Suite::podwire();
    for conf in &mut plugins {
        conf["cniVersion"] = json!("1.1.0");
        conf["name"] = json!("net1");
        if conf["ipam"]["type"] == "host-local" {
            conf["ipam"]["dataDir"] = json!(node.data());
        }
    }
    let pod = node.pod("pod1");
    let call = |command: &str, container: &str, conf: &Value, result: &Value| {
        let mut conf = conf.clone();
        if !result.is_null() {
            conf["prevResult"] = result.clone();
        }
        let plugin = conf["type"].as_str().expect("a type").to_owned();
        let call = Call::new(&plugin, command).container(container).netns(&pod.path());
        call.conf(&conf).run(&node, &podwire).ok()
    };
    let add = |container: &str| {
        let mut result = Value::Null;
        for conf in &plugins {
            result = call("ADD", container, conf, &result);
        }
        result
    };
    let del = |container: &str, result: &Value| {
        for conf in plugins.iter().rev() {
            call("DEL", container, conf, result);
        }
    };
    // What stays by design is there before.
    let first = add("warm-up");
    del("warm-up", &first);
    let before = between_pods(&node, &pod);
    let result = add("pod1");
    let world = World::of(&node, &[&pod]);
    let shown = world.mask.apply(&format!("{result:#}"));
    let story = format!("{}\n{shown}\n", world.brief());
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, story);
    });
    del("pod1", &result);
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

#[test]
fn bridge_and_tuning() {
    let tuning = json!({"type": "tuning", "mac": "02:11:22:00:00:07", "promisc": true, "mtu": 1400, "allmulti": true,
        "txQLen": 5, "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.ipv4.conf.IFNAME.rp_filter": "2"}});
    shows_list(
        "bridge-tuning",
        vec![json!({"type": "bridge", "bridge": "br0", "isGateway": true, "ipam": v4()}), tuning],
    );
}

#[test]
fn bridge_and_sbr() {
    shows_list(
        "bridge-sbr",
        vec![
            json!({"type": "bridge", "bridge": "br0", "isDefaultGateway": true, "ipam": dual()}),
            json!({"type": "sbr"}),
        ],
    );
}
