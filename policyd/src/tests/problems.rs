//! Objects that are wrong: told by field, and never open.

use serde_json::{Value, json};

use super::scene::{assert_packets, compile_pod, compile_policy, pod, policy, with, with_policy};

fn problems(spec: Value) -> Vec<String> {
    let policy = compile_policy(&policy("x/p", spec));
    policy.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn wrong_peers_are_told_with_their_place_and_allow_nothing() {
    let expression = |value: Value| json!({"podSelector": {"matchExpressions": [value]}});
    for (peer, told) in [
        (json!({}), ": a peer needs a podSelector, a namespaceSelector or an ipBlock ({} is none)"),
        (
            json!({"ipBlock": {"cidr": "0.0.0.0/0"}, "podSelector": {}}),
            ": an ipBlock cannot be combined with selectors in one peer (make it two)",
        ),
        (
            expression(json!({"key": "a", "operator": "in", "values": ["b"]})),
            ".podSelector.matchExpressions[0].operator: \"in\" is no operator (In, NotIn, Exists and DoesNotExist are)",
        ),
        (
            expression(json!({"key": "a", "operator": "NotIn", "values": []})),
            ".podSelector.matchExpressions[0].values: operator NotIn needs at least one value",
        ),
        (
            expression(json!({"key": "a", "operator": "Exists", "values": ["b"]})),
            ".podSelector.matchExpressions[0].values: operator Exists takes no values",
        ),
        (
            expression(json!({"key": "a b", "operator": "DoesNotExist"})),
            ".podSelector.matchExpressions[0].key: \"a b\" cannot be the key of a label",
        ),
        (
            expression(json!({"key": "a", "operator": "NotIn", "values": ["-"]})),
            ".podSelector.matchExpressions[0].values: \"-\" cannot be the value of a label",
        ),
        (
            json!({"namespaceSelector": {"matchLabels": {"Example.org/a": "b"}}}),
            ".namespaceSelector.matchLabels[\"Example.org/a\"]: \"Example.org/a\" cannot be the key of a label",
        ),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0"}}),
            ".ipBlock.cidr: \"10.0.0.0\" is not a CIDR (address/prefix length)",
        ),
        (
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "x"]}}),
            ".ipBlock.except[1]: \"x\" is not a CIDR (address/prefix length)",
        ),
    ] {
        let spec =
            json!({"podSelector": {}, "ingress": [{}, {"from": [{"podSelector": {}}, peer]}]});
        let place = "NetworkPolicy x/p: spec.ingress[1].from[1]";
        assert_eq!(problems(spec), [format!("{place}{told}")]);
        let spec = json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}, peer]}]});
        assert_packets(&with_policy(spec), &["!x/b > x/a 80/TCP", "!y/b > x/a 80/TCP"]);
    }
}

#[test]
fn all_entries_that_are_wrong_are_told() {
    let spec = json!({"podSelector": {}, "ingress": [
        {"from": [{}, {"podSelector": {}}, {"ipBlock": {"cidr": "x"}}],
            "ports": [{"port": 0}, {"port": 1}, {"port": 10, "endPort": 5}]}]});
    let told = problems(spec.clone());
    let places: Vec<_> = told.iter().filter_map(|it| it.split(": ").nth(1)).collect();
    let expected = ["from[0]", "from[2].ipBlock.cidr", "ports[0].port", "ports[2].endPort"];
    assert_eq!(places, expected.map(|it| format!("spec.ingress[0].{it}")));
    assert_packets(&with_policy(spec), &["!x/b > x/a 1/TCP"]);
}

/// One tenant's object is the work of every node that his pods are on.
#[test]
fn a_policy_that_is_too_much_for_a_node_isolates_and_the_others_are_as_they_were() {
    let pods = |it| json!({"podSelector": {"matchLabels": {"app": format!("a{it}")}}});
    let peers: Vec<_> = (0..64).map(pods).collect();
    let named: Vec<_> = (0..65).map(|it| json!({"port": format!("p{it}")})).collect();
    let numbers: Vec<_> = (1..=448).map(|it| json!({"port": 2 * it})).collect();
    let block = |it| json!({"ipBlock": {"cidr": format!("10.{}.{}.0/24", it >> 8, it & 255)}});
    let blocks: Vec<_> = (0..8192).map(block).collect();
    let except: Vec<_> = (0..9000).map(|it| format!("10.{}.{}.1/32", it / 250, it % 250)).collect();
    let wide = json!({"cidr": "10.0.0.0/8", "except": except});
    let wide_v6: Vec<_> = (0..1100).map(|it| format!("2001:db8:{it:x}::1/128")).collect();
    let wide_v6 = json!({"cidr": "::/0", "except": wide_v6});
    let of_three =
        |it: &i32| ["TCP", "UDP", "SCTP"].map(|kind| json!({"port": it, "protocol": kind}));
    let few: Vec<_> = [1].iter().flat_map(of_three).collect();
    let told = |rule: Value| problems(json!({"podSelector": {}, "ingress": [rule]}));
    assert_eq!(
        told(json!({"from": peers, "ports": named})),
        [
            "NetworkPolicy x/p: spec.ingress: 4160 combinations of a peer with ports are too many (at most 4096): it allows nothing; make it several policies"
        ]
    );
    let most: Vec<_> = (0..1366).map(pods).collect();
    assert_eq!(told(json!({"from": most, "ports": few})).len(), 1);
    assert_eq!(told(json!({"from": most[..1365], "ports": few})), [""; 0]);
    let many = [json!({"ipBlock": wide}), json!({"ipBlock": wide_v6})];
    assert_eq!(
        told(json!({"from": many})),
        [
            "NetworkPolicy x/p: spec.ingress: its address blocks without their exceptions are more than 131072 networks: it allows nothing; make it several policies"
        ]
    );
    for rule in [
        json!({"from": peers, "ports": numbers}),
        json!({"from": blocks}),
        json!({"from": [many[0]]}),
    ] {
        assert_eq!(told(rule), [""; 0]);
    }
    let spec = json!({"podSelector": {}, "ingress": [{"from": many}, {}]});
    assert_packets(&with_policy(spec.clone()), &["!x/b > x/a 80/TCP", "!192.0.2.1 > x/a 80/TCP"]);
    let other = json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]});
    let both = with([policy("x/p", spec), policy("x/other", other)]);
    assert_packets(&both, &["x/b > x/a 80/TCP", "!192.0.2.1 > x/a 80/TCP"]);
}

#[test]
fn exceptions_must_be_strict_subsets_of_their_block() {
    for except in ["11.0.0.0/16", "10.0.0.0/8", "10.0.0.0/7", "0.0.0.0/0", "fd00::/64"] {
        let block = json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": [except]}});
        let spec = json!({"podSelector": {}, "ingress": [{"from": [block]}]});
        assert_packets(&with_policy(spec.clone()), &["!10.0.2.1 > x/a 80/TCP"]);
        assert_eq!(
            problems(spec),
            [format!(
                "NetworkPolicy x/p: spec.ingress[0].from[0].ipBlock.except[0]: {except} is not a strict subset of cidr 10.0.0.0/8"
            )]
        );
    }
}

#[test]
fn wrong_ports_are_told_with_their_place_and_allow_nothing() {
    let name = "cannot be the name of a port (at most 15 of a-z, 0-9 and -, one of them a letter; a number is written without quotes)";
    for (port, told) in [
        (json!({"port": 80, "endPort": 79}), "endPort: endPort 79 is less than port 80".to_owned()),
        (
            json!({"port": "http", "endPort": 90}),
            "endPort: endPort needs a numeric port".to_owned(),
        ),
        (json!({"endPort": 90}), "endPort: endPort needs a numeric port".to_owned()),
        (json!({"port": 0}), "port: 0 is not a port (1 to 65535)".to_owned()),
        (json!({"port": -1}), "port: -1 is not a port (1 to 65535)".to_owned()),
        (json!({"port": 65536}), "port: 65536 is not a port (1 to 65535)".to_owned()),
        (
            json!({"port": 1, "endPort": 65536}),
            "endPort: 65536 is not a port (1 to 65535)".to_owned(),
        ),
        (json!({"port": "80"}), format!("port: \"80\" {name}")),
        (json!({"port": ""}), format!("port: \"\" {name}")),
        (json!({"port": "a--b"}), format!("port: \"a--b\" {name}")),
        (json!({"port": "sixteen-letters-"}), format!("port: \"sixteen-letters-\" {name}")),
        (
            json!({"protocol": "tcp"}),
            "protocol: \"tcp\" is not a protocol (TCP, UDP and SCTP are)".to_owned(),
        ),
    ] {
        let spec = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": 1}, port]}]});
        assert_packets(&with_policy(spec.clone()), &["!x/a > y/a 80/TCP", "!x/a > y/a 1/TCP"]);
        let place = "NetworkPolicy x/p: spec.egress[0].ports[1]";
        assert_eq!(problems(spec), [format!("{place}.{told}")]);
    }
}

#[test]
fn the_other_rules_of_a_policy_hold() {
    let spec = json!({"podSelector": {}, "ingress": [
        {"ports": [{"protocol": "ICMP"}]}, {"ports": [{"port": 80}]}, {"ports": [{"port": 0}]}]});
    assert_packets(&with_policy(spec.clone()), &["y/b > x/a 80/TCP", "!y/b > x/a 81/TCP"]);
    assert_eq!(problems(spec).len(), 2);
}

#[test]
fn a_wrong_pod_selector_isolates_all_that_it_may_mean_and_allows_nothing() {
    let spec = json!({
        "podSelector": {"matchLabels": {"pod": "a"}, "matchExpressions": [{"key": "x", "operator": "?"}]},
        "ingress": [{}],
    });
    let world = with_policy(spec.clone());
    assert_packets(&world, &["!y/b > x/a 80/TCP", "y/b > x/b 80/TCP", "x/a > y/b 80/TCP"]);
    assert_eq!(
        problems(spec),
        [
            "NetworkPolicy x/p: spec.podSelector.matchExpressions[0].operator: \"?\" is no operator (In, NotIn, Exists and DoesNotExist are)"
        ]
    );
    // All of the namespace, where nothing is known.
    let nothing =
        json!({"podSelector": {"matchLabels": {"a b": "c"}}, "ingress": [{}], "egress": [{}]});
    let world = with_policy(nothing);
    assert_packets(&world, &["!y/b > x/a 80/TCP", "!y/b > x/c 80/TCP", "!x/c > y/b 80/TCP"]);
}

#[test]
fn unknown_policy_types_are_passed_over() {
    let spec = |types: Value| json!({"podSelector": {}, "policyTypes": types, "egress": [{"ports": [{"port": 1}]}]});
    let world = with_policy(spec(json!(["Egress", "ingress"])));
    assert_packets(&world, &["!x/a > y/b 80/TCP", "y/b > x/a 80/TCP"]);
    let world = with_policy(spec(json!(["Both"])));
    assert_packets(&world, &["!x/a > y/b 80/TCP", "!y/b > x/a 80/TCP"]);
    assert_eq!(
        problems(spec(json!(["Egress", "ingress"]))),
        [
            "NetworkPolicy x/p: spec.policyTypes[1]: \"ingress\" is no policy type (Ingress and Egress are)"
        ]
    );
}

#[test]
fn what_is_wrong_in_a_pod_is_left_out_and_told() {
    let mut object = pod("x/a", &["10.0.1.1", "10.0.1", "", "::ffff:10.0.1.2"]);
    object["spec"]["containers"][0]["ports"] = json!([
        {"name": "low", "containerPort": 0},
        {"name": "good", "containerPort": 1},
        {"name": "odd", "containerPort": 2, "protocol": "DCCP"},
    ]);
    let pod = compile_pod(&object);
    let addresses: Vec<_> = pod.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.0.1.1", "10.0.1.2"]);
    assert_eq!(pod.ports.len(), 1);
    let told: Vec<_> = pod.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "Pod x/a: status.podIPs[1].ip: \"10.0.1\" is not an IP address",
            "Pod x/a: spec.containers[0].ports[0].containerPort: 0 is not a port (1 to 65535)",
            "Pod x/a: spec.containers[0].ports[2].protocol: \"DCCP\" is not a protocol (TCP, UDP and SCTP are)",
        ]
    );
}

#[test]
fn label_keys_and_values_of_maximal_length_are_taken() {
    let domain = [["a"; 63].concat(), ["b"; 63].concat(), ["c"; 63].concat(), ["d"; 61].concat()];
    let name = ["n"; 63].concat();
    let key = format!("{}/{name}", domain.join("."));
    let spec = json!({"podSelector": {"matchLabels": {key: name}}});
    assert_eq!(problems(spec), [""; 0]);
    for key in ["/a", "a/", "a/b/c", "", "a_b.org/c", "-a/b", "a..b/c"] {
        let spec = json!({"podSelector": {"matchLabels": {key: "v"}}});
        assert_eq!(problems(spec).len(), 1, "{key}");
    }
}
