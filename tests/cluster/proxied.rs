//! proxyd's manifests in a real API server, and their containers with exactly what they grant.

use std::fs;
use std::path::PathBuf;

use lab::cluster::{Cluster, Version};
use lab::probe::{Protocol, Server, must_reach_at};
use lab::{Daemon, Node, program, proxyd, workspace};
use serde_json::{Value, json};

use crate::accounts::{add_account, allow, kubeconfig};
use crate::deployed::{
    PATIENCE, answer, collection, confined, documents, host_paths, is_ready, texts, wire,
};
use crate::manifests::{helm, read};
use crate::objects::{NODE, RANGES, namespace};
use crate::uninstalled::pods_of;

/// proxyd alone.
pub(crate) const PROXYD: &str = "proxyd.yaml";

/// Where its health is told.
const PORT: u16 = 9097;

/// What kube-proxy has left in the tables of old, and by nf_tables.
const LEFT: &str = "iptables-legacy -t nat -N KUBE-SERVICES
    iptables-legacy -t nat -A OUTPUT -m comment --comment 'kubernetes service portals' -j KUBE-SERVICES
    iptables-nft -t mangle -N KUBE-PROXY-CANARY
    nft add table ip kube-proxy; nft add table ip6 kube-proxy";

/// What there is of that.
fn left(node: &Node) -> String {
    node.sh("{ iptables-legacy-save; iptables-nft-save; nft list tables; } 2>/dev/null | grep -e KUBE- -e kube-proxy || :")
}

/// The control plane with the node and what the manifest has, and of that the DaemonSet.
fn deployed(node: &Node, version: Version) -> (Cluster<'_>, Value) {
    let cluster = Cluster::start(node, version);
    let documents = documents(PROXYD);
    let made: Vec<_> = documents.iter().map(|it| cluster.create_yaml(collection(it), it)).collect();
    assert!(made.iter().all(|it| it["metadata"]["name"] == "podwire-proxyd"));
    let own = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE},
        "spec": {"podCIDRs": RANGES}});
    cluster.apply(&own);
    let addresses = json!([{"type": "InternalIP", "address": "192.0.2.1"}]);
    cluster.set_status(&own, &json!({"addresses": addresses}));
    cluster.apply(&namespace("shop", &json!({})));
    node.set_sysctl("net/ipv4/ip_forward", "1");
    let daemons = made.into_iter().find(|it| it["kind"] == "DaemonSet").unwrap();
    (cluster, daemons)
}

/// The DaemonSet's container.
fn container(daemons: &Value) -> &Value {
    let spec = pods_of(daemons);
    assert_eq!(spec["hostNetwork"], true);
    assert!(spec["initContainers"].is_null());
    &spec["containers"][0]
}

fn start(node: &Node, container: &Value, name: &str) -> (Daemon, PathBuf) {
    let log = node.home().join(format!("{name}.log"));
    (Daemon::start("proxyd", confined(node, container), node, log.clone()), log)
}

fn said(log: &PathBuf) -> String {
    fs::read_to_string(log).unwrap()
}

/// A Service before one endpoint; where it is.
fn serve(cluster: &Cluster<'_>, server: &Server, endpoint: &str) -> String {
    let ports = json!([{"port": server.port()}]);
    let made = cluster.apply(&json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": "s"}, "spec": {"ports": ports}}));
    cluster.apply(&json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": "shop", "name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4", "endpoints": [{"addresses": [endpoint], "nodeName": NODE}],
        "ports": ports}));
    format!("{}:{}", made["spec"]["clusterIP"].as_str().unwrap(), server.port())
}

#[test]
fn proxyd_serves_with_what_the_manifest_grants_and_takes_kube_proxys_place() {
    let node = Node::quick();
    let (cluster, daemons) = deployed(&node, Version::New);
    assert_eq!(host_paths(&daemons), ["/proc/sys/net", "/run/xtables.lock"]);
    let (client, _) = wire(&node, &cluster, "client");
    let (space, addresses) = wire(&node, &cluster, "server");
    let server = Server::start(&space, Protocol::Tcp, addresses[0]);
    let place = serve(&cluster, &server, &addresses[0].to_string());
    cluster.grant("kube-system", "podwire-proxyd", &node.home().join("account"));
    node.sh(LEFT);
    let close_wait = "net/netfilter/nf_conntrack_tcp_timeout_close_wait";
    node.set_sysctl(close_wait, "61");
    let (mut daemon, log) = start(&node, container(&daemons), "proxyd");
    daemon.wait_until(PATIENCE, || is_ready(&node, PORT));
    for line in ["CapEff:\t0000000000003000", "CapBnd:\t0000000000003000", "NoNewPrivs:\t1"] {
        assert!(said(&log).contains(line), "{}", said(&log));
    }
    must_reach_at(&client, &server, &place);
    daemon.wait_until(PATIENCE, || left(&node).is_empty());
    daemon.wait_until(PATIENCE, || said(&log).contains("what kube-proxy has left is removed"));
    // By what is mounted, as /proc/sys cannot be written.
    daemon.wait_until(PATIENCE, || node.sysctl(close_wait).as_deref() == Some("3600"));
    let answered = answer(&node, 10256, "healthz");
    assert!(answered.contains("\"nodeEligible\":true"), "{answered}");
    for word in ["forbidden", "not permitted", "Read-only"] {
        assert!(!said(&log).contains(word), "{}", said(&log));
    }
    // What removes it waits for its end.
    let cleanup =
        read(&fs::read_to_string(workspace().join("conf/kubernetes/proxyd-cleanup.yaml")).unwrap());
    let cleanup = pods_of(&cleanup);
    let (mut waiting, waits) = start(&node, &cleanup["initContainers"][0], "cleanup");
    waiting.wait_until(PATIENCE, || said(&waits).contains("waiting for its end"));
    must_reach_at(&client, &server, &place);
    daemon.terminate(PATIENCE);
    assert!(waiting.ends_by_itself(PATIENCE), "{}", said(&waits));
    assert_eq!(node.sh("nft list tables | grep podwire-proxy || :"), "");
    let (mut stays, clean) = start(&node, &cleanup["containers"][0], "clean");
    stays.wait_until(PATIENCE, || said(&clean).contains("nothing of proxyd's is left"));
    stays.terminate(PATIENCE);
}

/// As Helm has it: the container of `podwire-cleanup` that is there for proxyd.
#[test]
fn the_chart_takes_services_off_nodes_as_well() {
    let node = Node::quick();
    node.sh("nft add table ip podwire-proxy; nft add table ip6 podwire-proxy");
    let text = helm("network-proxyd", &[]);
    let objects: Vec<Value> =
        crate::manifests::documents(&text).iter().map(|it| read(it)).collect();
    let cleanup = objects.iter().find(|it| it["metadata"]["name"] == "podwire-cleanup").unwrap();
    let containers = pods_of(cleanup)["initContainers"].as_array().unwrap();
    let of_proxyd = containers.iter().find(|it| it["name"] == "proxyd-cleanup").unwrap();
    let ended = node.run(confined(&node, of_proxyd));
    assert!(ended.status.success(), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(node.sh("nft list tables"), "");
}

/// Without one of them it is not ready, or does not remove what kube-proxy has left, and tells why.
#[test]
fn no_capability_of_proxyds_manifest_is_too_much() {
    let node = Node::quick();
    let (cluster, daemons) = deployed(&node, Version::New);
    cluster.grant("kube-system", "podwire-proxyd", &node.home().join("account"));
    node.sh(LEFT);
    let granted = &container(&daemons)["securityContext"]["capabilities"]["add"];
    assert_eq!(texts(granted), ["NET_ADMIN", "NET_RAW"]);
    let mut lacking = container(&daemons).clone();
    lacking["securityContext"]["capabilities"]["add"] = json!(["NET_RAW"]);
    let (mut daemon, _) = start(&node, &lacking, "without-admin");
    daemon.wait_until(PATIENCE, || answer(&node, PORT, "readyz").contains("not permitted"));
    drop(daemon);
    lacking["securityContext"]["capabilities"]["add"] = json!(["NET_ADMIN"]);
    let (mut daemon, log) = start(&node, &lacking, "without-raw");
    daemon.wait_until(PATIENCE, || said(&log).contains("iptables-legacy-save has failed"));
    assert!(left(&node).contains("KUBE-SERVICES") && is_ready(&node, PORT));
}

/// Of an account without the verb, the API server's refusal is what proxyd tells.
#[test]
fn no_verb_of_proxyds_role_is_too_much() {
    let node = Node::quick();
    // One that cannot stream lists.
    let (cluster, _) = deployed(&node, Version::Old);
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/podwire-proxyd";
    let role = cluster.request("GET", role, &Value::Null);
    let granted = role["rules"].as_array().unwrap().iter().flat_map(|rule| {
        texts(&rule["resources"]).into_iter().flat_map(|resource| {
            texts(&rule["verbs"]).into_iter().map(move |verb| (resource, verb))
        })
    });
    let granted: Vec<_> = granted.collect();
    assert_eq!(granted.len(), 6);
    for (number, (resource, verb)) in granted.iter().enumerate() {
        let rules =
            granted.iter().filter(|it| *it != &(*resource, *verb)).map(|(resource, verb)| {
                let groups = ["", "discovery.k8s.io"];
                json!({"apiGroups": groups, "resources": [resource], "verbs": [verb]})
            });
        let name = format!("lacks-{number}");
        add_account(&node, &cluster, &name);
        allow(&cluster, &name, &rules.collect::<Vec<_>>());
        let log = node.home().join(format!("{name}.log"));
        let mut command = program(proxyd());
        command.args(["--node-name", NODE, "--kubeconfig"]).arg(kubeconfig(&node, &cluster, &name));
        let mut daemon = Daemon::start("proxyd", command, &node, log.clone());
        let refusal = format!("cannot {verb} resource \"{resource}\"");
        daemon.wait_until(PATIENCE, || said(&log).replace('\\', "").contains(&refusal));
    }
}
