//! The API server is away for long, and comes back without the history in between.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use lab::cluster::{Cluster, Version};
use lab::probe::{must_not_reach, must_reach};
use lab::{Daemon, Node, policyd, program};
use serde_json::{Value, json};

use crate::deployed::{PATIENCE, is_ready, wire};
use crate::objects::{cluster, pod};

/// Longer than the pause between two attempts to reach the API server.
const ABSENCE: Duration = Duration::from_secs(20);

fn allow(name: &str, from: &str) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"podSelector": {"matchLabels": {"app": "server"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": from}}}]}]}})
}

fn start(node: &Node, cluster: &Cluster<'_>) -> Daemon {
    let mut command = program(policyd());
    command.env_remove("KUBECONFIG").args(["--node-name", crate::objects::NODE]);
    command.arg("--kubeconfig").arg(cluster.kubeconfig("agent"));
    command.arg("--run-dir").arg(node.run_dir().join("podwire"));
    Daemon::start("policyd", command, node, node.home().join("policyd.log"))
}

#[test]
fn what_changed_while_the_api_server_was_away_is_so_in_the_end() {
    let node = Node::quick();
    let mut cluster = cluster(&node, Version::New);
    let (one, _) = wire(&node, &cluster, "one");
    let (two, _) = wire(&node, &cluster, "two");
    let (server, addresses) = wire(&node, &cluster, "server");
    cluster.apply(&allow("one", "one"));
    let mut daemon = start(&node, &cluster);
    daemon.wait_until(PATIENCE, || is_ready(&node, 9099));
    let address = |number: usize| addresses[number].to_string();
    let enforced = |number: usize| {
        must_reach(&one, &server, &address(number));
        must_not_reach(&two, &server, &address(number));
    };
    enforced(0);
    cluster.stop_server();
    let rules =
        || node.sh("iptables-save | grep PODWIRE; ipset save | sed 's/initval [^ ]*//' | sort");
    let before = rules();
    sleep(ABSENCE);
    enforced(0);
    enforced(1);
    assert_eq!(rules(), before);
    assert!(node.sh("curl -s http://127.0.0.1:9099/healthz").contains("ok"));
    // Nobody who watches sees these changes, and nobody can be told of them later.
    cluster.start_hidden_server();
    cluster.delete(&allow("one", "one"));
    cluster.apply(&allow("two", "two"));
    cluster.delete(&pod("one"));
    cluster.compact();
    cluster.stop_server();
    cluster.start_server();
    // Each watch tries again by itself, and may wait for half a minute after the others.
    daemon.wait_until(PATIENCE, || {
        let held = rules();
        !held.contains("10.244.1.2\n") && held.contains("shop/two ") && !held.contains("shop/one ")
    });
    for address in &addresses {
        must_reach(&two, &server, &address.to_string());
        must_not_reach(&one, &server, &address.to_string());
    }
    drop(daemon);
    let mut command = program(policyd());
    command.env_remove("KUBECONFIG").arg("cleanup");
    assert!(node.run(command).status.success());
    let left = node.sh("iptables-save; ip6tables-save; ipset save").to_lowercase();
    assert!(!left.contains("podwire"), "{left}");
    let said = fs::read_to_string(node.home().join("policyd.log")).unwrap();
    assert!(!said.contains("panicked"), "{said}");
}
