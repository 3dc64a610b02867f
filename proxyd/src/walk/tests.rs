//! What the maps do is what Kubernetes says, for random services, endpoints and clients.

use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::model::{
    Endpoint, EndpointPort, EndpointSlice, NamespacedName, Port, Protocol, Service,
};
use crate::nftables::{Local, Render, Settings};
use crate::plan::{Node, Plan};
use crate::sorted;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn name() -> NamespacedName {
    NamespacedName { namespace: "n".to_owned(), name: "s".to_owned() }
}

fn port(place: u16) -> impl Strategy<Value = Port> {
    (select(vec![Protocol::Tcp, Protocol::Udp]), 80..82_u16, prop::option::of(Just(30_000 + place)))
        .prop_map(move |(protocol, port, node_port)| Port {
            name: place.to_string(),
            protocol,
            port,
            node_port,
        })
}

fn service() -> impl Strategy<Value = Service> {
    // No two ports have the same number and protocol: the API server sees to that.
    let ports = (port(0), port(1)).prop_map(|(one, two)| {
        let is_double = one.port == two.port && one.protocol == two.protocol;
        if is_double { vec![one] } else { vec![one, two] }
    });
    let addresses = |of: Vec<&'static str>| {
        let of: Vec<_> = of.into_iter().map(address).collect();
        subsequence(of.clone(), 0..=of.len())
    };
    let ranges = vec!["192.0.2.0/24".parse().unwrap(), "10.1.0.0/16".parse().unwrap()];
    (
        ports,
        addresses(vec!["198.51.100.1", "2001:db8:1::1"]),
        addresses(vec!["198.51.100.2", "198.51.100.1"]),
        prop::option::of(subsequence(ranges, 0..=2)),
        any::<(bool, bool)>(),
        prop::option::of(select(vec![60_u32, 10_800])),
    )
        .prop_map(
            |(
                ports,
                external_ips,
                load_balancer_ips,
                source_ranges,
                (internal, external),
                affinity,
            )| Service {
                name: name(),
                created: 0,
                ports,
                cluster_ips: vec![address("10.96.0.1"), address("fd00:96::1")],
                external_ips,
                load_balancer_ips,
                source_ranges,
                is_internal_local: internal,
                is_external_local: external,
                affinity,
                health_check_port: None,
            },
        )
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let addresses = vec!["10.1.0.1", "10.1.0.2", "10.1.0.3", "fd00::1", "fd00::2"];
    let names = |of: Vec<&'static str>| {
        let of: Vec<_> = of.into_iter().map(str::to_owned).collect();
        prop_oneof![3 => Just(vec![]), 2 => subsequence(of.clone(), 1..=of.len())]
    };
    (
        select(addresses),
        select(vec![
            (true, true, false),
            (true, true, false),
            (false, false, false),
            (false, true, true),
            (false, false, true),
        ]),
        select(vec![Some("here"), Some("there"), None]),
        names(vec!["z", "y"]),
        names(vec!["here", "there"]),
    )
        .prop_map(
            |(text, (is_ready, is_serving, is_terminating), node, for_zones, for_nodes)| Endpoint {
                address: address(text),
                is_ready,
                is_serving,
                is_terminating,
                node: node.map(str::to_owned),
                for_zones,
                for_nodes,
            },
        )
}

fn slices() -> impl Strategy<Value = Vec<EndpointSlice>> {
    let port = |place: u16| {
        select(vec![Protocol::Tcp, Protocol::Udp]).prop_map(move |protocol| EndpointPort {
            name: place.to_string(),
            protocol,
            port: 8080 + place,
        })
    };
    let slice = (port(0), port(1), prop::collection::vec(endpoint(), 0..5)).prop_map(
        |(one, two, mut endpoints)| {
            // Of one slice each endpoint has an address of its own.
            endpoints.sort_by_key(|it| it.address);
            endpoints.dedup_by_key(|it| it.address);
            EndpointSlice {
                name: name(),
                service: "s".to_owned(),
                ports: vec![one, two],
                endpoints,
                triggered: None,
            }
        },
    );
    prop::collection::vec(slice, 1..2)
}

fn clients(is_ipv4: bool, knows_pods: bool) -> Vec<Client> {
    let of = |four, six, is_pod, is_node| Client {
        address: address(if is_ipv4 { four } else { six }),
        is_pod: is_pod && knows_pods,
        is_node,
    };
    vec![
        of("10.1.7.7", "fd00::77", true, false),
        of("192.0.2.10", "2001:db8::10", false, true),
        of("192.0.2.99", "2001:db8::99", false, false),
        of("203.0.113.9", "2001:db8:9::9", false, false),
        // The node, as a balancer's address that it has.
        of("198.51.100.2", "2001:db8:1::1", false, true),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn maps_do_what_kubernetes_says(
        service in service(),
        slices in slices(),
        knows_pods in any::<bool>(),
        masquerades_all in any::<bool>(),
    ) {
        let node = Node {
            name: "here".to_owned(),
            zone: Some("z".to_owned()),
            addresses: ["192.0.2.10", "2001:db8::10", "127.0.0.1"].map(address).into(),
            ..Node::default()
        };
        let local = if knows_pods { Local::Ranges(vec![]) } else { Local::Unknown };
        let settings = Settings { local, masquerades_all, ..Settings::default() };
        let plan = Plan::of(&service, &slices, &node);
        let world = oracle::World { service: &service, slices: &slices, node: &node, knows_pods, masquerades_all };
        for is_ipv4 in [true, false] {
            let pools = plan.pools.keys().filter(|it| it.is_ipv4 == is_ipv4);
            let numbers: sorted::Map<_, _> = pools.zip(0..).map(|(id, number)| (*id, number)).collect();
            let render = Render { settings: &settings, is_ipv4, numbers: &numbers };
            let content = render.content(&plan, |_| vec![]);
            let addresses = ["127.0.0.1", "10.96.0.1", "fd00:96::1", "192.0.2.10", "2001:db8::10", "198.51.100.1", "198.51.100.2", "2001:db8:1::1", "10.96.0.9"];
            for place in addresses.map(address).into_iter().filter(|it| it.is_ipv4() == is_ipv4) {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    for port in [80, 81, 82, 30_000, 30_001] {
                        let at = At { address: place, protocol, port };
                        for client in clients(is_ipv4, knows_pods) {
                            let wanted = oracle::outcome(&world, &at, &client);
                            prop_assert_eq!(walk(&content, &at, &client), wanted, "{:?} {:?}", at, client);
                        }
                    }
                }
            }
        }
    }
}
