//! A.2: types of policies, and what is absent or empty.

use serde_json::json;

use super::{from_x, in_x, row, to_x};
use crate::objects::{deny_all, policy};
use crate::table::Row;

pub(super) fn rows() -> Vec<Row> {
    let both = json!(["Ingress", "Egress"]);
    vec![
        row("no policy", []),
        row("policyTypes absent, no rules: ingress only", in_x(json!({}))),
        row("policyTypes absent, egress empty: ingress only", in_x(json!({"egress": []}))),
        row("policyTypes absent, egress not empty: both", in_x(json!({"egress": [{}]}))),
        row(
            "policyTypes Egress alone: rules of ingress are passed over",
            in_x(json!({"policyTypes": ["Egress"], "ingress": [], "egress": []})),
        ),
        row(
            "policyTypes Ingress alone: rules of egress are passed over",
            in_x(json!({"policyTypes": ["Ingress"], "ingress": [{}], "egress": []})),
        ),
        row("ingress empty: nothing", to_x(json!([]))),
        row("ingress absent: nothing", to_x(json!(null))),
        row("ingress [{}]: all", to_x(json!([{}]))),
        row("egress empty: nothing", from_x(json!([]))),
        row("egress [{}]: all", from_x(json!([{}]))),
        row("from empty: all sources", to_x(json!([{"from": [], "ports": [{"port": 80}]}]))),
        row(
            "ports empty: all protocols",
            to_x(json!([{"from": [{"podSelector": {}}], "ports": []}])),
        ),
        row("podSelector {} in every namespace", [deny_all("x"), deny_all("y"), deny_all("z")]),
        row(
            "podSelector by label",
            [policy(
                "x/p",
                json!({"podSelector": {"matchLabels": {"pod": "a"}}, "policyTypes": both}),
            )],
        ),
        row(
            "podSelector that selects nobody",
            [policy(
                "x/p",
                json!({"podSelector": {"matchLabels": {"pod": "q"}}, "policyTypes": both}),
            )],
        ),
        row(
            "several policies: the union",
            [
                deny_all("x"),
                policy(
                    "x/p",
                    json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"pod": "a"}}}]}]}),
                ),
                policy(
                    "x/q",
                    json!({"podSelector": {"matchLabels": {"pod": "b"}}, "ingress": [{"ports": [{"port": 81}]}]}),
                ),
            ],
        ),
    ]
}
