//! Where it matters who connects.

use serde_json::json;

use crate::by_both;
use crate::client::{Outcome, connect, must_reach};
use crate::objects::{HERE, THERE, leaving, ready};
use crate::site::Site;

by_both! {
    local_endpoints_see_who_comes_from_outside
    without_a_local_endpoint_outsiders_are_not_answered
    inside_connections_stay_on_the_node_where_they_shall
    a_balancers_address_is_for_those_it_is_open_to
    all_are_hidden_where_that_was_asked_for
}

fn local_endpoints_see_who_comes_from_outside(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b"]);
    let keys = json!({
        "type": "LoadBalancer", "externalTrafficPolicy": "Local", "ingress": [{"ip": site.address("balancer")}],
    });
    // The one elsewhere would not answer.
    let far = ready(&site.address("far").to_string(), THERE);
    site.serve(&keys, &[site.ready(["a"]), vec![far]].concat());
    for (address, port) in [("node", 30080), ("balancer", 80)] {
        for _ in 0..10 {
            let (name, seen) = must_reach(site.world(), site.at(address, port));
            assert_eq!((name.as_str(), seen), ("a", site.address("world")), "{address}");
        }
    }
    // The last one of the node serves to its end.
    let here = leaving(&site.address("b").to_string(), HERE);
    let far = ready(&site.address("far").to_string(), THERE);
    site.serve(&keys, &[here, far]);
    assert_eq!(must_reach(site.world(), site.at("node", 30080)).0, "b");
}

fn without_a_local_endpoint_outsiders_are_not_answered(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b"]);
    let keys = json!({"type": "NodePort", "externalTrafficPolicy": "Local"});
    // As on another node, though it is here.
    let elsewhere = ready(&site.address("a").to_string(), THERE);
    site.serve(&keys, &[elsewhere]);
    let to = site.at("node", 30080);
    assert_eq!(connect(site.world(), to), Outcome::Silence);
    // Pods and the node are no outsiders; the node is hidden, a pod is not.
    assert_eq!(must_reach(site.pod("b"), to), ("a".to_owned(), site.address("b")));
    assert_eq!(must_reach(&site.node, to), ("a".to_owned(), site.address("gateway")));
    site.serve(&keys, &[]);
    assert_eq!(connect(site.world(), to), Outcome::Refused);
}

fn inside_connections_stay_on_the_node_where_they_shall(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b"]);
    let keys = json!({"internalTrafficPolicy": "Local", "type": "NodePort"});
    let far = ready(&site.address("far").to_string(), THERE);
    site.serve(&keys, &[site.ready(["a"]), vec![far.clone()]].concat());
    for _ in 0..20 {
        assert_eq!(must_reach(site.pod("b"), site.at("service", 80)).0, "a");
    }
    site.serve(&keys, &[far]);
    assert_eq!(connect(site.pod("b"), site.at("service", 80)), Outcome::Silence);
    site.serve(&keys, &[]);
    assert_eq!(connect(site.pod("b"), site.at("service", 80)), Outcome::Refused);
}

fn a_balancers_address_is_for_those_it_is_open_to(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b"]);
    let keys = |ranges: &[String]| {
        json!({
            "type": "LoadBalancer", "ingress": [{"ip": site.address("balancer")}],
            "loadBalancerSourceRanges": ranges,
        })
    };
    let length = if is_ipv4 { 32 } else { 128 };
    let only = |name: &str| format!("{}/{length}", site.address(name));
    let [world, pod, nobody] = [only("world"), only("b"), only("nobody")];
    let [of_world, of_pod, of_nobody] =
        [&[world.clone(), nobody.clone()][..], &[pod], &[nobody]].map(keys);
    let (to, node_port) = (site.at("balancer", 80), site.at("node", 30080));
    let endpoints = site.ready(["a"]);
    site.serve(&of_world, &endpoints);
    must_reach(site.world(), to);
    assert_eq!(connect(site.pod("b"), to), Outcome::Silence);
    // Node ports are for all.
    must_reach(site.pod("b"), node_port);
    site.serve(&of_pod, &endpoints);
    must_reach(site.pod("b"), to);
    assert_eq!(connect(site.world(), to), Outcome::Silence);
    site.serve(&of_nobody, &endpoints);
    assert_eq!(connect(site.world(), to), Outcome::Silence);
    assert_eq!(connect(&site.node, to), Outcome::Silence);
    // Where nobody is, that is told to all.
    site.serve(&of_nobody, &[]);
    assert_eq!(connect(site.world(), to), Outcome::Refused);
}

fn all_are_hidden_where_that_was_asked_for(is_ipv4: bool) {
    let mut site = Site::with(is_ipv4, |settings| settings.masquerades_all = true);
    site.pods(["a", "b"]);
    site.serve(&json!({}), &site.ready(["a"]));
    let (_, seen) = must_reach(site.pod("b"), site.at("service", 80));
    assert_eq!(seen, site.address("gateway"));
}
