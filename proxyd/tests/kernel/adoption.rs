//! A start that takes over much, in many transactions, and is as far as the first of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use proxyd::dataplane::Dataplane;
use proxyd::model::NamespacedName;
use proxyd::nftables::Settings;
use proxyd::plan::Plan;
use serde_json::json;

use crate::scene::{dataplane, limit, listed, move_away, name, plan, plans, sorted};

/// Services whose names come after `a` and ahead of `z`, of more elements than a transaction has.
fn many() -> impl Iterator<Item = (NamespacedName, Arc<Plan>)> {
    let endpoints: Vec<_> = (0..1000).map(|it| format!("10.1.{}.{}", it / 250, it % 250)).collect();
    (0..20).map(move |number| {
        let endpoints: Vec<_> = endpoints.iter().map(|it| (it.as_str(), "there")).collect();
        let spec = json!({"clusterIP": format!("10.96.1.{number}"), "ports": [{"port": 80}]});
        (name(&format!("m-{number:02}")), plan("m", &spec, &endpoints))
    })
}

/// What a new one takes over, and many others between the first and the last: the kernel refuses what comes after its first
/// transaction.
fn begun(plans: BTreeMap<NamespacedName, Arc<Plan>>) -> Dataplane {
    limit("cluster-ips", 12);
    let mut dataplane = dataplane(&Settings::default());
    let refused = dataplane.adopt(&plans.into_iter().chain(many()).collect()).unwrap_err();
    assert!(format!("{refused:?}").contains("ENFILE"), "{refused:?}");
    let listed = listed(true);
    assert!(listed.contains("10.96.1.0 . tcp . 80") && !listed.contains("10.96.1.19 . tcp . 80"));
    dataplane
}

/// Where a place leads: the endpoints of its pool.
fn led(place: &str) -> Vec<String> {
    let listed = sorted(&listed(true));
    let number = |it: &String| {
        let (_, number) = it.strip_prefix(place)?.split_once(" : 7200:")?;
        Some(format!("7200:{number} . "))
    };
    let pool = listed.iter().find_map(number).unwrap();
    let endpoints = listed.iter().filter(|it| it.starts_with(&pool));
    endpoints.filter_map(|it| Some(it.split_once(" : ")?.1.to_owned())).collect()
}

#[test]
fn a_place_that_has_passed_on_leads_nobody_to_the_endpoints_of_its_new_service() {
    move_away();
    let of = |ip: &str, node_port: u16, endpoint: &str| {
        let ports = json!([{"port": 80, "nodePort": node_port}]);
        plan(
            "s",
            &json!({"clusterIP": ip, "type": "NodePort", "ports": ports}),
            &[(endpoint, "there")],
        )
    };
    dataplane(&Settings::default())
        .adopt(&plans([("z", of("10.96.0.2", 30_060, "10.244.0.2"))]))
        .unwrap();
    begun(plans([
        ("a", of("10.96.0.1", 30_060, "10.244.0.1")),
        ("z", of("10.96.0.2", 30_061, "10.244.0.2")),
    ]));
    assert_eq!(led("192.0.2.10 . tcp . 30060"), ["10.244.0.1 . 8080"]);
    assert_eq!(led("10.96.0.2 . tcp . 80"), ["10.244.0.2 . 8080"]);
}

#[test]
fn ranges_of_who_may_connect_are_those_of_the_service_that_has_the_place() {
    move_away();
    let of = |ip: &str, balancer: &str, range: &str| {
        let spec = json!({
            "type": "LoadBalancer", "clusterIP": ip, "ports": [{"port": 80}],
            "ingress": [{"ip": balancer}], "loadBalancerSourceRanges": [range],
        });
        plan("s", &spec, &[("10.244.0.2", "there")])
    };
    dataplane(&Settings::default())
        .adopt(&plans([("z", of("10.96.0.2", "192.0.2.77", "203.0.113.0/24"))]))
        .unwrap();
    let chain = |name: &str| {
        let listed = listed(true);
        let (_, rules) = listed.split_once(&format!("chain {name} {{")).unwrap();
        rules.split_once("\n\t}").unwrap().0.to_owned()
    };
    assert!(chain("allow-0").contains("203.0.113.0/24"));
    let mut dataplane = begun(plans([
        ("a", of("10.96.0.1", "192.0.2.77", "198.51.100.0/24")),
        ("z", of("10.96.0.2", "192.0.2.78", "203.0.113.0/24")),
    ]));
    let rules = chain("allow-0");
    assert!(rules.contains("203.0.113.0/24") && !rules.contains("198.51.100.0/24"), "{rules}");
    assert!(listed(true).contains("198.51.100.0/24"));
    dataplane.remove().unwrap();
}

#[test]
fn a_pool_that_remembers_clients_no_more_drops_nobody() {
    move_away();
    let of = |affinity: &str, endpoint: &str| {
        let spec = json!({
            "clusterIP": "10.96.0.1", "ports": [{"port": 80}], "sessionAffinity": affinity,
        });
        plans([("a", plan("a", &spec, &[(endpoint, "there")]))])
    };
    let elements = |set: &str| {
        let listed = listed(true);
        let (_, set) = listed.split_once(&format!(" {set} {{")).unwrap();
        let (_, elements) = set.split_once("\n\t}").unwrap().0.split_once("elements = {")?;
        Some(elements.trim_end_matches(&[' ', '}'][..]).trim().to_owned())
    };
    dataplane(&Settings::default()).adopt(&of("ClientIP", "10.244.0.1")).unwrap();
    assert_eq!(elements("sticky").unwrap(), "7200:0 : goto remember-10800");
    begun(of("None", "10.244.0.2"));
    assert_eq!(["sticky", "sticky-endpoints"].map(elements), [None, None]);
    // One that remembers them still does so with those that it has.
    dataplane(&Settings::default()).remove().unwrap();
    dataplane(&Settings::default()).adopt(&of("ClientIP", "10.244.0.1")).unwrap();
    begun(of("ClientIP", "10.244.0.2"));
    assert_eq!(elements("sticky-endpoints").unwrap(), "7200:0 . 10.244.0.2 . 8080");
}
