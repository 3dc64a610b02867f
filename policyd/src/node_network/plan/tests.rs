use netlink::OperState;
use proptest::prelude::*;

use super::*;

fn cidr(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn member(number: u16) -> Member {
    Member {
        name: format!("node-{number}"),
        created: number.into(),
        pod_ranges: vec![
            cidr(&format!("10.244.{number}.0/24")),
            cidr(&format!("fd00:{number}::/64")),
        ],
        addresses: vec![
            format!("192.0.2.{number}").parse().unwrap(),
            format!("2001:db8::{number}").parse().unwrap(),
        ],
    }
}

fn members(all: impl IntoIterator<Item = Member>) -> Members {
    all.into_iter().map(|it| (it.name.clone(), it)).collect()
}

fn link(index: u32, name: &str, mtu: u32) -> Link {
    Link {
        index,
        name: name.to_owned(),
        mac: None,
        kind: String::new(),
        mtu,
        tx_queue_length: 1000,
        is_up: true,
        is_promiscuous: false,
        is_all_multicast: false,
        is_loopback: false,
        oper_state: OperState::Up,
        controller: None,
        peer: None,
        alias: None,
        filtering: None,
        is_isolated: false,
        accepts_advertisements: None,
    }
}

fn address(link: u32, text: &str) -> Address {
    Address { link, cidr: cidr(text), is_tentative: false, is_duplicate: false }
}

/// A node whose link 2 has both networks, and a router.
fn seen() -> Seen {
    let via = |gateway: &str, dst| Route {
        gateway: Some(gateway.parse().unwrap()),
        ..Route::new(cidr(dst), 2)
    };
    Seen {
        links: vec![link(1, "lo", 65536), link(2, "eth0", 1400)],
        addresses: vec![
            address(2, "192.0.2.1/24"),
            address(2, "2001:db8::1/64"),
            address(7, "10.244.1.1/32"),
        ],
        routes: vec![
            via("192.0.2.254", "0.0.0.0/0"),
            via("2001:db8::fe", "::/0"),
            Route::new(cidr("192.0.2.0/24"), 2),
            Route { priority: 256, ..Route::new(cidr("2001:db8::/64"), 2) },
            Route::new(cidr("10.244.1.7/32"), 7),
        ],
        kept: Vec::new(),
    }
}

fn texts(plan: &Plan) -> (Vec<String>, Vec<String>) {
    let text = |it: &KeptRoute| format!("{it} metric {}", it.priority);
    let defects = plan.defects.iter().map(ToString::to_string).collect();
    (plan.routes.iter().map(text).collect(), defects)
}

#[test]
fn every_other_node_has_a_route_of_each_family_and_the_own_ranges_refuse() {
    let plan = plan(&member(1), &members([member(1), member(2), member(3)]), &seen());
    let (routes, defects) = texts(&plan);
    assert_eq!(
        routes,
        [
            "unreachable 10.244.1.0/24 metric 4294967295",
            "10.244.2.0/24 via 192.0.2.2 metric 112",
            "10.244.3.0/24 via 192.0.2.3 metric 112",
            "unreachable fd00:1::/64 metric 4294967295",
            "fd00:2::/64 via 2001:db8::2 metric 112",
            "fd00:3::/64 via 2001:db8::3 metric 112",
        ]
    );
    assert_eq!(defects, [""; 0]);
}

#[test]
fn a_node_behind_a_router_or_without_an_address_has_none() {
    let far = Member { addresses: vec!["203.0.113.9".parse().unwrap()], ..member(2) };
    let plan = plan(&member(1), &members([member(1), far]), &seen());
    assert_eq!(plan.routes.len(), 2);
    let (_, defects) = texts(&plan);
    assert!(defects[0].starts_with("node node-2: no route to its pods (10.244.2.0/24): its InternalIP 203.0.113.9 is not on a link"), "{defects:?}");
    assert!(
        defects[1].contains("(fd00:2::/64): it has no InternalIP of that family"),
        "{defects:?}"
    );
}

#[test]
fn the_longest_route_tells_whether_an_address_is_on_a_link() {
    let mut seen = seen();
    // A part of the network is behind a router, and of that one address is on a tunnel.
    let part = Route {
        gateway: Some("192.0.2.254".parse().unwrap()),
        ..Route::new(cidr("192.0.2.64/26"), 2)
    };
    seen.routes.push(part);
    seen.routes.push(Route::new(cidr("192.0.2.66/32"), 9));
    // Not of the main table, and one that is ours.
    seen.routes.push(Route { table: 100, ..Route::new(cidr("192.0.2.67/32"), 9) });
    seen.routes.push(Route { priority: METRIC, ..Route::new(cidr("192.0.2.68/32"), 9) });
    let to = Hop::Other;
    seen.kept.push(KeptRoute { dst: cidr("192.0.2.68/32"), table: 254, priority: METRIC, to });
    let on_links = OnLinks::new(&seen);
    for (address, link) in [
        ("192.0.2.2", Some(2)),
        ("192.0.2.65", None),
        ("192.0.2.66", Some(9)),
        ("192.0.2.67", None),
        ("192.0.2.68", None),
        ("203.0.113.1", None),
        ("2001:db8::9", Some(2)),
        ("2001:db8:1::9", None),
    ] {
        assert_eq!(on_links.of(address.parse().unwrap()), link, "{address}");
    }
}

#[test]
fn a_range_that_would_lead_others_packets_away_is_refused() {
    let claims = |range: &str| {
        let thief = Member { pod_ranges: vec![cidr(range)], ..member(9) };
        let plan = plan(&member(1), &members([member(1), member(2), thief]), &seen());
        assert!(plan.routes.iter().any(|it| it.dst == cidr("10.244.2.0/24")));
        texts(&plan).1.join("; ")
    };
    for (range, why) in [
        ("0.0.0.0/0", "0.0.0.0/0 is everything"),
        ("10.244.1.128/25", "10.244.1.0/24 is of the pods of node node-1"),
        ("10.244.0.0/16", "10.244.1.0/24 is of the pods of node node-1"),
        ("10.244.2.0/24", "10.244.2.0/24 is of the pods of node node-2"),
        ("192.0.2.2/32", "192.0.2.2/32 is an address of node node-2"),
        ("192.0.2.254/32", "192.0.2.254/32 is this node's router"),
        ("192.0.0.0/16", "192.0.2.1/32 is an address of node node-1"),
        ("2001:db8::/32", "2001:db8::1/128 is an address of node node-1"),
    ] {
        assert!(claims(range).ends_with(why), "{range}: {}", claims(range));
    }
    assert_eq!(claims("10.244.9.0/24"), "");
}

#[test]
fn a_foreign_route_that_goes_before_ours_is_told() {
    let mut seen = seen();
    let foreign = |gateway: &str| Route {
        gateway: Some(gateway.parse().unwrap()),
        ..Route::new(cidr("10.244.2.0/24"), 2)
    };
    seen.routes.push(foreign("192.0.2.2"));
    let members = members([member(1), member(2)]);
    assert_eq!(plan(&member(1), &members, &seen).defects, []);
    seen.routes.push(foreign("192.0.2.99"));
    let told = plan(&member(1), &members, &seen);
    assert!(matches!(told.defects[..], [Defect::Overruled { metric: 0, .. }]), "{told:?}");
    assert_eq!(told.routes.len(), 4);
}

#[test]
fn the_mtu_is_that_of_the_smaller_uplink() {
    let mut seen = seen();
    let own = member(1);
    assert_eq!(mtu(&own, &uplinks(&own, &seen).unwrap()).unwrap(), Some(1400));
    seen.links.push(link(3, "eth1", 1200));
    seen.addresses[1].link = 3;
    let error = mtu(&own, &uplinks(&own, &seen).unwrap()).unwrap_err().to_string();
    assert!(
        error.starts_with("link \"eth1\" has an MTU of 1200, and fd00:1::/64 needs 1280"),
        "{error}"
    );
    let ipv4 = Member { pod_ranges: vec![cidr("10.244.1.0/24")], ..own.clone() };
    assert_eq!(mtu(&ipv4, &uplinks(&own, &seen).unwrap()).unwrap(), Some(1200));
    seen.addresses.clear();
    assert!(matches!(uplinks(&own, &seen), Err(Error::NoUplink(_))));
    let none = Member { addresses: Vec::new(), ..own };
    assert!(matches!(uplinks(&none, &seen), Err(Error::NoAddress(_))));
}

#[test]
fn an_address_of_a_loopback_is_reached_by_the_links_of_default_routes() {
    let mut seen = seen();
    let own = member(1);
    seen.links[0].is_loopback = true;
    seen.links.push(link(3, "eth1", 1350));
    seen.addresses.iter_mut().for_each(|it| it.link = 1);
    for dst in ["0.0.0.0/0", "::/0"] {
        seen.routes.push(Route::new(cidr(dst), 3));
    }
    let names = |seen: &Seen| -> BTreeSet<_> {
        uplinks(&own, seen).unwrap().iter().map(|it| it.name.clone()).collect()
    };
    assert_eq!(names(&seen), BTreeSet::from(["eth0".to_owned(), "eth1".to_owned()]));
    assert_eq!(mtu(&own, &uplinks(&own, &seen).unwrap()).unwrap(), Some(1350));
    seen.routes.retain(|it| it.dst.prefix() != 0 || it.dst.is_ipv4());
    assert!(matches!(uplinks(&own, &seen), Err(Error::NoUplink(IpAddr::V6(_)))));
}

/// Ranges from few addresses, so that many share some.
fn range() -> impl Strategy<Value = IpNetwork> {
    (0..8_u8, 20..=28_u8).prop_map(|(block, prefix)| {
        let network = IpNetwork::new([10, 244, block, 128].into(), prefix).unwrap();
        IpNetwork::new(network.network(), prefix).unwrap()
    })
}

proptest! {
    #[test]
    fn no_two_routes_lead_the_same_address_elsewhere(
        ranges in prop::collection::vec((0..4_i64, prop::collection::vec(range(), 0..3)), 0..8)
    ) {
        let others = ranges.into_iter().zip(2..).map(|((created, pod_ranges), number)| {
            Member { created, pod_ranges, ..member(number) }
        });
        let members = members(others.chain([member(1)]));
        let plan = plan(&member(1), &members, &seen());
        let all: Vec<_> = plan.routes.iter().map(|it| it.dst).collect();
        for (index, one) in all.iter().enumerate() {
            for other in all.iter().skip(index + 1) {
                prop_assert!(!overlaps(*one, *other), "{one} {other}");
            }
        }
        // Each range is a route or a defect.
        let of_others: usize =
            members.values().filter(|it| it.name != "node-1").map(|it| it.pod_ranges.len()).sum();
        prop_assert_eq!(plan.routes.len() - 2 + plan.defects.len(), of_others);
    }

    #[test]
    fn what_is_changed_makes_what_is_wanted(
        wanted in prop::collection::btree_set(0..12_u16, 0..8),
        held in prop::collection::vec(0..12_u16, 0..8),
    ) {
        let route = |number: u16| {
            let gateway = "192.0.2.9".parse().unwrap();
            KeptRoute {
                dst: cidr(&format!("10.{number}.0.0/24")),
                table: 254,
                priority: METRIC,
                to: Hop::Gateway { gateway, link: 2 },
            }
        };
        let wanted: BTreeSet<_> = wanted.into_iter().map(route).collect();
        let held: Vec<_> = held.into_iter().map(route).collect();
        let changes = changes(&wanted, &held);
        let kept = held.iter().filter(|it| !changes.delete.contains(it)).chain(&changes.add);
        prop_assert_eq!(kept.cloned().collect::<BTreeSet<_>>(), wanted);
        prop_assert!(changes.add.iter().all(|it| !held.contains(it)));
    }
}
