//! A.2: who the other end is.

use serde_json::{Value, json};

use super::{from_x, row, to_x};
use crate::objects::{deny_all, namespace, policy};
use crate::table::Row;

fn label(key: &str, value: &str) -> Value {
    json!({"matchLabels": {key: value}})
}

fn expression(key: &str, operator: &str, values: Value) -> Value {
    json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]})
}

pub(super) fn rows() -> Vec<Row> {
    let mut unlabelled = namespace("z");
    unlabelled["metadata"]["labels"] = json!({});
    let from = |peers: Value| to_x(json!([{"from": peers}]));
    let to = |peers: Value| from_x(json!([{"to": peers}]));
    let b_of_y = json!({"podSelector": label("pod", "b"), "namespaceSelector": label("ns", "y")});
    let b_or_y =
        json!([{"podSelector": label("pod", "b")}, {"namespaceSelector": label("ns", "y")}]);
    vec![
        row(
            "podSelector alone: of the own namespace",
            from(json!([{"podSelector": label("pod", "b")}])),
        ),
        row("podSelector {}: the own namespace", to(json!([{"podSelector": {}}]))),
        row("namespaceSelector alone", from(json!([{"namespaceSelector": label("ns", "y")}]))),
        row(
            "namespaceSelector {}: all pods, nobody outside",
            to(json!([{"namespaceSelector": {}}])),
        ),
        row("both in one peer: and", from(json!([b_of_y]))),
        row("both in one peer: and, for egress", to(json!([b_of_y]))),
        row("in two peers: or", from(b_or_y.clone())),
        row("in two peers: or, for egress", to(b_or_y)),
        row("In", from(json!([{"namespaceSelector": expression("ns", "In", json!(["x", "z"]))}]))),
        row(
            "NotIn matches who lacks the key",
            [
                from(json!([{"namespaceSelector": expression("ns", "NotIn", json!(["y"]))}]))
                    .into(),
                vec![unlabelled.clone()],
            ]
            .concat(),
        ),
        row(
            "DoesNotExist",
            [
                to(json!([{"namespaceSelector": expression("ns", "DoesNotExist", json!(null))}]))
                    .into(),
                vec![unlabelled],
            ]
            .concat(),
        ),
        row(
            "Exists, with another requirement",
            from(json!([{
                "namespaceSelector": expression("ns", "Exists", json!(null)),
                "podSelector": {"matchLabels": {"tier": "web"},
                    "matchExpressions": [{"key": "pod", "operator": "NotIn", "values": ["a"]}]},
            }])),
        ),
        row(
            "egress of one and ingress of the other must both allow",
            [
                deny_all("x"),
                deny_all("y"),
                policy(
                    "x/out",
                    json!({"podSelector": {}, "policyTypes": ["Egress"],
                    "egress": [{"to": [{"namespaceSelector": label("ns", "y")}]}]}),
                ),
                policy(
                    "y/in",
                    json!({"podSelector": label("pod", "b"),
                    "ingress": [{"from": [{"namespaceSelector": label("ns", "x"),
                        "podSelector": label("pod", "a")}]}]}),
                ),
            ],
        ),
        row(
            "a selector that is wrong allows nothing",
            [policy(
                "x/p",
                json!({"podSelector": {}, "ingress": [
                {"from": [{"podSelector": expression("pod", "Likes", json!(["a"]))}]},
                {"from": [{"podSelector": label("pod", "b")}]}]}),
            )],
        ),
    ]
}
