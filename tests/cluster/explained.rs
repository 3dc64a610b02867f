//! `policyd explain` over an API server.

use lab::cluster::{Cluster, Version};
use lab::{Daemon, Node, by_nftables, policyd, program};
use serde_json::{Value, json};

use crate::deployed::{PATIENCE, is_ready, wire};
use crate::objects::{NODE, cluster, policy};

/// The exit code and what is said of traffic from one pod of `shop` to another, as the user `agent`.
fn explain(node: &Node, cluster: &Cluster<'_>, options: &[&str], ends: [&str; 2]) -> (i32, String) {
    let [from, to] = ends.map(|end| format!("shop/{end}"));
    let mut command = program(policyd());
    command.env_remove("KUBECONFIG").args(options).arg("--run-dir");
    command.arg(node.run_dir().join("podwire")).arg("explain");
    command.arg("--kubeconfig").arg(cluster.kubeconfig("agent"));
    command.args(["--from", &from, "--to", &to, "--port", "80/TCP"]);
    if !options.is_empty() {
        command.arg("--live");
    }
    let ended = node.run(command);
    (ended.status.code().expect("it ends by itself"), ended.stdout + &ended.stderr)
}

fn allow_from_one() -> Value {
    let mut allow = policy("from-one");
    allow["spec"]["ingress"] =
        json!([{"from": [{"podSelector": {"matchLabels": {"app": "one"}}}]}]);
    allow
}

#[test]
fn the_objects_of_a_cluster_are_asked_and_the_kernel_that_enforces_them() {
    let node = Node::quick();
    let cluster = cluster(&node, Version::New);
    for name in ["one", "two", "server"] {
        wire(&node, &cluster, name);
    }
    cluster.apply(&policy("deny"));
    cluster.apply(&allow_from_one());
    let allowed = "shop/one to shop/server, 80/TCP: allowed\n";
    let (code, text) = explain(&node, &cluster, &[], ["one", "server"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with(allowed), "{text}");
    assert!(text.contains("shop/from-one allows it") && !text.contains("kernel of"), "{text}");
    let (code, text) = explain(&node, &cluster, &[], ["two", "server"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("shop/two to shop/server, 80/TCP: denied\n"), "{text}");
    let (code, text) = explain(&node, &cluster, &[], ["nobody", "server"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.starts_with("there is no pod shop/nobody"), "{text}");

    // The ranges of the gate are those of the node's object.
    let here = ["--node-name", NODE];
    let (code, text) = explain(&node, &cluster, &here, ["one", "server"]);
    assert_eq!(code, 3, "{text}");
    assert!(text.starts_with(allowed), "{text}");
    // By iptables in each family.
    let tables = if by_nftables() { 1 } else { 2 };
    assert_eq!(text.matches("no chain of policyd's is there").count(), tables, "{text}");
    let mut command = program(policyd());
    command.env_remove("KUBECONFIG").args(here).arg("--kubeconfig");
    command.arg(cluster.kubeconfig("agent")).arg("--run-dir").arg(node.run_dir().join("podwire"));
    let mut daemon = Daemon::start("policyd", command, &node, node.home().join("policyd.log"));
    daemon.wait_until(PATIENCE, || is_ready(&node, 9099));
    let (code, text) = explain(&node, &cluster, &here, ["one", "server"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("\nkernel of node-1: holds exactly this ("), "{text}");
    // Of what policyd on another node would hold, this kernel has nothing.
    let (code, text) = explain(&node, &cluster, &["--node-name", "node-2"], ["one", "server"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.starts_with("node node-2: there is no such node"), "{text}");
}
