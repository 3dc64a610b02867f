//! Absent, empty and `{}` at each level of the object.

use serde_json::{Value, json};

use super::scene::{assert_packets, compile_policy, policy, with, with_policy};

const TO_A: &str = "y/b > x/a 80/TCP";
const FROM_A: &str = "x/a > y/b 80/TCP";

#[test]
fn without_policies_everything_is_allowed() {
    let world = with([]);
    assert_packets(&world, &[TO_A, FROM_A, "x/a > x/b 9/SCTP", "203.0.113.9 > x/a ICMP"]);
}

#[test]
fn policy_types_default_to_ingress_and_to_egress_where_it_has_rules() {
    let rules = json!([{}]);
    for (types, ingress, egress, isolates) in [
        (json!(null), json!(null), json!(null), (true, false)),
        (json!([]), json!(null), json!(null), (true, false)),
        (json!(null), json!(null), json!([]), (true, false)),
        (json!(null), json!(null), rules.clone(), (true, true)),
        (json!(null), rules.clone(), json!(null), (true, false)),
        (json!(["Ingress"]), json!(null), rules.clone(), (true, false)),
        (json!(["Egress"]), rules.clone(), json!(null), (false, true)),
        (json!(["Egress", "Ingress"]), json!(null), json!(null), (true, true)),
        (json!(["Egress", "Egress"]), json!(null), json!(null), (false, true)),
    ] {
        let spec =
            json!({"podSelector": {}, "policyTypes": types, "ingress": ingress, "egress": egress});
        let policy = compile_policy(&policy("x/p", spec.clone()));
        assert_eq!((policy.ingress.is_some(), policy.egress.is_some()), isolates, "{spec}");
        assert_eq!(policy.problems, []);
    }
}

#[test]
fn rules_of_a_direction_that_is_not_listed_are_ignored() {
    let world = with_policy(json!({
        "podSelector": {},
        "policyTypes": ["Egress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"pod": "b"}}}]}],
    }));
    assert_packets(&world, &[TO_A, "z/c > x/a 1/UDP", "!x/a > y/b 80/TCP"]);
}

#[test]
fn absent_and_empty_rules_allow_nothing() {
    for rules in [json!(null), json!([])] {
        let world = with_policy(json!({
            "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
            "ingress": rules, "egress": rules,
        }));
        assert_packets(
            &world,
            &["!y/b > x/a 80/TCP", "!x/a > y/b 80/TCP", "!x/a > x/b 80/TCP", "!y/b > x/a ICMP"],
        );
    }
}

#[test]
fn an_empty_rule_allows_everything() {
    for rule in [
        json!({}),
        json!({"from": []}),
        json!({"ports": []}),
        json!({"from": [], "ports": []}),
        json!({"from": null, "ports": null}),
    ] {
        let world = with_policy(json!({"podSelector": {}, "ingress": [rule]}));
        assert_packets(
            &world,
            &[TO_A, "z/c > x/a ICMP", "203.0.113.9 > x/a 443/UDP", "y/a > x/a 47/GRE"],
        );
    }
}

#[test]
fn an_empty_pod_selector_selects_the_policys_namespace_only() {
    for selector in [json!({}), json!(null), json!({"matchLabels": {}, "matchExpressions": []})] {
        let world = with_policy(json!({"podSelector": selector}));
        assert_packets(
            &world,
            &["!y/b > x/a 80/TCP", "!y/b > x/b 80/TCP", "!x/a > x/c 80/TCP", "x/a > y/b 80/TCP"],
        );
    }
}

#[test]
fn a_policy_without_spec_denies_ingress_to_its_namespace() {
    let mut object = policy("x/p", json!({}));
    object.as_object_mut().unwrap().remove("spec");
    assert_packets(&with([object]), &["!y/b > x/a 80/TCP", FROM_A]);
}

#[test]
fn a_manifest_without_namespace_is_of_the_default_one() {
    let mut object = policy("x/p", json!({}));
    object["metadata"] = json!({"name": "p"});
    assert_eq!(compile_policy(&object).name.to_string(), "default/p");
}

#[test]
fn the_selector_chooses_whom_the_policy_isolates() {
    let world = with_policy(json!({"podSelector": {"matchLabels": {"pod": "a"}}}));
    assert_packets(&world, &["!y/b > x/a 80/TCP", "y/b > x/b 80/TCP", "x/b > y/a 80/TCP"]);
}

#[test]
fn policies_are_united() {
    let allow = |pod: &str| -> Value {
        json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"pod": pod}}}]}]})
    };
    let world = with([policy("x/b", allow("b")), policy("x/c", allow("c"))]);
    assert_packets(&world, &["x/b > x/a 80/TCP", "x/c > x/a 80/TCP", "!y/b > x/a 80/TCP"]);
    let deny = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    let world = with([policy("x/b", allow("b")), policy("x/deny", deny)]);
    assert_packets(&world, &["!x/b > x/a 80/TCP", "!x/c > x/a 80/TCP"]);
}

#[test]
fn both_ends_must_allow_and_each_by_its_own_direction() {
    // One policy of both ends: what it allows in does not let the other out.
    let world = with_policy(json!({
        "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{}],
        "egress": [{"to": [{"podSelector": {"matchLabels": {"pod": "c"}}}]}],
    }));
    assert_packets(&world, &["!x/a > x/b 80/TCP", "x/a > x/c 80/TCP", "y/a > x/b 80/TCP"]);
    let world = with_policy(json!({
        "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"pod": "c"}}}]}],
        "egress": [{}],
    }));
    assert_packets(&world, &["!x/a > x/b 80/TCP", "x/c > x/a 80/TCP", "x/a > y/b 80/TCP"]);
}
