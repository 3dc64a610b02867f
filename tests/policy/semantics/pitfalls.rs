//! A.5: what implementations get wrong and no other group has.

use serde_json::{Value, json};

use super::{row, to_x};
use crate::objects::{deny_all, policy};
use crate::table::Row;

pub(super) fn rows() -> Vec<Row> {
    let longest = format!("x/{}", "n".repeat(253));
    let mut spec = json!({"podSelector": {}, "policyTypes": ["Ingress"]});
    spec["ingress"] = json!([{"from": [{"podSelector": {"matchLabels": {"pod": "b"}}}], "ports": [{"port": 80}]}]);
    let label = |value: &str| json!({"matchLabels": {"pod": value}});
    let isolated_by_many: Vec<Value> = (0..30)
        .map(|it| {
            let name = format!("x/p{it}");
            policy(&name, json!({"podSelector": {}, "ingress": [{"ports": [{"port": 51 + it}]}]}))
        })
        .collect();
    vec![
        row(
            "A.5.1 rules of one direction are not those of the other",
            [policy(
                "x/p",
                json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"from": [{"podSelector": label("b")}]}],
                "egress": [{"to": [{"podSelector": label("c")}]}]}),
            )],
        ),
        row(
            "A.5.1 a packet that one direction allowed is still asked for the other",
            [
                policy(
                    "x/out",
                    json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}),
                ),
                policy("x/in", json!({"podSelector": {}, "policyTypes": ["Ingress"]})),
            ],
        ),
        row("A.5.8 echo is denied with the rest", [deny_all("x"), deny_all("z")]),
        row(
            "A.5.8 echo is not allowed by ports",
            to_x(json!([{"ports": [{"port": 80}, {"protocol": "UDP"}]}])),
        ),
        row("A.5.15 names of maximal length", [policy(&longest, spec)]),
        row("many policies for one pod", isolated_by_many),
    ]
}
