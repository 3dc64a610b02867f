//! What holds for all policies, on random ones over the nine pods.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::scene::{compile_policy, packet, packet6, policy, with};
use crate::evaluate::Decision;
use crate::model::Direction::{self, Egress, Ingress};
use crate::model::Policy;
use crate::{Packet, World, evaluate};

const NAMESPACES: [&str; 3] = ["x", "y", "z"];
const PODS: [&str; 3] = ["a", "b", "c"];

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
        json!({"cidr": "::/0", "except": ["fd00::2:0/112"]}),
        json!({"cidr": "10.0.0.0/16", "except": ["10.0.2.0/24", "10.0.1.1/32"]}),
        json!({"cidr": "10.0.2.0/24"}),
    ]);
    prop_oneof![
        selector().prop_map(|pods| json!({"podSelector": pods})),
        selector().prop_map(|namespaces| json!({"namespaceSelector": namespaces})),
        (selector(), selector())
            .prop_map(|(one, two)| json!({"podSelector": one, "namespaceSelector": two})),
        block.prop_map(|block| json!({"ipBlock": block})),
        // What is wrong must not break any property.
        Just(json!({})),
    ]
}

fn port() -> impl Strategy<Value = Value> {
    select(vec![
        json!({}),
        json!({"port": 80}),
        json!({"port": 50, "endPort": 79}),
        json!({"port": "http"}),
        json!({"port": "dns", "protocol": "UDP"}),
        json!({"protocol": "SCTP"}),
        json!({"port": 80, "endPort": 1}),
    ])
}

fn rules(peers: &'static str) -> impl Strategy<Value = Vec<Value>> {
    let rule = (vec(peer(), 0..3), vec(port(), 0..3));
    vec(rule.prop_map(move |(list, ports)| json!({peers: list, "ports": ports})), 0..3)
}

pub(crate) fn policy_object() -> impl Strategy<Value = Value> {
    let types = select(vec![
        json!(["Ingress"]),
        json!(["Egress"]),
        json!(["Ingress", "Egress"]),
        json!(null),
    ]);
    let name = (select(&NAMESPACES), "[a-z]{8}").prop_map(|(it, name)| format!("{it}/{name}"));
    (name, selector(), types, rules("from"), rules("to")).prop_map(
        |(name, selector, types, ingress, egress)| {
            policy(
                &name,
                json!({
                    "podSelector": selector, "policyTypes": types,
                    "ingress": ingress, "egress": egress,
                }),
            )
        },
    )
}

pub(crate) fn any_packet() -> impl Strategy<Value = Packet> {
    let pod = || (select(&NAMESPACES), select(&PODS)).prop_map(|(ns, pod)| format!("{ns}/{pod}"));
    let transport = select(vec!["80/TCP", "79/TCP", "53/UDP", "80/SCTP", "ICMP", "47/GRE"]);
    let inside =
        (pod(), pod(), transport.clone(), any::<bool>()).prop_map(|(one, two, what, six)| {
            let text = format!("{one} > {two} {what}");
            if six { packet6(&text) } else { packet(&text) }
        });
    let outside = (pod(), any::<bool>(), transport).prop_map(|(pod, out, what)| {
        let far = "203.0.113.9";
        let (one, two) = if out { (pod.as_str(), far) } else { (far, pod.as_str()) };
        packet(&format!("{one} > {two} {what}"))
    });
    prop_oneof![3 => inside, 1 => outside]
}

fn decide(world: &World, packet: &Packet, direction: Direction) -> Decision {
    evaluate(world, packet).decision(direction).clone()
}

fn isolates(policy: &Policy, world: &World, packet: &Packet, direction: Direction) -> bool {
    let address = if direction == Ingress { packet.destination } else { packet.source };
    policy.rules(direction).is_some()
        && world.subject_at(address).is_some_and(|pod| policy.selects(pod))
}

proptest! {
    #[test]
    fn one_more_policy_only_adds_to_what_an_isolated_pod_is_allowed(
        policies in vec(policy_object(), 0..4),
        added in policy_object(),
        packets in vec(any_packet(), 40),
    ) {
        let before = with(policies);
        let added = compile_policy(&added);
        let mut after = before.clone();
        after.policies.push(added.clone());
        let mut alone = with([]);
        alone.policies.push(added.clone());
        for (packet, direction) in packets.iter().flat_map(|it| [(it, Ingress), (it, Egress)]) {
            let old = decide(&before, packet, direction);
            let new = decide(&after, packet, direction);
            let own = decide(&alone, packet, direction);
            match (&old, isolates(&added, &before, packet, direction)) {
                // Whom it does not isolate it does not concern.
                (_, false) | (Decision::Exempt(_), true) => prop_assert_eq!(new, old),
                // The first one takes everything away but what it allows.
                (Decision::NotIsolated { .. }, true) => prop_assert_eq!(new, own),
                (Decision::Isolated { .. }, true) => {
                    prop_assert_eq!(new.is_allowed(), old.is_allowed() || own.is_allowed());
                }
            }
        }
    }

    #[test]
    fn the_order_of_objects_does_not_matter(
        world in vec(policy_object(), 0..4).prop_map(with),
        seed in any::<usize>(),
        packets in vec(any_packet(), 20),
    ) {
        let mut turned = world.clone();
        turned.pods.rotate_left(seed % world.pods.len());
        turned.pods.swap(0, seed % 7);
        turned.namespaces.rotate_left(seed % world.namespaces.len());
        turned.policies.reverse();
        for packet in packets {
            prop_assert_eq!(evaluate(&world, &packet), evaluate(&turned, &packet));
        }
    }

    #[test]
    fn the_order_within_policies_and_their_names_do_not_matter(
        policies in vec(policy_object(), 0..4),
        packets in vec(any_packet(), 20),
    ) {
        let world = with(policies.clone());
        let renamed = policies.into_iter().enumerate().map(|(index, mut policy)| {
            policy["metadata"]["name"] = json!(format!("renamed-{}", 9 - index));
            policy["metadata"]["uid"] = json!("");
            for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
                let rules = policy["spec"][direction].as_array_mut().unwrap();
                rules.reverse();
                for rule in rules {
                    rule[peers].as_array_mut().unwrap().reverse();
                    rule["ports"].as_array_mut().unwrap().reverse();
                }
            }
            policy
        });
        let renamed = with(renamed);
        for packet in packets {
            let (one, two) = (evaluate(&world, &packet), evaluate(&renamed, &packet));
            prop_assert_eq!(one.ingress.is_allowed(), two.ingress.is_allowed());
            prop_assert_eq!(one.egress.is_allowed(), two.egress.is_allowed());
        }
    }

    #[test]
    fn an_empty_rule_allows_everything_in_its_direction(
        mut policies in vec(policy_object(), 1..4),
        packets in vec(any_packet(), 20),
    ) {
        for direction in ["ingress", "egress"] {
            policies[0]["spec"][direction].as_array_mut().unwrap().push(json!({}));
        }
        let world = with(policies);
        for (packet, direction) in packets.iter().flat_map(|it| [(it, Ingress), (it, Egress)]) {
            if isolates(&world.policies[0], &world, packet, direction) {
                prop_assert!(decide(&world, packet, direction).is_allowed());
            }
        }
    }

    #[test]
    fn whatever_a_rule_contains_its_policy_isolates(
        text in "\\PC{0,20}", cidr in "[0-9:.f]{1,9}/[0-9]{1,3}", port: i32, end: Option<i32>,
        operator in "(In|NotIn|Exists|DoesNotExist|.{1,5})",
    ) {
        let selector = json!({"matchExpressions": [{"key": text, "operator": operator, "values": [text]}]});
        let policy = compile_policy(&policy("x/p", json!({
            "podSelector": selector,
            "policyTypes": ["Ingress", text],
            "ingress": [
                {"from": [{"podSelector": selector}, {"ipBlock": {"cidr": text, "except": [cidr]}}]},
                {"from": [{"ipBlock": {"cidr": cidr, "except": [text, cidr]}}]},
                {"ports": [{"port": port, "endPort": end}, {"port": text, "protocol": text}]},
            ],
        })));
        prop_assert_eq!(policy.rules(Ingress).unwrap().len(), 3);
        prop_assert!(!policy.problems.is_empty());
    }
}
