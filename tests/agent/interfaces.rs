//! Pods that no CNI plugin told of: policyd finds where they are, and has their bridges show it
//! what goes from port to port.

use lab::probe::{must_not_reach, must_reach};
use serde_json::json;

use crate::node::PolicedNode;

fn deny_all() -> serde_json::Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "deny"}, "spec": {"podSelector": {}}})
}

#[test]
fn a_pod_that_nobody_told_of_is_bound_to_its_link() {
    let node = PolicedNode::new(&["a", "b"]);
    // Its own address stays its own, and nobody else's is taken from it.
    let links = |node: &PolicedNode| {
        node.rules().lines().filter(|line| line.contains("PODWIRE-LINK -i ")).count()
    };
    node.wait("both links, in both families", |it| links(it) == 4);
    let [four, six] = node.addresses("b") else { panic!("two addresses") };
    node.space("a").sh("ip addr add 192.0.2.7/32 dev eth0; ip addr add 2001:db8::7/128 dev eth0");
    for (address, own, forged) in [
        (four, node.addresses("a")[0].to_string(), "192.0.2.7"),
        (six, node.addresses("a")[1].to_string(), "2001:db8::7"),
    ] {
        let counted = |source: &str| {
            let send = format!("ping -n -c1 -W1 -I {source} {address}");
            // Whether it is answered is not the question.
            _ = node.space("a").try_sh(&send);
            node.node.sh(
                "iptables -t mangle -nvxL PODWIRE-FORGED; ip6tables -t mangle -nvxL PODWIRE-FORGED",
            )
        };
        let before = counted(&own);
        assert_eq!(before, counted(&own));
        assert_ne!(before, counted(forged), "{forged} was not held to be forged");
    }
    must_reach(node.space("a"), node.space("b"), &four.to_string());
    node.clean_up();
}

#[test]
fn pods_on_one_bridge_are_isolated_from_each_other() {
    let node = PolicedNode::bridged(&["a", "b"]);
    let reach = |allowed: bool| {
        for address in node.addresses("b").iter().map(ToString::to_string) {
            if allowed {
                must_reach(node.space("a"), node.space("b"), &address);
            } else {
                must_not_reach(node.space("a"), node.space("b"), &address);
            }
        }
    };
    reach(true);
    node.write("deny", &deny_all());
    node.wait("isolation", |it| it.rules().contains("PODWIRE-TO-"));
    reach(false);
    // Whoever takes the bridge out of policy's sight finds it there again.
    node.node.sh("ip link set cni0 type bridge nf_call_iptables 0 nf_call_ip6tables 0");
    node.wait("the bridge to be seen to again", |it| {
        let shown = it.node.sh("ip -d link show cni0");
        shown.contains("nf_call_iptables 1") && shown.contains("nf_call_ip6tables 1")
    });
    reach(false);
    node.clean_up();
}
