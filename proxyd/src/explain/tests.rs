//! Answers, as people read them.

use cluster::Change;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::index::Event;
use crate::model::{EndpointSlicePart, ServicePart};
use crate::nftables::{Local, Scheduler, Settings};
use crate::plan::Node;

fn settings() -> Settings {
    Settings {
        local: Local::Ranges(vec!["10.1.0.0/16".parse().unwrap(), "fd00:1::/64".parse().unwrap()]),
        service_ranges: vec!["10.96.0.0/16".parse().unwrap()],
        ..Settings::default()
    }
}

/// A world with these Services and slices, on the node "here" in zone "z".
fn world(settings: Settings, services: &[Value], slices: &[Value]) -> World {
    world_at("192.0.2.10", settings, services, slices)
}

/// The same, where the node has this address.
fn world_at(address: &str, settings: Settings, services: &[Value], slices: &[Value]) -> World {
    let node = Node {
        name: "here".to_owned(),
        zone: Some("z".to_owned()),
        addresses: [address.parse().unwrap()].into(),
        ..Node::default()
    };
    let service = |it: &Value| serde_json::from_value::<ServicePart>(it.clone()).unwrap().read().0;
    let slice =
        |it: &Value| serde_json::from_value::<EndpointSlicePart>(it.clone()).unwrap().read().0;
    let events = [
        Event::Node(node),
        Event::Services(Change::Listed(services.iter().map(service).collect())),
        Event::Slices(Change::Listed(slices.iter().map(slice).collect())),
    ];
    let (sender, mut receiver) = mpsc::channel(3);
    events.into_iter().for_each(|it| sender.try_send(it).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(World::gather(&mut receiver, settings, |it| it)).unwrap()
}

fn service(name: &str, spec: &Value) -> Value {
    let mut object = json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "web", "port": 80, "nodePort": 30080}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}},
    });
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    object
}

fn slice(of: &str, endpoints: &[Value]) -> Value {
    json!({
        "metadata": {
            "name": of, "namespace": "default", "labels": {"kubernetes.io/service-name": of},
        },
        "ports": [{"name": "web", "port": 8080}],
        "endpoints": endpoints,
    })
}

fn endpoint(place: u8, node: &str) -> Value {
    json!({"addresses": [format!("10.1.0.{place}")], "nodeName": node})
}

fn leaving(place: u8, node: &str) -> Value {
    let mut endpoint = endpoint(place, node);
    endpoint["conditions"] = json!({"ready": false, "serving": true, "terminating": true});
    endpoint
}

fn asked(world: &World, to: &str, from: Option<&str>) -> String {
    let from = from.map_or(Who::Anybody, |it| it.parse().unwrap());
    explain(world, &Query { to: to.parse().unwrap(), from }).unwrap().to_string()
}

/// What is said of a world with one Service.
fn told(spec: &Value, endpoints: &[Value], to: &str, from: Option<&str>) -> String {
    asked(&world(settings(), &[service("s", spec)], &[slice("s", endpoints)]), to, from)
}

#[test]
fn a_cluster_address_leads_to_endpoints() {
    let mut not_ready = endpoint(3, "there");
    not_ready["conditions"] = json!({"ready": false});
    let endpoints = [endpoint(1, "here"), endpoint(2, "there"), not_ready];
    insta::assert_snapshot!(told(
        &json!({"sessionAffinity": "ClientIP"}),
        &endpoints,
        "10.96.0.1:80",
        None
    ));
    // Who is an endpoint itself.
    insta::assert_snapshot!(told(&json!({}), &endpoints[..1], "10.96.0.1:80", Some("10.1.0.1")));
}

#[test]
fn policies_lead_some_to_the_nodes_own_endpoints() {
    let endpoints = [endpoint(1, "here"), endpoint(2, "there")];
    let both = json!({
        "type": "LoadBalancer", "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local",
    });
    for to in ["10.96.0.1:80", "192.0.2.10:30080"] {
        insta::assert_snapshot!(told(&both, &endpoints, to, None));
    }
    // Only another node has one.
    for to in ["10.96.0.1:80", "198.51.100.1:80"] {
        insta::assert_snapshot!(told(&both, &endpoints[1..], to, None));
    }
}

#[test]
fn a_balancers_address_is_for_those_whom_ranges_hold() {
    let spec = json!({
        "type": "LoadBalancer", "loadBalancerSourceRanges": ["203.0.113.0/24", "192.0.2.10/32"],
    });
    let endpoints = [endpoint(1, "here")];
    for from in [None, Some("203.0.113.7"), Some("203.0.114.7"), Some("node"), Some("10.1.0.7")] {
        insta::assert_snapshot!(told(&spec, &endpoints, "198.51.100.1:80", from));
    }
}

#[test]
fn near_endpoints_and_those_on_their_end_are_told_apart() {
    let near = |place: u8, zone: &str| {
        let mut endpoint = endpoint(place, "there");
        endpoint["hints"] = json!({"forZones": [{"name": zone}]});
        endpoint
    };
    let endpoints = [near(1, "y"), near(2, "z")];
    insta::assert_snapshot!(told(&json!({}), &endpoints, "10.96.0.1:80", Some("pod")));
    let endpoints = [leaving(1, "here"), leaving(2, "there")];
    insta::assert_snapshot!(told(&json!({}), &endpoints, "10.96.0.1:80", Some("outside")));
}

#[test]
fn who_is_refused_is_told_why() {
    let mut not_ready = endpoint(1, "here");
    not_ready["conditions"] = json!({"ready": false});
    for (endpoints, to) in [
        (vec![], "10.96.0.1:80"),
        (vec![not_ready], "10.96.0.1:80"),
        (vec![endpoint(1, "here")], "10.96.0.1:81"),
        (vec![endpoint(1, "here")], "10.96.0.1:80/udp"),
    ] {
        insta::assert_snapshot!(told(&json!({}), &endpoints, to, Some("pod")));
    }
    // The slice has a port of another name.
    let ports = json!({"ports": [{"name": "other", "port": 80}]});
    insta::assert_snapshot!(told(&ports, &[endpoint(1, "here")], "10.96.0.1:80", Some("pod")));
}

#[test]
fn what_nobody_has_is_left_alone_or_dropped() {
    let headless = service("headless", &json!({"clusterIP": "None"}));
    let mut others =
        service("others", &json!({"clusterIP": "10.97.0.9", "externalIPs": ["192.0.2.9"]}));
    others["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": "theirs"});
    let mut in_range = service("in-range", &json!({"clusterIP": "10.96.0.9"}));
    in_range["metadata"]["labels"] = others["metadata"]["labels"].clone();
    let services = [service("s", &json!({})), headless, others, in_range];
    let slices = [slice("s", &[]), slice("headless", &[endpoint(5, "there")])];
    let world = world(settings(), &services, &slices);
    for to in [
        "10.96.0.77:80",
        "10.1.0.5:8080",
        "192.0.2.9:80",
        "203.0.113.1:30080",
        "203.0.113.1:5",
        "10.96.0.9:80",
    ] {
        insta::assert_snapshot!(asked(&world, to, None));
    }
}

#[test]
fn who_lost_a_place_is_told() {
    let external = json!({"externalIPs": ["192.0.2.50"]});
    let mut newer = service("newer", &external);
    newer["spec"]["clusterIP"] = json!("10.96.0.2");
    newer["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    let slices = [slice("s", &[endpoint(1, "here")]), slice("newer", &[endpoint(2, "here")])];
    let world = world(settings(), &[service("s", &external), newer], &slices);
    insta::assert_snapshot!(asked(&world, "192.0.2.50:80", Some("outside")));
}

#[test]
fn the_nodes_own_localhost_is_for_the_node() {
    let settings = Settings { scheduler: Scheduler::SourceHash, ..settings() };
    let slices = [slice("s", &[endpoint(1, "here"), endpoint(2, "there")])];
    let world = world_at("127.0.0.1", settings, &[service("s", &json!({}))], &slices);
    let text = asked(&world, "127.0.0.1:30080", None);
    for line in [
        "    each client's address says to which endpoint (--scheduler source-hash)\n",
        "  from pods and outside: dropped: only the node itself reaches its own 127.0.0.0/8\n",
        "  from the node: led to one of 2 endpoints; masqueraded, so that answers come back by this node\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let text = asked(&world, "127.0.0.1:30080", Some("127.0.0.1"));
    assert!(text.contains("from 127.0.0.1: led to one of 2 endpoints"), "{text}");
}

#[test]
fn many_endpoints_are_counted() {
    let endpoints: Vec<_> = (1..=200).map(|it| endpoint(it, "there")).collect();
    let text = told(&json!({}), &endpoints, "10.96.0.1:80", Some("pod"));
    assert!(text.contains("to one of 200 endpoints"), "{text}");
    assert!(text.contains("and 180 more endpoints"), "{text}");
    assert_eq!(text.lines().count(), 5 + 20, "{text}");
}

#[test]
fn pods_are_told_by_what_the_settings_say() {
    let settings = |local| Settings { local, ..settings() };
    let services = [service("s", &json!({}))];
    let slices = [slice("s", &[endpoint(1, "here")])];
    let world = |local| world(settings(local), &services, &slices);
    let to = || "10.96.0.1:80".parse().unwrap();
    // Where nobody knows who is a pod nobody is hidden.
    let text = asked(&world(Local::Unknown), "10.96.0.1:80", None);
    assert!(text.contains("from pods, the node and outside: led to the only endpoint"), "{text}");
    let bridged = world(Local::Interface("cni0".to_owned()));
    let address = "10.1.0.9".parse().unwrap();
    let from = |interface: Option<&str>| {
        let from = Who::Address { address, interface: interface.map(str::to_owned) };
        explain(&bridged, &Query { to: to(), from })
    };
    assert_eq!(from(None), Err(Error::Interface(address)));
    let is_masqueraded = |it: &str| from(Some(it)).unwrap().ways[0].is_masqueraded;
    assert_eq!(["cni0", "eth0"].map(is_masqueraded), [false, true]);
    let other = Query { to: to(), from: "fd00::1".parse().unwrap() };
    assert!(matches!(explain(&bridged, &other), Err(Error::Families { .. })));
}

#[test]
fn pods_come_to_a_load_balancer_only_from_its_source_ranges() {
    let to = "198.51.100.1:80";
    let told = |sources: &[&str], from: Option<&str>| {
        let spec = json!({"type": "LoadBalancer", "loadBalancerSourceRanges": sources});
        told(&spec, &[endpoint(1, "here")], to, from)
    };
    insta::assert_snapshot!(told(&["192.0.2.100/32"], Some("pod")));
    insta::assert_snapshot!(told(&["192.0.2.100/32", "10.1.5.0/24"], None));
    // What is said of one of them is the same.
    assert!(told(&["192.0.2.100/32"], Some("10.1.0.9")).contains("do not let it in"));
    assert!(told(&["10.1.0.0/16"], Some("pod")).contains("led to an endpoint"));
}
