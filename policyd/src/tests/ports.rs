//! `ports`: numbers, ranges, names and protocols.

use serde_json::{Value, json};

use super::scene::{assert_packets, pod, policy, with, with_policy};

fn ingress(ports: Value) -> Value {
    json!({"podSelector": {}, "ingress": [{"ports": ports}]})
}

fn egress(ports: Value) -> Value {
    json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": ports}]})
}

#[test]
fn a_port_without_protocol_is_of_tcp() {
    let world = with_policy(ingress(json!([{"port": 80}])));
    assert_packets(
        &world,
        &["y/b > x/a 80/TCP", "!y/b > x/a 80/UDP", "!y/b > x/a 80/SCTP", "!y/b > x/a 81/TCP"],
    );
}

#[test]
fn a_protocol_without_port_is_every_port_of_it() {
    let world = with_policy(ingress(json!([{"protocol": "UDP"}])));
    assert_packets(&world, &["y/b > x/a 1/UDP", "y/b > x/a 65535/UDP", "!y/b > x/a 1/TCP"]);
    let world = with_policy(ingress(json!([{}])));
    assert_packets(&world, &["y/b > x/a 1/TCP", "!y/b > x/a 1/UDP", "!y/b > x/a ICMP"]);
}

#[test]
fn sctp_is_a_protocol_of_its_own() {
    let world = with_policy(ingress(json!([{"protocol": "SCTP", "port": 80}])));
    assert_packets(&world, &["y/b > x/a 80/SCTP", "!y/b > x/a 80/TCP", "!y/b > x/a 81/SCTP"]);
}

#[test]
fn ports_of_a_rule_are_united() {
    let world = with_policy(egress(json!([{"port": 80}, {"port": 53, "protocol": "UDP"}])));
    assert_packets(
        &world,
        &["x/a > y/b 80/TCP", "x/a > y/b 53/UDP", "!x/a > y/b 53/TCP", "!x/a > y/b 80/UDP"],
    );
}

#[test]
fn ranges_include_both_ends() {
    for (port, end, inside, outside) in
        [(80, 90, [80, 90], [79, 91]), (80, 80, [80, 80], [79, 81]), (2, 65535, [2, 65535], [1, 1])]
    {
        let world = with_policy(ingress(json!([{"port": port, "endPort": end}])));
        assert_eq!(world.policies[0].problems, []);
        for port in inside {
            assert_packets(&world, &[&format!("y/b > x/a {port}/TCP")]);
        }
        for port in outside {
            assert_packets(&world, &[&format!("!y/b > x/a {port}/TCP")]);
        }
    }
}

#[test]
fn a_rule_with_ports_never_matches_protocols_without() {
    let ports = json!([{"protocol": "TCP"}, {"protocol": "UDP"}, {"protocol": "SCTP"}]);
    let world = with_policy(ingress(ports));
    assert_packets(&world, &["!y/b > x/a ICMP", "!y/b > x/a 47/GRE", "y/b > x/a 1/SCTP"]);
}

#[test]
fn a_name_means_the_destination_pods_port_of_that_name_and_protocol() {
    let world = with_policy(ingress(json!([{"port": "http"}])));
    assert_packets(&world, &["y/b > x/a 80/TCP", "!y/b > x/a 80/UDP", "!y/b > x/a 81/TCP"]);
    let world = with_policy(ingress(json!([{"port": "dns", "protocol": "UDP"}])));
    assert_packets(&world, &["y/b > x/a 53/UDP", "!y/b > x/a 53/TCP"]);
    let world = with_policy(egress(json!([{"port": "http"}])));
    assert_packets(&world, &["x/a > y/b 80/TCP", "x/a > x/b 80/TCP", "!x/a > y/b 81/TCP"]);
}

#[test]
fn one_name_may_be_another_number_for_each_protocol() {
    let mut served = pod("x/served", &["10.0.1.9"]);
    served["spec"]["containers"][0]["ports"] = json!([
        {"name": "dns", "containerPort": 53, "protocol": "UDP"},
        {"name": "dns", "containerPort": 5353, "protocol": "TCP"},
    ]);
    let world = with([served, policy("x/p", ingress(json!([{"port": "dns"}])))]);
    assert_packets(&world, &["y/b > 10.0.1.9 5353/TCP", "!y/b > 10.0.1.9 53/TCP"]);
    assert_packets(&world, &["!y/b > 10.0.1.9 53/UDP", "!y/b > 10.0.1.9 5353/UDP"]);
}

#[test]
fn one_name_may_be_another_number_on_each_pod() {
    let mut other = pod("y/other", &["10.0.2.9"]);
    other["spec"]["containers"][0]["ports"] = json!([{"name": "http", "containerPort": 8080}]);
    let to_y = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [
        {"to": [{"namespaceSelector": {}}], "ports": [{"port": "http"}]}]});
    let world = with([other, policy("x/p", to_y)]);
    assert_packets(&world, &["x/a > 10.0.2.9 8080/TCP", "!x/a > 10.0.2.9 80/TCP"]);
    assert_packets(&world, &["x/a > y/b 80/TCP", "!x/a > y/b 8080/TCP"]);
}

#[test]
fn a_name_that_no_pod_has_matches_nothing_and_isolates() {
    for spec in [ingress(json!([{"port": "absent"}])), egress(json!([{"port": "absent"}]))] {
        let world = with_policy(spec);
        assert_eq!(world.policies[0].problems, []);
        assert_packets(&world, &["!x/b > x/a 80/TCP", "!x/b > x/a 1/TCP", "!x/b > x/a ICMP"]);
    }
    // Next to it, other ports still match.
    let world = with_policy(ingress(json!([{"port": "absent"}, {"port": 81}])));
    assert_packets(&world, &["y/b > x/a 81/TCP", "!y/b > x/a 80/TCP"]);
}

#[test]
fn outside_of_the_cluster_no_port_has_a_name() {
    let world = with_policy(egress(json!([{"port": "http"}])));
    assert_packets(&world, &["!x/a > 203.0.113.9 80/TCP", "x/a > y/b 80/TCP"]);
    let block = |cidr: &str| {
        json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [
            {"to": [{"ipBlock": {"cidr": cidr}}], "ports": [{"port": "http"}]}]})
    };
    assert_packets(&with_policy(block("203.0.113.0/24")), &["!x/a > 203.0.113.9 80/TCP"]);
    // A block may hold pods, and those have names.
    let world = with_policy(block("10.0.2.0/24"));
    assert_packets(&world, &["x/a > 10.0.2.1 80/TCP", "!x/a > 10.0.2.1 81/TCP"]);
}

#[test]
fn sidecars_name_ports_and_other_init_containers_do_not() {
    let mut served = pod("x/served", &["10.0.1.9"]);
    served["spec"]["initContainers"] = json!([
        {"name": "proxy", "restartPolicy": "Always", "ports": [{"name": "proxy", "containerPort": 15001}]},
        {"name": "setup", "ports": [{"name": "proxy", "containerPort": 15002}]},
    ]);
    let world = with([served, policy("x/p", ingress(json!([{"port": "proxy"}])))]);
    assert_packets(&world, &["y/b > 10.0.1.9 15001/TCP", "!y/b > 10.0.1.9 15002/TCP"]);
}

#[test]
fn containers_that_share_a_name_are_united() {
    let mut served = pod("x/served", &["10.0.1.9"]);
    served["spec"]["containers"] = json!([
        {"name": "one", "ports": [{"name": "api", "containerPort": 1}, {"containerPort": 3}]},
        {"name": "two", "ports": [{"name": "api", "containerPort": 2, "protocol": "TCP"}]},
    ]);
    let world = with([served, policy("x/p", ingress(json!([{"port": "api"}])))]);
    assert_packets(
        &world,
        &["y/b > 10.0.1.9 1/TCP", "y/b > 10.0.1.9 2/TCP", "!y/b > 10.0.1.9 3/TCP"],
    );
}
