//! policyd's policies hold for whom a service leads to, on the same node.

use std::fs;
use std::time::{Duration, Instant};

use lab::{Daemon, policyd, program, slowed};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::by_both;
use crate::client::{Outcome, ask, connect, must_ask, must_reach, udp};
use crate::objects::HERE;
use crate::site::Site;

by_both! {
    who_may_not_reach_an_endpoint_does_not_by_its_service
}

/// What policyd knows is in force within this time.
const PATIENCE: Duration = Duration::from_secs(20);

fn pod(site: &Site, name: &str) -> Value {
    let address = site.address(name);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "n", "labels": {"app": name}},
        "spec": {"nodeName": HERE, "containers": []},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    })
}

/// Only the pod "c" may connect to the pod "a", and that one to nobody but "a" itself.
fn policies() -> [Value; 2] {
    let of = |name: &str| json!({"podSelector": {"matchLabels": {"app": name}}});
    let policy = |name: &str, spec: Value| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": "n"}, "spec": spec,
        })
    };
    [
        policy(
            "to-a",
            json!({"podSelector": of("a")["podSelector"], "ingress": [{"from": [of("c")]}]}),
        ),
        policy(
            "from-c",
            json!({"podSelector": of("c")["podSelector"], "policyTypes": ["Egress"], "egress": [{"to": [of("a")]}]}),
        ),
    ]
}

fn start(site: &Site, home: &TempDir) -> Daemon {
    let manifests = home.path().join("manifests");
    fs::create_dir(&manifests).expect("a folder");
    let pods = ["a", "b", "c"].map(|it| pod(site, it));
    for (place, object) in pods.iter().chain(&policies()).enumerate() {
        fs::write(manifests.join(format!("{place}.json")), object.to_string()).expect("a file");
    }
    let mut command = program(policyd());
    command.args([
        "--node-name",
        HERE,
        "--gate",
        "off",
        "--listen",
        "off",
        "--backend",
        "nftables",
    ]);
    command.arg("--manifests").arg(&manifests).arg("--run-dir").arg(home.path());
    Daemon::start("policyd", command, &site.node, home.path().join("policyd.log"))
}

fn who_may_not_reach_an_endpoint_does_not_by_its_service(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b", "c"]);
    site.serve(&json!({"type": "NodePort"}), &site.ready(["a"]));
    let of_b = json!({"clusterIP": site.address("other"), "ports": [{"name": "t", "port": 80}]});
    site.serve_as("other", &of_b, &site.ready(["b"]));
    let (to_a, to_b) = (site.at("service", 80), site.at("other", 80));
    assert_eq!(must_reach(site.pod("b"), to_a).0, "a");
    let home = tempfile::tempdir().expect("cannot make a temporary directory");
    let _policyd = start(&site, &home);
    let started = Instant::now();
    while connect(site.pod("b"), site.at("a", 8080)) != Outcome::Silence {
        assert!(started.elapsed() < slowed(PATIENCE), "the policy is not in force");
    }
    // By the service's address as by its own.
    assert_eq!(connect(site.pod("b"), to_a), Outcome::Silence);
    assert_eq!(ask(&udp(site.pod("b"), to_a)), Outcome::Silence);
    assert_eq!(connect(site.world(), site.at("node", 30080)), Outcome::Silence);
    assert_eq!(must_reach(site.pod("c"), to_a), ("a".to_owned(), site.address("c")));
    assert_eq!(must_ask(&udp(site.pod("c"), to_a)), "a");
    assert_eq!(connect(site.pod("c"), to_b), Outcome::Silence);
    assert_eq!(must_reach(site.pod("a"), to_b).0, "b");
}
