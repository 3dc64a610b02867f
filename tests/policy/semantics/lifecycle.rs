//! A.4: pods, namespaces and policies that come, change and go.

use serde_json::{Value, json};

use super::{from_x, row, to_x};
use crate::cluster::{OUTSIDE, nine};
use crate::objects::{namespace, pod, policy, with_addresses};
use crate::table::Row;

pub(super) fn rows() -> Vec<Row> {
    [finished(), leaving(), relabelled()].into_iter().flatten().collect()
}

fn changed(mut object: Value, path: &str, value: Value) -> Value {
    let (parent, key) = path.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[key] = value;
    object
}

fn with(one: [Value; 1], more: impl Into<Vec<Value>>) -> Vec<Value> {
    [one.into(), more.into()].concat()
}

fn x_a() -> Value {
    with_addresses(pod("x/a"), &nine(0))
}

fn y_b() -> Value {
    with_addresses(pod("y/b"), &nine(4))
}

fn from_b() -> [Value; 1] {
    to_x(json!([{"from": [{"podSelector": {"matchLabels": {"pod": "b"}}}]}]))
}

fn to_namespace(label: &str) -> [Value; 1] {
    from_x(json!([{"to": [{"namespaceSelector": {"matchLabels": {"ns": label}}}]}]))
}

/// Pods whose status still has the addresses that `y/b` has now.
fn finished() -> Vec<Row> {
    let former = |phase: &str| {
        let former = with_addresses(pod("z/former"), &nine(4));
        changed(former, "/status/phase", json!(phase))
    };
    let from_z = to_x(json!([{"from": [{"namespaceSelector": {"matchLabels": {"ns": "z"}}}]}]));
    let deny = policy("z/p", json!({"podSelector": {"matchLabels": {"pod": "former"}}}));
    let http = from_x(json!([{"ports": [{"port": "http"}]}]));
    vec![
        row("A.4.1 a succeeded pod is no peer", with(from_z.clone(), [former("Succeeded")])),
        row("A.4.1 a failed pod is no peer", with(from_z, [former("Failed")])),
        row("A.4.1 nor are its policies asked", [former("Failed"), deny]),
        // In namespace z the name stands for another number.
        row("A.4.1 nor has it named ports", with(http, [former("Succeeded")])),
    ]
}

fn leaving() -> Vec<Row> {
    let time = json!("2026-11-02T00:00:00Z");
    let leaving = |object| changed(object, "/metadata/deletionTimestamp", time.clone());
    let elsewhere: Vec<_> = OUTSIDE[..2].iter().map(|it| it.parse().unwrap()).collect();
    let far = with_addresses(pod("x/far"), &elsewhere);
    let far = changed(far, "/metadata/labels", json!({"pod": "b"}));
    let far = changed(far, "/spec/nodeName", json!("node-2"));
    let mirror = json!({"kubernetes.io/config.mirror": "hash"});
    vec![
        row("A.4.2 a terminating pod stays isolated", with(from_b(), [leaving(x_a())])),
        row("A.4.2 a terminating pod stays a peer", with(to_namespace("y"), [leaving(y_b())])),
        row("A.4.4 a pod without addresses", with(from_b(), [pod("x/late")])),
        row("a pod of another node comes", with(from_b(), [far])),
        row(
            "A.4.14 a mirror of a static pod",
            with(from_b(), [changed(x_a(), "/metadata/annotations", mirror)]),
        ),
    ]
}

fn relabelled() -> Vec<Row> {
    let labelled = |object, labels| changed(object, "/metadata/labels", labels);
    let only_a = policy("x/p", json!({"podSelector": {"matchLabels": {"pod": "a"}}}));
    let mut again = labelled(namespace("y"), json!({"ns": "q"}));
    again["metadata"]["uid"] = json!("another");
    again["metadata"]["creationTimestamp"] = json!("2026-11-03T00:00:00Z");
    vec![
        row(
            "A.4.6 pods' labels change",
            with(
                from_b(),
                [labelled(y_b(), json!({"pod": "q"})), labelled(x_a(), json!({"pod": "b"}))],
            ),
        ),
        row(
            "A.4.6 a pod is selected no more",
            with([only_a], [labelled(x_a(), json!({"pod": "q"}))]),
        ),
        row(
            "A.4.6 namespaces' labels change",
            with(
                to_namespace("y"),
                [
                    labelled(namespace("y"), json!({"ns": "q"})),
                    labelled(namespace("z"), json!({"ns": "y"})),
                ],
            ),
        ),
        row(
            "A.4.7 of two namespaces of one name the newer counts",
            with(to_namespace("y"), [again]),
        ),
    ]
}
