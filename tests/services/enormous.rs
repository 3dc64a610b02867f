//! Objects that are as large as can be, or not as they should be.

use std::fs;
use std::net::{SocketAddr, UdpSocket};

use serde_json::{Value, json};

use crate::client::{Outcome, connect, must_ask, must_reach, udp};
use crate::daemon::{asked, eventually, metric, served, slice};
use crate::server::PORT;
use crate::site::Site;
use crate::steady::Steady;

/// As many endpoints as one service has, in slices as the controller makes them.
const ENDPOINTS: usize = 10_000;
const OF_SLICE: usize = 100;
/// As many ports as one service has.
const PORTS: u16 = 1000;
/// As many flows of datagrams lead to one endpoint.
const FLOWS: u16 = 20_000;

fn count(site: &Site, map: &str) -> usize {
    let text = site.node.sh(&format!("nft -s list map ip podwire-proxy {map}"));
    text.matches(" : ").count() - text.lines().filter(|it| it.trim().starts_with("type")).count()
}

fn big_service(name: &str, address: &str, ports: &[Value]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": address, "ports": ports},
    })
}

fn big_slice(service: &str, number: usize, endpoints: &[Value], ports: &[Value]) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-{number}"), "namespace": "default",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4", "endpoints": endpoints, "ports": ports,
    })
}

#[test]
fn ten_thousand_endpoints_and_a_thousand_ports_come_change_and_go() {
    let (site, folder, _daemon) = served(true, &["a"]);
    let steady = Steady::start(site.pod("c"), site.at("service", 80));
    // A chain that the site had, with other settings.
    eventually("its own alone", || !site.tables().contains("chain unused-addresses"));
    let before = site.content();
    let port = |number: u16| json!({"name": format!("p{number}"), "port": number});
    let slices = |less: usize| {
        let endpoint =
            |it: usize| json!({"addresses": [format!("10.8.{}.{}", it / 250, it % 250 + 1)]});
        let all: Vec<_> = (0..ENDPOINTS - less).map(endpoint).collect();
        let port = [json!({"name": "p80", "port": 8080})];
        let slices = all.chunks(OF_SLICE).enumerate();
        let mut items: Vec<_> =
            slices.map(|(number, it)| big_slice("many-endpoints", number, it, &port)).collect();
        items.push(big_service(
            "many-endpoints",
            "10.96.9.1",
            &[json!({"name": "p80", "port": 80})],
        ));
        json!({"apiVersion": "v1", "kind": "List", "items": items})
    };
    folder.write("endpoints.json", &slices(0));
    let ports: Vec<_> = (1..=PORTS).map(port).collect();
    let target = json!({"addresses": [site.address("b")]});
    let at_b: Vec<_> =
        (1..=PORTS).map(|it| json!({"name": format!("p{it}"), "port": PORT})).collect();
    folder.write("ports.json", &big_service("many-ports", "10.96.9.2", &ports));
    folder.write("ports-slice.json", &big_slice("many-ports", 0, &[target], &at_b));
    let beside = 2;
    let all = ENDPOINTS + usize::from(PORTS) + beside;
    eventually("all endpoints", || count(&site, "endpoints") == all);
    // Each of the ports leads where it should.
    for port in [1, 500, PORTS] {
        let to = SocketAddr::new("10.96.9.2".parse().expect("an address"), port);
        assert_eq!(must_reach(site.pod("a"), to).0, "b");
    }
    folder.write("endpoints.json", &slices(10));
    eventually("some fewer", || count(&site, "endpoints") == all - 10);
    for name in ["endpoints.json", "ports.json", "ports-slice.json"] {
        fs::remove_file(folder.manifests().join(name)).expect("a file");
    }
    // Chains that nobody needs go some time later.
    eventually("as before", || site.content() == before);
    steady.end();
}

#[test]
fn what_cannot_be_is_told_and_keeps_nothing_else() {
    let (site, folder, _daemon) = served(true, &["a"]);
    let port = json!([{"name": "p", "port": 80}]);
    let wrong = [
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "w", "namespace": "default"}, "spec": {"clusterIP": "10.96.0.300", "ports": port}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "w", "namespace": "default"}, "spec": {"clusterIP": "10.96.7.1", "ports": [{"port": 70000}]}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "w", "namespace": "default"}, "spec": {"clusterIP": "10.96.7.1", "ports": "80"}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "w", "namespace": "default"}, "spec": [1]}),
        json!({"apiVersion": "v1", "kind": "Service", "spec": {}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "we\"b\n1", "namespace": "default"}, "spec": {"clusterIP": "10.96.7.1", "ports": port}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "w", "namespace": "default"}, "spec": {"clusterIP": "10.96.7.1", "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80}]}}),
        big_slice("s", 7, &[json!({"addresses": ["fd00::1"]})], &[json!({"port": -1})]),
        json!([[[[[[[[1]]]]]]]]),
        json!("service"),
        json!({"apiVersion": "v1", "kind": "List", "items": {"a": 1}}),
    ];
    for (number, object) in wrong.iter().enumerate() {
        folder.write(&format!("wrong-{number}.json"), object);
    }
    fs::write(folder.manifests().join("cut.json"), "{\"apiVersion\": \"v1\", ").expect("a file");
    fs::write(folder.manifests().join("bytes.json"), [0_u8, 255, 1, 2]).expect("a file");
    let defective = wrong.len() + 2;
    eventually("all defects", || {
        metric(&site, "podwire_proxy_defective_manifests")
            == f64::from(u32::try_from(defective).expect("few"))
    });
    folder.write("slice.json", &slice(&site, &["b"]));
    eventually("the other endpoint", || must_reach(&site.node, site.at("service", 80)).0 == "b");
    assert!(asked(&site, "/readyz").is_some_and(|it| it.starts_with("HTTP/1.1 200 ")));
}

/// The kernel's table of connections has many flows to an endpoint that goes: they go with it, and nothing else waits for that.
#[test]
fn many_flows_are_forgotten_at_once() {
    let (site, folder, _daemon) = served(true, &["a"]);
    let to = site.at("service", 80);
    let steady = Steady::start(site.pod("c"), to);
    site.pod("b").enter(|| {
        for port in 0..FLOWS {
            let from = SocketAddr::new(site.address("b"), 20_000 + port);
            let socket = UdpSocket::bind(from).expect("a free port");
            socket.send_to(b"x", to).expect("a route");
        }
    });
    let flows = || {
        let text = site.node.sh("conntrack -L -p udp -d 10.96.0.1 2>/dev/null | wc -l");
        text.trim().parse::<u16>().expect("a number")
    };
    assert!(flows() >= FLOWS, "{} flows", flows());
    let client = udp(site.pod("b"), to);
    assert_eq!(must_ask(&client), "a");
    let rounds = || metric(&site, "kubeproxy_conntrack_reconciler_sync_duration_seconds_count");
    let before = rounds();
    folder.write("slice.json", &slice(&site, &["b"]));
    eventually("the flow", || must_ask(&client) == "b");
    eventually("all flows", || flows() < 10);
    // Others had their turn meanwhile.
    assert!(rounds() >= before + 3.0, "{before} {}", rounds());
    assert!(
        metric(&site, "kubeproxy_conntrack_reconciler_deleted_entries_total") >= f64::from(FLOWS)
    );
    assert_ne!(connect(&site.node, to), Outcome::Silence);
    steady.end();
}
