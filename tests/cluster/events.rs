//! What is wrong with an object is told by Events at the object.

use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lab::cluster::{Cluster, Version::New};
use lab::{Daemon, Node, Space, policyd, program};
use policyd::model::{Error, NamespacedName, Problem};
use policyd::recorder::{Notice, Recorder};
use serde_json::{Value, json};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{Sender, channel};

use crate::objects::{NODE, cluster, policy};

const BOUND: Duration = Duration::from_secs(30);
pub(crate) const MAY: [&str; 2] = ["create", "patch"];
pub(crate) const EVENTS: [&str; 1] = ["events.k8s.io/events"];

/// A recorder as it runs on a node; it ends when nobody can tell it anything more.
fn record(space: &Space, kubeconfig: PathBuf, node: &str) -> (Sender<Notice>, JoinHandle<()>) {
    let (sender, notices) = channel(16);
    let node = node.to_owned();
    let thread = space.spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = cluster::connect(Some(&kubeconfig)).await.unwrap();
            Recorder::new(client, node).run(notices).await;
        });
    });
    (sender, thread)
}

fn notice(policy: &Value, cidr: &str) -> Notice {
    let text = |field: &str| policy["metadata"][field].as_str().unwrap().to_owned();
    let problem = Error {
        kind: "NetworkPolicy",
        object: NamespacedName { namespace: text("namespace"), name: text("name") },
        path: "spec.ingress[0].from[0].ipBlock.cidr".to_owned(),
        problem: Problem::Cidr(cidr.to_owned()),
    };
    Notice { uid: text("uid"), problem }
}

/// The Events that people see who ask for those of this object, as the first client of Events did.
fn events(cluster: &Cluster<'_>, object: &Value) -> Vec<Value> {
    let uid = object["metadata"]["uid"].as_str().unwrap();
    let path = format!("/api/v1/namespaces/shop/events?fieldSelector=involvedObject.uid={uid}");
    cluster.request("GET", &path, &Value::Null)["items"].as_array().unwrap().clone()
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < BOUND, "not within {BOUND:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_problem_is_one_event_of_all_nodes_and_a_series_when_it_comes_back() {
    let node = Node::new();
    let cluster = cluster(&node, New);
    cluster.allow("agent", &MAY, &EVENTS);
    let policy = cluster.apply(&policy("deny"));
    let bad = notice(&policy, "nowhere");
    let (first, ends) = record(&node, cluster.kubeconfig("agent"), NODE);
    first.blocking_send(bad.clone()).unwrap();
    wait("the event", || !events(&cluster, &policy).is_empty());
    let [event] = events(&cluster, &policy).try_into().unwrap();
    assert_eq!(event["type"], "Warning");
    assert_eq!(event["reason"], "InvalidField");
    assert_eq!(
        event["message"],
        "spec.ingress[0].from[0].ipBlock.cidr: \"nowhere\" is not a CIDR (address/prefix length); what is wrong allows nothing"
    );
    assert_eq!(event["involvedObject"]["kind"], "NetworkPolicy");
    assert_eq!(event["involvedObject"]["name"], "deny");
    assert_eq!(event["reportingComponent"], "policyd");
    assert_eq!(event["reportingInstance"], NODE);

    // Another node finds the same, and something else.
    let (second, also_ends) = record(&node, cluster.kubeconfig("agent"), "node-2");
    second.blocking_send(bad.clone()).unwrap();
    second.blocking_send(notice(&policy, "elsewhere")).unwrap();
    wait("the other event", || events(&cluster, &policy).len() == 2);
    assert!(events(&cluster, &policy).iter().all(|event| event["series"].is_null()));

    for times in [2, 3] {
        first.blocking_send(bad.clone()).unwrap();
        let is_counted = |event: &Value| event["series"]["count"] == times;
        wait("the series", || events(&cluster, &policy).iter().any(is_counted));
    }
    assert_eq!(events(&cluster, &policy).len(), 2);
    drop((first, second));
    ends.join().unwrap();
    also_ends.join().unwrap();
}

#[test]
fn events_of_any_length_are_taken_and_refusals_are_survived() {
    let node = Node::new();
    let cluster = cluster(&node, New);
    let policy = cluster.apply(&policy(&format!("{}.{}", "a".repeat(198), "b".repeat(54))));
    let (sender, ends) = record(&node, cluster.kubeconfig("agent"), &"n".repeat(253));
    sender.blocking_send(notice(&policy, "refused")).unwrap();
    // The next one is taken from the queue when this one has been refused.
    sender.blocking_send(notice(&policy, "refused too")).unwrap();
    wait("a refusal", || sender.capacity() == sender.max_capacity());
    cluster.allow("agent", &MAY, &EVENTS);
    sender.blocking_send(notice(&policy, &"ü".repeat(2000))).unwrap();
    let is_long = |event: &Value| event["message"].as_str().unwrap().len() > 1000;
    wait("the event", || events(&cluster, &policy).iter().any(is_long));
    let was_refused = |event: &Value| event["message"].as_str().unwrap().contains("\"refused\"");
    assert!(!events(&cluster, &policy).iter().any(was_refused));
    drop(sender);
    ends.join().unwrap();
}

#[test]
fn policyd_writes_events_of_policies_that_the_api_server_takes_and_it_does_not() {
    let node = Node::new();
    let cluster = cluster(&node, New);
    // The role of another user is the agent's too.
    cluster.allow("writer", &MAY, &EVENTS);
    let group = "rbac.authorization.k8s.io";
    cluster.apply(&json!({
        "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding",
        "metadata": {"name": "agent-writes"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "writer"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "agent"}],
    }));
    let mut bad = policy("odd");
    bad["spec"]["ingress"] = json!([{"from": [{"ipBlock": {"cidr": "010.1.0.0/16"}}]}]);
    let bad = cluster.apply(&bad);
    let mut command = program(policyd());
    command
        .arg("--run-dir")
        .arg(node.run_dir().join("podwire"))
        .args(["--node-name", NODE, "--listen", "off", "--kubeconfig"])
        .arg(cluster.kubeconfig("agent"));
    let _policyd = Daemon::start("policyd", command, &node, node.home().join("policyd.log"));
    wait("the event", || !events(&cluster, &bad).is_empty());
    let [event] = events(&cluster, &bad).try_into().unwrap();
    let message = event["message"].as_str().unwrap();
    assert!(
        message.starts_with("spec.ingress[0].from[0].ipBlock.cidr: \"010.1.0.0/16\""),
        "{message}"
    );
    assert_eq!(event["reportingInstance"], NODE);
}
