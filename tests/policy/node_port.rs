//! A.3: ports of nodes that lead to a pod, and by which address policy knows who sends to them.

use serde_json::{Value, json};

use crate::cluster::{Cluster, NODE, NODE_2, OUTSIDE, Wiring, gated};
use crate::objects::policy;
use crate::paths::{lead, lead_no_more, masquerade};
use crate::prober::Protocol::{Sctp, Tcp, Udp};
use crate::prober::{Probe, deviations};
use crate::table::{End, probe};

/// It leads to `y/b`, as that of a Service of type NodePort.
const NODE_PORT: u16 = 30_080;

/// What is known of a client behind a port of nodes is what his packets say when policy is asked, after
/// the address of the backend and before masquerading. So on the backend's own node it is he, whether his
/// address is kept (`externalTrafficPolicy: Local`) or not; and by another node that masquerades
/// (`Cluster`) it is that node, which is not the pod's own.
fn node_port(wiring: Wiring) {
    let mut cluster = Cluster::nine(wiring, gated());
    lead(&cluster, &cluster.node, "PREROUTING", [NODE[0], NODE[1]], NODE_PORT);
    // The other node is one with all that is behind it.
    lead(&cluster, &cluster.other, "OUTPUT", NODE_2, NODE_PORT);
    masquerade(&cluster, &cluster.other);
    let mut wrong = Vec::new();
    for is_masqueraded in [false, true] {
        if is_masqueraded {
            masquerade(&cluster, &cluster.node);
        }
        for (allowed, by_own, by_other) in [
            (None, false, false),
            (Some([OUTSIDE[0], OUTSIDE[1]]), true, false),
            (Some(NODE_2), false, true),
            (Some([NODE[0], NODE[1]]), false, false),
        ] {
            let peers: Vec<_> = allowed.iter().flatten().map(|it| block(it)).collect();
            // Without peers a rule would allow everybody.
            let rules: Vec<_> = allowed.iter().map(|_| json!({"from": peers})).collect();
            let spec = json!({"podSelector": {"matchLabels": {"pod": "b"}}, "ingress": rules});
            cluster.tell(&policy("y/p", spec));
            cluster.enforce();
            let probes = [from_outside([NODE[0], NODE[1]], by_own), from_outside(NODE_2, by_other)];
            let found = deviations(&cluster, &probes.concat());
            let world = format!("masqueraded {is_masqueraded}, allowed {allowed:?}");
            wrong.extend(found.iter().map(|it| format!("{world}: {it}")));
        }
    }
    assert!(wrong.is_empty(), "{wiring:?}: {}", wrong.join("\n"));
    lead_no_more(&cluster.node);
    cluster.clean_up();
}

/// The block of one address.
fn block(address: &str) -> Value {
    let length = if address.contains(':') { 128 } else { 32 };
    json!({"ipBlock": {"cidr": format!("{address}/{length}")}})
}

/// What somebody outside sends to the port of a node, and whether he is to be answered.
fn from_outside(node: [&str; 2], expected: bool) -> Vec<(Probe, bool)> {
    let mut probes = Vec::new();
    for (source, address) in OUTSIDE.iter().zip(node) {
        let end = |address: &str| End {
            who: "other".to_owned(),
            address: address.parse().unwrap(),
            node: None,
        };
        let (client, node) = (end(source), end(address));
        let kinds = [Tcp, Udp, Sctp].map(|protocol| (protocol, NODE_PORT));
        probes.extend(kinds.map(|kind| (probe(&client, &node, kind), expected)));
    }
    probes
}

on_both_wirings!(node_port);
