//! What an agent is told.

use std::path::Path;

use lab::Node;
use lab::cluster::Version::{self, New, Old};
use policyd::model::{NamespacedName, Pod};
use policyd::source::Event;
use policyd::source::api_server::ApiServer;
use serde_json::{Value, json};
use tokio::runtime::Builder;

use crate::objects::{NODE, cluster, namespace, pod, policy};
use crate::told::Told;

fn with_address(address: &str) -> Value {
    json!({"phase": "Running", "podIPs": [{"ip": address}]})
}

/// All that happens to objects is told: on this version of etcd.
fn changes(version: Version) {
    let node = Node::new();
    let cluster = cluster(&node, version);
    cluster.apply(&pod("web"));
    cluster.apply(&policy("deny"));

    let mut told = Told::start(&node, cluster.kubeconfig("agent"), NODE);
    told.until_synced();
    assert_eq!(told.lists, [1; 3]);
    assert_eq!(told.pods.keys().collect::<Vec<_>>(), ["shop/web"]);
    assert_eq!(told.policies.keys().collect::<Vec<_>>(), ["shop/deny"]);
    assert!(told.namespaces.contains_key("shop") && told.namespaces.contains_key("kube-system"));
    let known = told.node.clone().unwrap();
    assert_eq!(known.name, NODE);
    assert_eq!(known.pod_ranges, ["10.244.1.0/24", "fd00:1::/64"].map(|it| it.parse().unwrap()));
    assert_eq!(known.addresses, ["192.0.2.1".parse::<std::net::IpAddr>().unwrap()]);

    cluster.set_status(&pod("web"), &with_address("10.244.1.5"));
    let address = "10.244.1.5".parse().unwrap();
    told.until("the address", |it| it.pods["shop/web"].addresses.contains(&address));
    cluster.patch(&pod("web"), &json!({"metadata": {"labels": {"app": "db"}}}));
    told.until("the pod's label", |it| it.pods["shop/web"].labels["app"] == "db");
    cluster.apply(&namespace("shop", &json!({"team": "a"})));
    let has_team = |it: &Told| it.namespaces["shop"].labels.contains_key("team");
    told.until("the namespace's label", has_team);
    cluster.patch(&policy("deny"), &json!({"spec": {"policyTypes": ["Egress"]}}));
    told.until("the policy's change", |it| it.policies["shop/deny"].ingress.is_none());
    cluster.apply(&pod("other"));
    told.until("a new pod", |it| it.pods.contains_key("shop/other"));
    cluster.delete(&pod("web"));
    told.until("the pod's end", |it| !it.pods.contains_key("shop/web"));
    cluster.delete(&policy("deny"));
    told.until("the policy's end", |it| it.policies.is_empty());

    // All that was one list and the changes after it, without a failure.
    assert_eq!(told.lists, [1; 3]);
    assert_eq!(told.reports, [""; 0]);
}

#[test]
fn changes_are_told_with_streamed_lists() {
    changes(New);
}

#[test]
fn changes_are_told_where_lists_are_not_streamed() {
    changes(Old);
}

/// What changes while nobody is told, and is then forgotten by etcd, is told by a new list.
fn gap(version: Version) {
    let node = Node::new();
    let mut cluster = cluster(&node, version);
    for name in ["stays", "goes", "comes-back"] {
        cluster.apply(&pod(name));
        cluster.apply(&policy(name));
    }
    let mut told = Told::start(&node, cluster.kubeconfig("agent"), NODE);
    told.until_synced();
    assert_eq!(told.pods.len(), 3);
    let first = told.pods["shop/comes-back"].uid.clone();

    cluster.stop_server();
    cluster.start_hidden_server();
    cluster.delete(&pod("goes"));
    cluster.delete(&policy("goes"));
    cluster.delete(&pod("comes-back"));
    cluster.apply(&pod("comes-back"));
    cluster.apply(&pod("new"));
    cluster.stop_server();
    cluster.compact();
    cluster.start_server();

    told.until("the new list", |it| it.lists.iter().all(|&lists| lists >= 2));
    assert_eq!(told.pods.keys().collect::<Vec<_>>(), ["shop/comes-back", "shop/new", "shop/stays"]);
    assert_eq!(told.policies.keys().collect::<Vec<_>>(), ["shop/comes-back", "shop/stays"]);
    assert_ne!(told.pods["shop/comes-back"].uid, first);

    // And what comes after it is told as ever.
    cluster.delete(&pod("stays"));
    told.until("a change after the gap", |it| !it.pods.contains_key("shop/stays"));
}

#[test]
fn a_gap_is_closed_with_streamed_lists() {
    gap(New);
}

#[test]
fn a_gap_is_closed_where_lists_are_not_streamed() {
    gap(Old);
}

#[test]
fn a_server_that_restarts_is_told_of_and_found_again() {
    let node = Node::new();
    let mut cluster = cluster(&node, New);
    let mut told = Told::start(&node, cluster.kubeconfig("agent"), NODE);
    told.until_synced();
    cluster.stop_server();
    let refused = "Connection refused";
    told.until("that the server has gone", |it| it.reports.iter().any(|it| it.contains(refused)));
    let report = told.reports.iter().find(|it| it.contains(refused)).unwrap();
    assert!(
        report.contains("is the API server running, and reachable from this node?"),
        "{report}"
    );
    cluster.start_server();
    cluster.apply(&pod("later"));
    told.until("a pod", |it| it.pods.contains_key("shop/later"));
    // A few for each kind of object, whatever the server took to start.
    assert!(told.reports.len() < 60, "{:#?}", told.reports);
}

#[test]
fn more_objects_than_a_page_has_are_all_told() {
    let node = Node::new();
    let cluster = cluster(&node, Old);
    for number in 0..1010 {
        cluster.request(
            "POST",
            "/api/v1/namespaces",
            &namespace(&format!("n{number}"), &json!({})),
        );
    }
    let mut told = Told::start(&node, cluster.kubeconfig("agent"), NODE);
    told.until_synced();
    let ours = told.namespaces.keys().filter(|name| name.starts_with('n')).count();
    assert_eq!(ours, 1010);
    assert_eq!(told.lists, [1; 3]);
}

#[test]
fn what_the_account_may_not_is_told_and_tried_again() {
    let node = Node::new();
    let cluster = cluster(&node, New);
    cluster.allow("nobody", &["get", "list", "watch"], &["pods", "namespaces", "nodes"]);
    let mut told = Told::start(&node, cluster.kubeconfig("nobody"), NODE);
    told.until("a refusal", |it| !it.reports.is_empty());
    assert_eq!(
        told.reports[0],
        "listing networkpolicies: networkpolicies.networking.k8s.io is forbidden: User \"nobody\" cannot watch resource \"networkpolicies\" in API group \"networking.k8s.io\" at the cluster scope (does the ClusterRole of this account allow that verb for that resource?)"
    );
    told.until("the rest", |it| it.lists[0] == 1 && it.lists[1] == 1 && it.node.is_some());
    assert_eq!(told.lists[2], 0);
    let policies = ["pods", "namespaces", "nodes", "networking.k8s.io/networkpolicies"];
    cluster.allow("nobody", &["get", "list", "watch"], &policies);
    told.until_synced();
}

#[test]
fn a_node_that_is_not_there_is_told() {
    let node = Node::new();
    let cluster = cluster(&node, New);
    let mut told = Told::start(&node, cluster.kubeconfig("agent"), "node-2");
    told.until("that the node is unknown", |it| !it.reports.is_empty());
    assert_eq!(
        told.reports,
        ["node node-2: there is no such node (is its name the one that the cluster knows it by?)"]
    );
    let late = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-2"}});
    cluster.apply(&late);
    told.until_synced();
}

/// A pod of namespace `shop`, or the refusal, as whoever has this kubeconfig is answered.
pub(crate) fn got(node: &Node, kubeconfig: &Path, name: &str) -> Result<Option<Pod>, String> {
    let name = NamespacedName { namespace: "shop".to_owned(), name: name.to_owned() };
    node.enter(|| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = cluster::connect(Some(kubeconfig)).await.unwrap();
            ApiServer::new(client, NODE).pod(&name).await.map_err(|error| error.to_string())
        })
    })
}

#[test]
fn a_pod_can_be_asked_for_by_its_name() {
    let node = Node::new();
    let cluster = cluster(&node, New);
    cluster.apply(&pod("web"));
    let ask = |user: &str, name: &str| got(&node, &cluster.kubeconfig(user), name);
    assert_eq!(ask("agent", "web").unwrap().unwrap().name.name, "web");
    assert_eq!(ask("agent", "other"), Ok(None));
    let refusal = ask("nobody", "web").unwrap_err();
    assert!(refusal.starts_with("getting pods shop/web: pods \"web\" is forbidden: "), "{refusal}");
}

#[test]
fn a_pod_is_told_when_it_is_asked_for() {
    let node = Node::new();
    let cluster = cluster(&node, New);
    cluster.apply(&pod("web"));
    let kubeconfig = cluster.kubeconfig("agent");
    let answered = node.spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = ::cluster::connect(Some(&kubeconfig)).await.unwrap();
            let (asks, asked) = tokio::sync::mpsc::channel(4);
            let (events, mut answers) = tokio::sync::mpsc::channel(4);
            for name in ["none", "web"] {
                let name = NamespacedName { namespace: "shop".into(), name: name.into() };
                asks.send(name).await.unwrap();
            }
            drop(asks);
            ApiServer::new(client, NODE).answer(asked, &events).await;
            drop(events);
            let mut told = Vec::new();
            while let Some(event) = answers.recv().await {
                told.push(event);
            }
            told
        })
    });
    let told = answered.join().unwrap();
    let [Event::Answer(answer)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(answer.name.to_string(), "shop/web");
}
