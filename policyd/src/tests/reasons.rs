//! Why a packet is allowed or denied.

use serde_json::json;

use super::scene::{policy, verdict, with};
use crate::evaluate::{Decision, Exemption, RuleOutcome};

fn outcomes(decision: &Decision) -> Vec<(String, Vec<RuleOutcome>)> {
    let Decision::Isolated { policies, .. } = decision else { panic!("{decision:?}") };
    policies.iter().map(|it| (it.policy.to_string(), it.rules.clone())).collect()
}

#[test]
fn a_verdict_names_the_policies_that_isolate_and_what_each_rule_says() {
    let pods = |name: &str| json!([{"podSelector": {"matchLabels": {"pod": name}}}]);
    let world = with([
        policy("x/second", json!({"podSelector": {}})),
        policy(
            "x/first",
            json!({"podSelector": {}, "ingress": [
                {"from": pods("c")},
                {"from": pods("b"), "ports": [{"port": 80}]},
                {"from": [{}]},
                {
                    "from": [pods("a")[0], pods("b")[0], pods("b")[0]],
                    "ports": [{"port": 80}, {"port": 443, "protocol": "UDP"}, {"port": 443}],
                },
            ]}),
        ),
        policy(
            "x/egress-only",
            json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}),
        ),
        policy("y/elsewhere", json!({"podSelector": {}})),
    ]);
    let verdict = verdict(&world, "x/b > x/a 443/TCP");
    assert!(verdict.is_allowed());
    use RuleOutcome::{Matched, NoPeer, NoPort, Unusable};
    let matched = Matched { peer: Some(1), port: Some(2) };
    let no_port = NoPort { peer: Some(0) };
    let anything = Matched { peer: None, port: None };
    assert_eq!(
        outcomes(&verdict.ingress),
        [
            ("x/first".to_owned(), vec![NoPeer, no_port, Unusable, matched]),
            ("x/second".to_owned(), vec![]),
        ]
    );
    assert_eq!(outcomes(&verdict.egress), [("x/egress-only".to_owned(), vec![anything])]);
}

#[test]
fn a_verdict_names_the_pod_that_is_not_isolated_or_that_there_is_none() {
    let verdict = verdict(&with([]), "203.0.113.9 > x/a 80/TCP");
    assert_eq!(verdict.egress, Decision::Exempt(Exemption::NoPod));
    let Decision::NotIsolated { subject } = verdict.ingress else { panic!() };
    assert_eq!(subject.to_string(), "x/a");
}
