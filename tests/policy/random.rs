//! Random worlds, one after the other on one node, held against the oracle. What fails is made as
//! small as it goes and written to a file, which is played by a test from then on.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;

use lab::workspace;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Wiring, gated, nine};
use crate::objects::{namespace, pod, policy, uid, with_addresses};
use crate::prober::Protocol::{Echo, Sctp, Tcp, Udp};
use crate::saved;
use crate::table::Kind;

/// How many worlds; more by `PODWIRE_WORLDS`.
const WORLDS: u32 = 25;
const KINDS: &[Kind] = &[(Tcp, 80), (Tcp, 81), (Tcp, 8080), (Udp, 53), (Sctp, 80), (Echo, 0)];

fn selector() -> impl Strategy<Value = Value> {
    let label = select(vec![("pod", "a"), ("pod", "b"), ("ns", "x"), ("ns", "y"), ("tier", "web")]);
    let operator = select(vec!["In", "NotIn", "Exists", "DoesNotExist"]);
    let expression = (label.clone(), operator).prop_map(|((key, value), operator)| {
        let values = if operator.ends_with("In") { json!([value]) } else { json!(null) };
        json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]})
    });
    prop_oneof![
        Just(json!({})),
        label.prop_map(|(key, value)| json!({"matchLabels": {key: value}})),
        expression,
    ]
}

fn peer() -> impl Strategy<Value = Value> {
    let block = select(vec![
        json!({"cidr": "0.0.0.0/0"}),
        json!({"cidr": "::/0", "except": ["fd00:1::4/126"]}),
        json!({"cidr": "10.0.0.0/8", "except": ["10.1.0.4/30", "10.2.0.10/32"]}),
        json!({"cidr": "10.1.0.0/29"}),
        json!({"cidr": "64:ff9b::/96"}),
        json!({"cidr": "192.0.2.2/32"}),
        json!({"cidr": "fd00:1::/124", "except": ["fd00:1::6/128"]}),
    ]);
    prop_oneof![
        selector().prop_map(|pods| json!({"podSelector": pods})),
        selector().prop_map(|namespaces| json!({"namespaceSelector": namespaces})),
        (selector(), selector())
            .prop_map(|(one, two)| json!({"podSelector": one, "namespaceSelector": two})),
        block.prop_map(|block| json!({"ipBlock": block})),
        Just(json!({})),
    ]
}

fn port() -> impl Strategy<Value = Value> {
    select(vec![
        json!({}),
        json!({"port": 80}),
        json!({"port": 70, "endPort": 80}),
        json!({"port": "http"}),
        json!({"port": "metrics"}),
        json!({"port": "dns", "protocol": "UDP"}),
        json!({"protocol": "SCTP"}),
        json!({"port": 80, "endPort": 1}),
    ])
}

fn rules(peers: &'static str) -> impl Strategy<Value = Vec<Value>> {
    let rule = (vec(peer(), 0..3), vec(port(), 0..3));
    vec(rule.prop_map(move |(list, ports)| json!({peers: list, "ports": ports})), 0..3)
}

fn policy_object() -> impl Strategy<Value = Value> {
    let types = select(vec![
        json!(["Ingress"]),
        json!(["Egress"]),
        json!(["Ingress", "Egress"]),
        json!(null),
    ]);
    let name =
        (select(vec!["x", "y", "z"]), 0..4_u8).prop_map(|(it, name)| format!("{it}/p{name}"));
    (name, selector(), types, rules("from"), rules("to")).prop_map(
        |(name, selector, types, ingress, egress)| {
            let spec = json!({"podSelector": selector, "policyTypes": types,
                              "ingress": ingress, "egress": egress});
            policy(&name, spec)
        },
    )
}

/// One of the nine pods with other labels, ports or state.
fn changed_pod() -> impl Strategy<Value = Value> {
    let label = select(vec!["a", "b", "q"]);
    let http = select(vec![80, 81, 8080]);
    (0..9_usize, label, http, any::<bool>()).prop_map(|(number, label, http, is_leaving)| {
        let name = format!("{}/{}", ["x", "y", "z"][number / 3], ["a", "b", "c"][number % 3]);
        let mut pod = with_addresses(pod(&name), &nine(number));
        pod["metadata"]["labels"]["pod"] = json!(label);
        pod["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(http);
        if is_leaving {
            pod["metadata"]["deletionTimestamp"] = json!("2026-11-02T00:00:00Z");
        }
        pod
    })
}

fn changed_namespace() -> impl Strategy<Value = Value> {
    (select(vec!["x", "y", "z"]), select(vec!["x", "y", "q"])).prop_map(|(name, label)| {
        let mut namespace = namespace(name);
        namespace["metadata"]["labels"] = json!({"ns": label});
        namespace
    })
}

/// What is otherwise than on a node with nine pods and no policies.
fn world() -> impl Strategy<Value = Vec<Value>> {
    let policies = vec(policy_object(), 1..5);
    (policies, vec(changed_pod(), 0..3), vec(changed_namespace(), 0..2))
        .prop_map(|(policies, pods, namespaces)| [policies, pods, namespaces].concat())
}

/// What is told of a world that failed: a machine that is only started for the tests keeps no files.
fn told(cluster: &Cluster, objects: &[Value], former: &[Value], wrong: &[String]) -> String {
    let rules = saved::all(&cluster.node);
    let again = cluster.compare(KINDS);
    let text = |objects: &[Value]| serde_json::to_string(objects).unwrap();
    [
        format!("the world: {}", text(objects)),
        format!("after this one: {}", text(former)),
        format!("in the kernel:\n{rules}"),
        format!("first: {}", wrong.join("\n")),
        format!("at another look: {again:#?}"),
    ]
    .join("\n")
}

/// Plays the world after a former one.
fn play(cluster: &mut Cluster, objects: &[Value], former: &[Value]) -> Result<(), String> {
    let before = cluster.objects.clone();
    objects.iter().for_each(|object| cluster.tell(object));
    cluster.enforce();
    let wrong = cluster.compare(KINDS);
    let result =
        if wrong.is_empty() { Ok(()) } else { Err(told(cluster, objects, former, &wrong)) };
    for object in objects {
        match before.get(&uid(object)) {
            Some(former) => cluster.tell(former),
            None if cluster.objects.contains_key(&uid(object)) => cluster.forget(object),
            None => {}
        }
    }
    result
}

fn folder() -> PathBuf {
    workspace().join("tests/policy/worlds")
}

fn random(wiring: Wiring) {
    let worlds = std::env::var("PODWIRE_WORLDS").ok().and_then(|it| it.parse().ok());
    let config = Config {
        cases: worlds.unwrap_or(WORLDS),
        max_shrink_iters: 60,
        failure_persistence: None,
        ..Config::default()
    };
    let cluster = RefCell::new(Cluster::nine(wiring, gated()));
    let former = RefCell::new(Vec::new());
    let result = TestRunner::new(config).run(&world(), |objects| {
        let mut cluster = cluster.borrow_mut();
        let former = former.replace(objects.clone());
        play(&mut cluster, &objects, &former).map_err(TestCaseError::fail)
    });
    if let Err(TestError::Fail(reason, objects)) = &result {
        let text = serde_json::to_string_pretty(&objects).unwrap();
        let file = folder().join(format!("{}.json", ruleset::short_hash(&text)));
        fs::write(&file, text).unwrap();
        panic!("{wiring:?}: {}: {reason}", file.display());
    }
    result.unwrap();
    cluster.into_inner().clean_up();
}

/// The worlds that once failed, or that were thought of.
fn kept(wiring: Wiring) {
    let mut cluster = Cluster::nine(wiring, gated());
    let (mut played, mut former) = (0, Vec::new());
    for file in fs::read_dir(folder()).unwrap() {
        let path = file.unwrap().path();
        let objects: Vec<Value> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        if let Err(reason) = play(&mut cluster, &objects, &former) {
            panic!("{wiring:?}: {}: {reason}", path.display());
        }
        former = objects;
        played += 1;
    }
    assert!(played > 0, "no worlds in {}", folder().display());
    cluster.clean_up();
}

on_both_wirings!(random, kept);
