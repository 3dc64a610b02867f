use std::net::IpAddr;

use serde_json::{Value, json};

use super::*;
use crate::model::{EndpointSlicePart, ServicePart};
use crate::plan::Frontend;

fn name(name: &str) -> NamespacedName {
    NamespacedName { namespace: "n".to_owned(), name: name.to_owned() }
}

fn service(it: &str, created: Option<i64>, spec: Value) -> Read<Service> {
    let created = created.map(|it| format!("1970-01-01T00:00:{it:02}Z"));
    let part: ServicePart = serde_json::from_value(json!({
        "metadata": {"name": it, "namespace": "n", "creationTimestamp": created}, "spec": spec,
    }))
    .unwrap();
    part.read().0
}

fn slice(it: &str, of: &str, addresses: &[&str]) -> Read<EndpointSlice> {
    let endpoints: Vec<_> = addresses.iter().map(|it| json!({"addresses": [it]})).collect();
    let part: EndpointSlicePart = serde_json::from_value(json!({
        "metadata": {"name": it, "namespace": "n", "labels": {"kubernetes.io/service-name": of}},
        "endpoints": endpoints, "ports": [{"port": 53, "protocol": "UDP"}],
    }))
    .unwrap();
    part.read().0
}

fn spec(ip: &str, external: &[&str]) -> Value {
    json!({"clusterIP": ip, "externalIPs": external, "ports": [{"port": 53, "protocol": "UDP"}]})
}

fn applied(index: &mut Index, service: Read<Service>) {
    index.apply(Event::Services(Change::Applied(service)));
}

fn frontends(changes: &Changes, it: &str) -> Vec<IpAddr> {
    let plan = changes.plans[&name(it)].as_ref().unwrap();
    plan.frontends.keys().map(|it| it.address).collect()
}

fn addresses<const COUNT: usize>(texts: [&str; COUNT]) -> [IpAddr; COUNT] {
    texts.map(|it| it.parse().unwrap())
}

#[test]
fn what_means_nothing_new_is_no_change() {
    let mut index = Index::default();
    applied(&mut index, service("a", None, spec("10.96.0.1", &[])));
    index.apply(Event::Slices(Change::Applied(slice("a-1", "a", &["10.0.0.1"]))));
    assert_eq!(index.take_changes().plans.len(), 1);
    assert_eq!(index.take_changes(), Changes::default());
    // The same endpoint by another slice as well, and a slice of nobody's.
    index.apply(Event::Slices(Change::Applied(slice("a-2", "a", &["10.0.0.1"]))));
    index.apply(Event::Slices(Change::Applied(slice("x-1", "x", &["10.0.0.9"]))));
    assert_eq!(index.take_changes(), Changes::default());
    index.apply(Event::Slices(Change::Removed(slice("a-1", "a", &[]))));
    assert_eq!(index.take_changes(), Changes::default());
    index.apply(Event::Slices(Change::Listed(vec![])));
    assert_eq!(index.take_changes().plans.len(), 1);
}

#[test]
fn a_slice_that_passes_to_another_service_changes_both() {
    let mut index = Index::default();
    for (it, ip) in [("a", "10.96.0.1"), ("b", "10.96.0.2")] {
        applied(&mut index, service(it, None, spec(ip, &[])));
    }
    index.apply(Event::Slices(Change::Applied(slice("s", "a", &["10.0.0.1"]))));
    index.take_changes();
    index.apply(Event::Slices(Change::Applied(slice("s", "b", &["10.0.0.1"]))));
    let changes = index.take_changes();
    assert_eq!(changes.plans.len(), 2);
    let leads: Vec<_> = index.serving(changes.datagrams).values().map(BTreeSet::len).collect();
    assert_eq!(leads, [0, 1]);
}

#[test]
fn of_several_that_want_a_place_the_older_has_it_and_the_clusters_own_first() {
    let mut index = Index::default();
    applied(&mut index, service("new", Some(9), spec("10.96.0.1", &["192.0.2.1", "10.96.0.2"])));
    let changes = index.take_changes();
    let wanted = addresses(["10.96.0.1", "10.96.0.2", "192.0.2.1"]);
    assert_eq!(frontends(&changes, "new"), wanted);
    applied(&mut index, service("old", Some(3), spec("10.96.0.2", &["192.0.2.1"])));
    let changes = index.take_changes();
    assert_eq!(frontends(&changes, "new"), addresses(["10.96.0.1"]));
    assert_eq!(frontends(&changes, "old"), addresses(["10.96.0.2", "192.0.2.1"]));
    assert_eq!(index.plans()[&name("new")].frontends.len(), 1);
    // It has gone: the other one has its place at once.
    index.apply(Event::Services(Change::Removed(service("old", None, json!({})))));
    let changes = index.take_changes();
    assert_eq!(changes.plans[&name("old")], None);
    assert_eq!(frontends(&changes, "new"), wanted);
}

#[test]
fn a_service_that_becomes_headless_is_gone() {
    let mut index = Index::default();
    applied(&mut index, service("a", None, spec("10.96.0.1", &[])));
    index.take_changes();
    applied(&mut index, service("a", None, spec("None", &[])));
    assert_eq!(index.take_changes().plans, [(name("a"), None)].into());
    assert_eq!(index.services(), 0);
}

#[test]
fn another_node_has_other_node_ports() {
    let mut index = Index::default();
    let ports = json!([{"port": 53, "protocol": "UDP", "nodePort": 30053}]);
    applied(&mut index, service("a", None, json!({"clusterIP": "10.96.0.1", "ports": ports})));
    index.take_changes();
    let node = Node { addresses: addresses(["192.0.2.10"]).into(), ..Node::default() };
    index.apply(Event::Node(node.clone()));
    let changes = index.take_changes();
    let frontend = |it: &Frontend| it.way;
    let ways: Vec<_> =
        changes.plans[&name("a")].as_ref().unwrap().frontends.values().map(frontend).collect();
    assert_eq!(ways, [Way::Reject, Way::Reject]);
    index.apply(Event::Node(node));
    assert_eq!(index.take_changes(), Changes::default());
}

#[test]
fn what_has_come_is_counted_whatever_it_means() {
    let triggered = |second: u8| {
        let mut slice = slice("a-1", "a", &["10.0.0.1"]);
        slice.object.as_mut().unwrap().triggered =
            Some(format!("2026-01-01T00:00:{second:02}Z").parse().unwrap());
        slice
    };
    let mut index = Index::default();
    applied(&mut index, service("a", None, spec("10.96.0.1", &[])));
    index.apply(Event::Slices(Change::Applied(triggered(1))));
    index.apply(Event::Slices(Change::Applied(triggered(1))));
    index.apply(Event::Slices(Change::Listed(vec![triggered(2)])));
    let times = ["2026-01-01T00:00:01Z", "2026-01-01T00:00:02Z"];
    let triggers = times.map(|it| it.parse().unwrap()).into();
    assert_eq!(*index.arrivals(), Arrivals { services: 1, slices: 2, triggers });
    index.take_arrivals();
    // Nobody knows when what is gone went.
    index.apply(Event::Slices(Change::Removed(triggered(3))));
    index.apply(Event::Slices(Change::Removed(triggered(3))));
    index.apply(Event::Services(Change::Listed(vec![])));
    let arrivals = Arrivals { services: 1, slices: 1, triggers: vec![] };
    assert_eq!(index.take_arrivals(), arrivals);
    assert_eq!(index.take_arrivals(), Arrivals::default());
}

#[test]
fn ports_without_an_endpoint_of_the_node_are_counted_where_it_should_have_one() {
    let mut index = Index::default();
    let (name, addresses) = ("here".to_owned(), addresses(["192.0.2.10"]).into());
    index.apply(Event::Node(Node { name, addresses, ..Node::default() }));
    let local = |internal: bool, external: bool| {
        let policy = |is_local: bool| if is_local { "Local" } else { "Cluster" };
        json!({
            "clusterIP": "10.96.0.1", "externalIPs": ["192.0.2.1"], "type": "NodePort",
            "ports": [{"port": 53, "protocol": "UDP", "nodePort": 30053}],
            "internalTrafficPolicy": policy(internal), "externalTrafficPolicy": policy(external),
        })
    };
    let mut without = |internal, external, addresses: &[&str]| {
        applied(&mut index, service("a", None, local(internal, external)));
        index.apply(Event::Slices(Change::Listed(vec![slice("a-1", "a", addresses)])));
        index.take_changes();
        index.without_local()
    };
    let elsewhere = ["10.0.0.1"];
    assert_eq!(without(false, false, &elsewhere), WithoutLocal::default());
    assert_eq!(without(true, false, &elsewhere), WithoutLocal { internal: 1, external: 0 });
    assert_eq!(without(true, true, &elsewhere), WithoutLocal { internal: 1, external: 1 });
    // Where nobody has one it is another matter.
    assert_eq!(without(true, true, &[]), WithoutLocal::default());
    assert_eq!(without(true, true, &elsewhere), WithoutLocal { internal: 1, external: 1 });
    index.apply(Event::Services(Change::Listed(vec![])));
    index.take_changes();
    assert_eq!(index.without_local(), WithoutLocal::default());
}
