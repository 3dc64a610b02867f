use lab::probe::{must_not_reach, must_reach};
use policyd::iptables::Settings;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Wiring};

fn pod(name: &str) -> Value {
    let (namespace, name) = name.split_once('/').unwrap();
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "uid": format!("{namespace}-{name}"), "labels": {"app": name}},
        "spec": {"nodeName": "node-1", "containers": []}, "status": {"phase": "Running"}})
}

fn denied(wiring: Wiring) {
    let settings = Settings {
        gated: vec!["10.1.0.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()],
        ..Settings::default()
    };
    let mut cluster = Cluster::new(wiring, settings);
    for name in ["x/a", "x/b", "x/c"] {
        cluster.add(name, pod(name));
    }
    let reach = |cluster: &Cluster, one: &str, two: &str, allowed: bool| {
        for address in &cluster.pods[two].attachment.addresses {
            let (one, two) = (&cluster.pods[one].space, &cluster.pods[two].space);
            if allowed {
                must_reach(one, two, &address.to_string());
            } else {
                must_not_reach(one, two, &address.to_string());
            }
        }
    };
    reach(&cluster, "x/a", "x/b", false);
    cluster.enforce();
    println!(
        "{}",
        cluster.node.sh("iptables-save -t mangle; ip6tables-save -t mangle; ipset save")
    );
    reach(&cluster, "x/a", "x/b", true);
    cluster.tell(&json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "x", "name": "p", "uid": "p"},
        "spec": {"podSelector": {"matchLabels": {"app": "b"}}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "c"}}}]}]}}));
    cluster.enforce();
    println!("{}", cluster.node.sh("iptables-save -c -t mangle; ipset save"));
    reach(&cluster, "x/a", "x/b", false);
    reach(&cluster, "x/c", "x/b", true);
    reach(&cluster, "x/b", "x/a", true);
    for address in &cluster.pods["x/b"].attachment.addresses {
        must_reach(&cluster.node, &cluster.pods["x/b"].space, &address.to_string());
    }
    println!("{}", cluster.node.sh("iptables-save -c -t mangle; ipset save"));
    must_reach(&cluster.node, &cluster.node, "10.1.0.1");
    let dataplane = &mut cluster.dataplane;
    cluster.node.enter(|| dataplane.clean_up()).unwrap();
    assert_eq!(
        cluster
            .node
            .sh("iptables-save -t mangle; ip6tables-save -t mangle; ipset save")
            .lines()
            .filter(|it| it.to_lowercase().contains("podwire"))
            .count(),
        0
    );
}

#[test]
fn ptp() {
    denied(Wiring::Ptp);
}

#[test]
fn bridge() {
    denied(Wiring::Bridge);
}
