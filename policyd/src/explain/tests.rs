use insta::assert_snapshot;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::Transport;
use crate::model::Protocol;
use crate::tests::properties::policy_object;
use crate::tests::scene::{namespace, pod, policy, with, world};

fn query(from: &str, to: &str, traffic: &str) -> Query {
    let traffic = if traffic.is_empty() { Traffic::Any } else { traffic.parse().unwrap() };
    Query { from: from.parse().unwrap(), to: to.parse().unwrap(), traffic }
}

fn text(world: &World, from: &str, to: &str, traffic: &str) -> String {
    explain(world, &query(from, to, traffic)).unwrap().to_string()
}

fn deny(name: &str) -> Value {
    policy(name, json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}))
}

fn pods(labels: Value) -> Value {
    json!({"podSelector": {"matchLabels": labels}})
}

/// In `y`: web may be talked to by some, and by all in one namespace.
fn web() -> World {
    with([
        deny("y/default-deny"),
        policy(
            "y/web",
            json!({"podSelector": {"matchLabels": {"tier": "web"}}, "ingress": [
                {"from": [pods(json!({"pod": "a"}))]},
                {
                    "from": [{
                        "namespaceSelector": {"matchExpressions": [
                            {"key": "ns", "operator": "In", "values": ["x", "z"]},
                        ]},
                        "podSelector": {"matchLabels": {"pod": "b"}},
                    }],
                    "ports": [{"port": "http"}, {"port": 8000, "endPort": 8999}, {"port": "dns", "protocol": "UDP"}],
                },
            ]}),
        ),
    ])
}

#[test]
fn allowed_by_a_rule() {
    assert_snapshot!(text(&web(), "x/b", "y/c", "80/TCP"));
}

#[test]
fn denied_for_the_peer() {
    assert_snapshot!(text(&web(), "x/a", "y/c", "80/TCP"));
}

#[test]
fn denied_for_the_port() {
    assert_snapshot!(text(&web(), "x/b", "y/c", "443"));
}

#[test]
fn denied_on_the_way_out() {
    assert_snapshot!(text(&web(), "y/c", "x/b", "53/udp"));
}

#[test]
fn pings_are_denied_where_ports_are_named() {
    assert_snapshot!(text(&web(), "z/b", "y/c", "icmp"));
}

#[test]
fn without_a_port_the_open_ones_are_told() {
    assert_snapshot!(text(&web(), "x/b", "y/c", ""));
}

#[test]
fn without_a_port_all_may_be_open_or_none() {
    let world = web();
    assert!(text(&world, "x/a", "z/a", "").starts_with("x/a to z/a, anything: allowed\n"));
    assert!(text(&world, "x/c", "y/c", "").starts_with("x/c to y/c, anything: denied\n"));
}

#[test]
fn every_way_not_to_be_a_peer() {
    let expression = |key: &str, operator: &str, values: Value| json!({"podSelector": {"matchExpressions": [{"key": key, "operator": operator, "values": values}]}});
    let world = with([policy(
        "x/p",
        json!({"podSelector": {}, "ingress": [{"from": [
            {"ipBlock": {"cidr": "10.0.0.0/24"}},
            {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.1.0/24", "10.0.0.0/24"]}},
            {"ipBlock": {"cidr": "fd00::/112"}},
            pods(json!({"pod": "b", "app": "x"})),
            {"namespaceSelector": {"matchLabels": {"ns": "y"}}},
            {"namespaceSelector": {}, "podSelector": {"matchLabels": {"tier": "db"}}},
            expression("tier", "NotIn", json!(["web", "db"])),
            expression("tier", "DoesNotExist", json!(null)),
            expression("app", "Exists", json!(null)),
        ]}]}),
    )]);
    assert_snapshot!(text(&world, "10.0.1.3", "x/a", "80/TCP"));
}

#[test]
fn every_way_not_to_be_a_peer_from_elsewhere() {
    let from = json!([{"podSelector": {}}, {"namespaceSelector": {}}]);
    let world = with([
        policy("x/p", json!({"podSelector": {}, "ingress": [{"from": from}]})),
        pod("unknown/a", &["10.9.0.1"]),
    ]);
    let texts = ["unknown/a", "203.0.113.9"].map(|from| text(&world, from, "x/a", "80/TCP"));
    assert_snapshot!(texts.join("\n"));
}

#[test]
fn names_of_ports_mean_what_the_destination_says() {
    let ports = json!([{"port": "http", "protocol": "UDP"}, {"port": "dns"}]);
    let world = with([policy(
        "x/p",
        json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": ports}]}),
    )]);
    let texts = ["y/a", "203.0.113.9"].map(|to| text(&world, "x/a", to, "80/TCP"));
    assert_snapshot!(texts.join("\n"));
}

#[test]
fn families_that_differ_are_told_apart() {
    let world = with([policy(
        "y/p",
        json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]}),
    )]);
    assert_snapshot!(text(&world, "x/a", "y/b", "80/TCP"));
}

#[test]
fn ends_that_are_special() {
    let mut on_host = pod("kube-system/proxy", &["192.0.2.1"]);
    on_host["spec"]["hostNetwork"] = json!(true);
    let world = with([deny("x/deny"), on_host]);
    let texts = [
        ("kube-system/proxy", "x/a"),
        ("192.0.2.1", "x/a"),
        ("192.0.2.2", "x/a"),
        ("x/a", "kube-system/proxy"),
        ("x/a", "10.96.0.10"),
        ("x/a", "x/a"),
        ("10.0.1.1", "10.0.2.2"),
    ]
    .map(|(from, to)| text(&world, from, to, "80/TCP"));
    assert_snapshot!(texts.join("\n"));
}

#[test]
fn an_address_of_two_pods() {
    let mut old = pod("y/old", &["10.0.2.2"]);
    old["metadata"]["deletionTimestamp"] = json!("2026-11-02T00:00:00Z");
    let world = with([deny("y/deny"), old]);
    let texts =
        [("x/a", "10.0.2.2"), ("y/old", "x/a")].map(|(from, to)| text(&world, from, to, "80/TCP"));
    assert_snapshot!(texts.join("\n"));
}

#[test]
fn problems_of_the_objects_are_told() {
    let mut bad = pod("y/bad", &["10.0.2.9", "nonsense"]);
    bad["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(0);
    let world = with([
        bad,
        policy(
            "y/p",
            json!({"podSelector": {}, "ingress": [{"from": [{}]}, {"ports": [{"port": 0}]}]}),
        ),
        policy(
            "y/elsewhere",
            json!({"podSelector": {"matchLabels": {"pod": "none"}}, "ingress": [{"from": [{}]}]}),
        ),
        policy(
            "y/selector",
            json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}, "ingress": [{}]}),
        ),
    ]);
    assert_snapshot!(text(&world, "x/a", "y/bad", "80/TCP"));
}

#[test]
fn the_answer_as_json() {
    let report = explain(&web(), &query("x/b", "y/c", "")).unwrap();
    assert_snapshot!(serde_json::to_string_pretty(&report).unwrap());
}

#[test]
fn questions_without_an_answer() {
    let mut finished = pod("x/done", &["10.0.1.9"]);
    finished["status"]["phase"] = json!("Succeeded");
    let world = with([finished, pod("x/new", &[]), pod("x/six", &["fd00::1:9"])]);
    let asked = [("x/none", "x/a"), ("q/a", "x/a"), ("x/a", "x/done"), ("x/new", "x/a")];
    let families = [("x/six", "10.0.1.1"), ("203.0.113.1", "x/six")];
    let texts = asked
        .into_iter()
        .chain(families)
        .map(|(from, to)| explain(&world, &query(from, to, "80")).unwrap_err().to_string());
    assert_snapshot!(texts.collect::<Vec<_>>().join("\n"));
}

#[test]
fn ends_and_traffic_are_read() {
    for text in ["", "/", "x/", "/x", "a/b/c", "x", "10.0.0.0/8/9"] {
        assert!(text.parse::<End>().is_err(), "{text}");
    }
    assert_eq!("::ffff:10.0.0.1".parse(), Ok(End::Address("10.0.0.1".parse().unwrap())));
    for text in ["", "0/TCP", "65536", "80/ICMP", "http/TCP", "-1", "80/"] {
        assert!(text.parse::<Traffic>().is_err(), "{text}");
    }
    assert_eq!("80".parse(), Ok(Traffic::Port(Protocol::Tcp, 80)));
    assert_eq!("80/sctp".parse(), Ok(Traffic::Port(Protocol::Sctp, 80)));
    assert_eq!("ICMP".parse(), Ok(Traffic::Icmp));
}

#[test]
fn a_pod_created_again_is_the_newer_one() {
    let mut newer = pod("x/a", &["10.0.1.77"]);
    newer["metadata"]["creationTimestamp"] = json!("2026-11-03T00:00:00Z");
    newer["metadata"]["uid"] = json!("newer");
    let world =
        world(&[namespace("x"), newer, pod("x/a", &["10.0.1.1"]), pod("x/b", &["10.0.1.2"])]);
    let report = explain(&world, &query("x/a", "x/b", "80")).unwrap();
    assert_eq!(report.paths[0].addresses[0].source.to_string(), "10.0.1.77");
}

fn pod_name() -> impl Strategy<Value = String> {
    "[xyz]/[abc]"
}

/// Every denied rule says why, and what it says is not empty.
fn assert_reasons(side: &Side) {
    for rule in side.policies.iter().flat_map(|policy| &policy.rules) {
        assert!(!rule.details.is_empty(), "{rule:?}");
        for detail in &rule.details {
            // Nothing is said of a label that is as it should be.
            assert!(!detail.ends_with([' ', ':']), "{detail}");
        }
    }
}

proptest! {
    #[test]
    fn the_answer_is_that_of_the_oracle_and_every_denial_has_reasons(
        policies in proptest::collection::vec(policy_object(), 0..5),
        from in pod_name(), to in pod_name(), port in prop_oneof![Just(53), Just(60), Just(80), 1_u16..],
    ) {
        let world = with(policies);
        let report = explain(&world, &query(&from, &to, &format!("{port}/UDP"))).unwrap();
        for path in &report.paths {
            assert_reasons(&path.egress);
            assert_reasons(&path.ingress);
            for pair in &path.addresses {
                let verdict = evaluate(&world, &Packet {
                    source: pair.source, destination: pair.destination, from_node: None,
                    transport: Transport::Port { protocol: Protocol::Udp, destination_port: port },
                });
                prop_assert_eq!(path.outcome, Outcome::of(verdict.is_allowed()));
                prop_assert_eq!(path.ingress.outcome, Outcome::of(verdict.ingress.is_allowed()));
                prop_assert_eq!(path.egress.outcome, Outcome::of(verdict.egress.is_allowed()));
            }
        }
        let addresses: usize = report.paths.iter().map(|path| path.addresses.len()).sum();
        prop_assert_eq!(addresses, 2);
    }

    #[test]
    fn the_open_ports_are_those_that_the_oracle_allows(
        policies in proptest::collection::vec(policy_object(), 0..5),
        from in pod_name(), to in pod_name(),
    ) {
        let world = with(policies);
        let report = explain(&world, &query(&from, &to, "")).unwrap();
        for path in &report.paths {
            let all = path.outcome == Outcome::Allowed;
            for port in [1, 49, 50, 53, 79, 80, 81, 65_535] {
                let told = all || path.open_ports.iter().any(|span| contains(span, port));
                let asked = explain(&world, &query(&path.addresses[0].source.to_string(),
                    &path.addresses[0].destination.to_string(), &format!("{port}/TCP"))).unwrap();
                prop_assert_eq!(told, asked.outcome == Outcome::Allowed, "{} {:?}", port, path.open_ports);
            }
        }
    }
}

/// Whether a text such as `50-79/TCP` names a port of TCP.
fn contains(span: &str, port: u16) -> bool {
    if span == "every port of TCP" {
        return true;
    }
    let Some(range) = span.strip_suffix("/TCP") else { return false };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    (first.parse().unwrap()..=last.parse().unwrap()).contains(&port)
}
