//! The API server is away for long, and comes back without the history in between; or is not there when
//! policyd starts.

use std::fs;
use std::net::IpAddr;
use std::thread::sleep;
use std::time::Duration;

use lab::cluster::{Cluster, Version};
use lab::probe::{must_not_reach, must_reach};
use lab::{Daemon, Node, Pod, policy_rules, policyd, program};
use serde_json::{Value, json};

use crate::deployed::{PATIENCE, answer, attach, clean_up, is_ready, wire};
use crate::objects::{NODE, RANGES, cluster, pod};

/// Longer than the pause between two attempts to reach the API server.
const ABSENCE: Duration = Duration::from_secs(20);
/// Whatever policyd would write it writes within this time.
const SILENCE: Duration = Duration::from_secs(3);

fn allow(name: &str, from: &str) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"podSelector": {"matchLabels": {"app": "server"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": from}}}]}]}})
}

/// policyd as the user `agent`.
pub(crate) fn start(node: &Node, cluster: &Cluster<'_>) -> Daemon {
    let mut command = program(policyd());
    command.env_remove("KUBECONFIG").args(["--node-name", NODE]);
    command.arg("--kubeconfig").arg(cluster.kubeconfig("agent"));
    command.arg("--run-dir").arg(node.run_dir().join("podwire"));
    Daemon::start("policyd", command, node, node.home().join("policyd.log"))
}

/// A server that a policy lets one of two clients reach.
struct Shop<'a> {
    node: &'a Node,
    one: Pod,
    two: Pod,
    server: Pod,
    addresses: Vec<IpAddr>,
}

impl<'a> Shop<'a> {
    /// Opens it, and starts policyd.
    fn policed(node: &'a Node, cluster: &Cluster<'_>) -> (Self, Daemon) {
        let [one, two] = ["one", "two"].map(|name| wire(node, cluster, name).0);
        let (server, addresses) = wire(node, cluster, "server");
        cluster.apply(&allow("one", "one"));
        let shop = Self { node, one, two, server, addresses };
        let mut daemon = start(node, cluster);
        daemon.wait_until(PATIENCE, || is_ready(node, 9099));
        shop.is_enforced(0);
        (shop, daemon)
    }

    /// Whether the first may, by the server's address of this number, and the second may not.
    fn is_enforced(&self, number: usize) {
        let address = self.addresses[number].to_string();
        must_reach(&self.one, &self.server, &address);
        must_not_reach(&self.two, &self.server, &address);
    }

    fn rules(&self) -> String {
        policy_rules(self.node)
    }
}

#[test]
fn what_changed_while_the_api_server_was_away_is_so_in_the_end() {
    let node = Node::quick();
    let mut cluster = cluster(&node, Version::New);
    let (shop, mut daemon) = Shop::policed(&node, &cluster);
    cluster.stop_server();
    let before = shop.rules();
    sleep(ABSENCE);
    shop.is_enforced(0);
    shop.is_enforced(1);
    assert_eq!(shop.rules(), before);
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
        let held = shop.rules();
        !held.contains("10.244.1.2\n") && held.contains("shop/two ") && !held.contains("shop/one ")
    });
    for address in &shop.addresses {
        must_reach(&shop.two, &shop.server, &address.to_string());
        must_not_reach(&shop.one, &shop.server, &address.to_string());
    }
    drop(daemon);
    clean_up(&node, &[]);
    let said = fs::read_to_string(node.home().join("policyd.log")).unwrap();
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_policyd_that_starts_without_the_api_server_keeps_what_is_enforced_until_it_comes() {
    let node = Node::quick();
    let mut cluster = cluster(&node, Version::New);
    let (shop, daemon) = Shop::policed(&node, &cluster);
    drop(daemon);
    cluster.stop_server();
    // He comes while nobody can tell who he is.
    let (stranger, _) = attach(&node, "stranger", RANGES);
    let before = shop.rules();
    let mut daemon = start(&node, &cluster);
    let log = node.home().join("policyd.log");
    let unreachable = "is the API server running, and reachable from this node?";
    daemon.wait_until(PATIENCE, || fs::read_to_string(&log).unwrap().contains(unreachable));
    sleep(SILENCE);
    assert_eq!(answer(&node, 9099, "readyz"), "not all objects are known yet\n");
    assert_eq!(answer(&node, 9099, "healthz"), "ok\n");
    assert_eq!(shop.rules(), before);
    for (number, address) in shop.addresses.iter().enumerate() {
        shop.is_enforced(number);
        must_not_reach(&stranger, &shop.server, &address.to_string());
    }
    cluster.start_server();
    cluster.apply(&allow("two", "two"));
    daemon.wait_until(PATIENCE, || is_ready(&node, 9099));
    daemon.wait_until(PATIENCE, || shop.rules().contains("shop/two "));
    for address in &shop.addresses {
        must_reach(&shop.one, &shop.server, &address.to_string());
        must_reach(&shop.two, &shop.server, &address.to_string());
        must_not_reach(&stranger, &shop.server, &address.to_string());
    }
    drop(daemon);
    clean_up(&node, &[]);
}
