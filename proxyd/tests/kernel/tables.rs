//! What tables there are.

use proxyd::dataplane::Written;
use proxyd::nftables::{Local, Scheduler, Settings};
use serde_json::json;

use crate::scene::{dataplane, listed, move_away, name, nft, plan, plans, reloads, sorted};

#[test]
fn a_service_of_every_kind_is_written_and_nft_reads_it() {
    move_away();
    let settings = Settings {
        local: Local::Ranges(vec!["10.244.0.0/16".parse().unwrap()]),
        service_ranges: vec!["10.96.0.0/12".parse().unwrap()],
        ..Settings::default()
    };
    let mut dataplane = dataplane(&settings);
    let ports = |node_port: u16| {
        let web = json!({"name": "w", "port": 80, "nodePort": node_port});
        json!([web, {"name": "d", "port": 53, "protocol": "UDP"}])
    };
    let here = [("10.244.0.5", "here"), ("10.244.1.5", "there"), ("10.244.1.6", "there")];
    let all = plans([
        (
            "cluster",
            plan("cluster", &json!({"clusterIP": "10.96.0.1", "ports": ports(30080)}), &here),
        ),
        ("empty", plan("empty", &json!({"clusterIP": "10.96.0.2", "ports": ports(0)}), &[])),
        (
            "local",
            plan(
                "local",
                &json!({
                    "type": "LoadBalancer", "clusterIP": "10.96.0.3", "ports": ports(30081),
                    "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local",
                    "loadBalancerSourceRanges": ["203.0.113.0/24", "198.51.100.7/32"],
                    "ingress": [{"ip": "192.0.2.77"}],
                }),
                &here,
            ),
        ),
        (
            "sticky",
            plan(
                "sticky",
                &json!({
                    "clusterIP": "10.96.0.4", "ports": ports(30082), "sessionAffinity": "ClientIP",
                    "externalIPs": ["192.0.2.99"],
                }),
                &here[1..],
            ),
        ),
        (
            "six",
            plan(
                "six",
                &json!({"clusterIP": "fd00:96::1", "ports": ports(0)}),
                &[("fd00::5", "here")],
            ),
        ),
    ]);
    let written = dataplane.adopt(&all).unwrap();
    assert!(written.transactions > 0 && written.deleted == 0, "{written:?}");
    let [four, six] = [true, false].map(listed);
    insta::assert_snapshot!("four", four);
    assert!(six.contains("fd00:96::1 . tcp . 80"), "{six}");
    assert!(reloads(true) && reloads(false));
    // nft has numbered and written it anew: it is as it was for us.
    assert_eq!(dataplane.adopt(&all).unwrap(), Written::default());
    dataplane.remove().unwrap();
    assert_eq!([true, false].map(listed), ["", ""]);
}

#[test]
fn what_is_right_is_not_touched_and_what_is_wrong_is_put_right() {
    move_away();
    let settings = Settings::default();
    let mut dataplane = dataplane(&settings);
    let spec = |ip: &str| json!({"clusterIP": ip, "ports": [{"port": 80}]});
    let some = [("10.244.0.5", "here"), ("10.244.1.5", "there")];
    let all = plans([
        ("a", plan("a", &spec("10.96.0.1"), &some)),
        ("b", plan("b", &spec("10.96.0.2"), &some[..1])),
    ]);
    dataplane.adopt(&all).unwrap();
    let wanted = sorted(&listed(true));
    for spoilt in [
        "flush map ip podwire-proxy services",
        "delete element ip podwire-proxy cluster-ips { 10.96.0.1 }",
        "add element ip podwire-proxy services { 10.96.0.9 . tcp . 80 : 7000:0 }",
        "add element ip podwire-proxy endpoints { 7200:9 . 7 : 10.0.0.1 . 1 }",
        "add rule ip podwire-proxy pick-2 drop",
        "flush chain ip podwire-proxy prerouting",
        "delete table ip podwire-proxy",
        "table ip podwire-proxy { flags dormant; }",
        "delete table ip podwire-proxy; add table ip podwire-proxy; add set ip podwire-proxy services { type ipv4_addr; }",
    ] {
        assert!(nft(&[spoilt], "").status.success(), "{spoilt}");
        assert_ne!(sorted(&listed(true)), wanted, "{spoilt}");
        dataplane.adopt(&all).unwrap();
        assert_eq!(sorted(&listed(true)), wanted, "{spoilt}");
        assert_eq!(dataplane.adopt(&all).unwrap(), Written::default(), "{spoilt}");
    }
}

/// While a start takes over what there is, the pools of services that went are still looked up.
#[test]
fn nobody_gets_the_number_of_a_pool_that_has_just_gone() {
    move_away();
    let of = |last: u8| {
        let spec = json!({"clusterIP": format!("10.96.0.{last}"), "ports": [{"port": 80}]});
        plan("s", &spec, &[(&format!("10.244.0.{last}"), "there")])
    };
    let number = |last: u8| {
        let listed = sorted(&listed(true));
        let place = format!("10.96.0.{last} . tcp . 80 ");
        let mut pools = listed.iter().filter_map(|it| it.strip_prefix(&place)?.split_once("7200:"));
        pools.next().unwrap_or_else(|| panic!("{last}: {listed:?}")).1.to_owned()
    };
    dataplane(&Settings::default()).adopt(&plans([("a", of(1)), ("b", of(2))])).unwrap();
    assert_eq!([1, 2].map(number), ["0", "1"]);
    let mut restarted = dataplane(&Settings::default());
    // One that was there, one that was not, one that comes later, and one when all is quiet.
    restarted.adopt(&plans([("b", of(2)), ("c", of(3))])).unwrap();
    assert_eq!([2, 3].map(number), ["1", "2"]);
    restarted.apply(&[(name("d"), Some(of(4))), (name("b"), None)].into()).unwrap();
    restarted.apply(&[(name("e"), Some(of(5)))].into()).unwrap();
    assert_eq!([4, 5].map(number), ["3", "4"]);
    restarted.tidy().unwrap();
    restarted.apply(&[(name("f"), Some(of(6))), (name("g"), Some(of(7)))].into()).unwrap();
    assert_eq!([6, 7].map(number), ["0", "1"]);
}

#[test]
fn only_what_changes_is_written() {
    move_away();
    let mut dataplane = dataplane(&Settings::default());
    let spec = json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]});
    let endpoints = ["10.244.0.1", "10.244.0.2", "10.244.0.3"].map(|it| (it, "there"));
    let plan = |count: usize| plan("a", &spec, &endpoints[..count]);
    dataplane.adopt(&plans([("a", plan(3))])).unwrap();
    // A place goes, and the kind of one address changes.
    let written = dataplane.apply(&[(name("a"), Some(plan(2)))].into()).unwrap();
    // The chain for two comes ahead.
    assert_eq!(written, Written { transactions: 2, added: 2, deleted: 2 });
    let written = dataplane.apply(&[(name("a"), Some(plan(3)))].into()).unwrap();
    assert_eq!(written, Written { transactions: 1, added: 2, deleted: 1 });
    let written = dataplane.apply(&[(name("a"), None)].into()).unwrap();
    assert_eq!((written.transactions, written.added), (1, 0));
    dataplane.tidy().unwrap();
    let four = listed(true);
    assert!(!four.contains("pick-") && !four.contains("elements"), "{four}");
}

#[test]
fn a_node_that_chooses_otherwise_finds_its_services_and_rewrites_how_they_choose() {
    move_away();
    let spec = json!({
        "clusterIPs": ["10.96.0.1", "fd00:96::1"], "ports": [{"port": 80}],
    });
    let all = [
        ("10.244.1.5", "there"),
        ("10.244.1.6", "there"),
        ("10.244.1.7", "there"),
        ("fd00::5", "there"),
        ("fd00::6", "there"),
    ];
    let plan = |of: &[(&str, &str)]| plan("a", &spec, of);
    let by = |scheduler| dataplane(&Settings { scheduler, ..Settings::default() });
    let mut random = by(Scheduler::Random);
    random.adopt(&plans([("a", plan(&all))])).unwrap();
    // The last one takes the place of the first.
    random.apply(&[(name("a"), Some(plan(&all[1..])))].into()).unwrap();
    random.tidy().unwrap();
    let drawn = [true, false].map(|it| sorted(&listed(it)));
    assert!(
        drawn[0].iter().any(|it| it.ends_with("10.244.1.7 . 8080") && it.contains(" . 0 : ")),
        "{drawn:?}"
    );
    let remaining = plans([("a", plan(&all[1..]))]);
    let mut hashed = by(Scheduler::SourceHash);
    let written = hashed.adopt(&remaining).unwrap();
    // Both endpoints change places, and nothing else is an element.
    assert_eq!((written.added, written.deleted), (2, 2), "{written:?}");
    for (is_ipv4, address) in [(true, "ip saddr"), (false, "ip6 saddr")] {
        let listed = listed(is_ipv4);
        let wanted = format!("meta priority . jhash {address} mod 2 seed 0x1 map @endpoints");
        assert!(listed.contains(&wanted) && !listed.contains("random mod 2"), "{listed}");
        assert!(reloads(is_ipv4));
    }
    assert_eq!(hashed.adopt(&remaining).unwrap(), Written::default());
    // And back: endpoints stay where they are.
    let written = by(Scheduler::Random).adopt(&remaining).unwrap();
    assert_eq!((written.added, written.deleted), (0, 0), "{written:?}");
    assert!(!listed(true).contains("jhash"));
}

#[test]
fn hashes_find_endpoints_in_the_same_places_on_all_nodes() {
    let settings = Settings { scheduler: Scheduler::SourceHash, ..Settings::default() };
    let spec = json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]});
    let endpoints =
        ["10.244.0.1", "10.244.0.2", "10.244.0.3", "10.244.0.4"].map(|it| (it, "there"));
    let places = |history: &[&[(&str, &str)]]| {
        move_away();
        let mut dataplane = dataplane(&settings);
        dataplane.adopt(&plans([])).unwrap();
        for endpoints in history {
            dataplane.apply(&[(name("a"), Some(plan("a", &spec, endpoints)))].into()).unwrap();
        }
        let listed = sorted(&listed(true));
        listed.into_iter().filter(|it| it.contains(" : 10.244.")).collect::<Vec<_>>()
    };
    let first = places(&[&endpoints[..1], &endpoints[1..], &endpoints]);
    assert_eq!(first.len(), 4);
    assert_eq!(places(&[&endpoints[2..], &endpoints]), first);
}

#[test]
fn what_others_settings_dropped_is_not_dropped_from_the_start() {
    move_away();
    let ranges = ["10.96.0.0/12", "fd00:96::/112"].map(|it| it.parse().unwrap()).into();
    let mut with_ranges = dataplane(&Settings { service_ranges: ranges, ..Settings::default() });
    with_ranges.adopt(&plans([])).unwrap();
    for (is_ipv4, range) in [(true, "ip daddr 10.96.0.0/12"), (false, "ip6 daddr fd00:96::/112")] {
        let listed = listed(is_ipv4);
        let rule = format!("ct state new {range} fib daddr type != local drop");
        assert_eq!(listed.matches(&rule).count(), 2, "{listed}");
        assert!(reloads(is_ipv4));
    }
    let mut without = dataplane(&Settings { drops_invalid: false, ..Settings::default() });
    without.adopt(&plans([])).unwrap();
    for is_ipv4 in [true, false] {
        let listed = listed(is_ipv4);
        assert!(!listed.contains("type filter") && !listed.contains("ct state"), "{listed}");
    }
    assert_eq!(without.adopt(&plans([])).unwrap(), Written::default());
}

#[test]
fn localhost_is_guarded_for_as_long_as_that_is_wanted() {
    move_away();
    let all =
        plans([("a", plan("a", &json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}), &[]))]);
    let mut guarded = dataplane(&Settings { guards_localhost: true, ..Settings::default() });
    assert!(!guarded.guards_localhost().unwrap());
    guarded.adopt(&all).unwrap();
    assert!(guarded.guards_localhost().unwrap());
    let four = listed(true);
    for rule in [
        "type filter hook prerouting priority raw; policy accept;",
        "iifname != \"lo\" ip daddr 127.0.0.0/8 drop",
        "iifname != \"lo\" ip saddr 127.0.0.0/8 drop",
    ] {
        assert!(four.contains(rule), "{four}");
    }
    assert!(reloads(true) && !listed(false).contains("guard"));
    assert_eq!(guarded.adopt(&all).unwrap(), Written::default());
    let mut open = dataplane(&Settings::default());
    open.adopt(&all).unwrap();
    assert!(!open.guards_localhost().unwrap());
    assert!(!listed(true).contains("guard-localhost"));
}

#[test]
fn what_two_services_have_goes_with_the_second() {
    move_away();
    let of = |port: u16| {
        plan(
            "s",
            &json!({"clusterIPs": ["10.96.0.1", "fd00:96::1"], "ports": [{"port": port}]}),
            &[],
        )
    };
    let mut dataplane = dataplane(&Settings::default());
    dataplane.adopt(&plans([("a", of(80)), ("b", of(81))])).unwrap();
    // It is listed alone, and as a part of the places.
    let has_address = |is_ipv4: bool, address: &str| {
        let listed = listed(is_ipv4);
        let (_, set) = listed.split_once("set cluster-ips {").unwrap();
        set.split_once("\n\t}").unwrap().0.contains(address)
    };
    let has = || [has_address(true, "10.96.0.1"), has_address(false, "fd00:96::1")];
    dataplane.apply(&[(name("a"), None)].into()).unwrap();
    assert_eq!(has(), [true, true]);
    dataplane.apply(&[(name("a"), Some(of(80)))].into()).unwrap();
    dataplane.apply(&[(name("a"), None), (name("b"), None)].into()).unwrap();
    assert_eq!(has(), [false, false]);
    dataplane.apply(&[(name("a"), Some(of(80))), (name("b"), Some(of(81)))].into()).unwrap();
    assert_eq!(has(), [true, true]);
}

/// Of so many that they need several transactions.
#[test]
fn services_that_have_other_names_keep_their_places() {
    move_away();
    let count = 2500_u32;
    let named = |prefix: &'static str, is_there: bool| {
        (0..count).map(move |number| {
            let ip = format!("10.96.{}.{}", number / 250, number % 250 + 1);
            let spec = json!({"clusterIP": ip, "ports": [{"port": 80}]});
            let plan = is_there.then(|| plan("s", &spec, &[("10.244.0.1", "there")]));
            (name(&format!("{prefix}-{number}")), plan)
        })
    };
    let mut dataplane = dataplane(&Settings::default());
    dataplane.adopt(&plans([])).unwrap();
    dataplane.apply(&named("b", true).collect()).unwrap();
    let places = || {
        let listed = listed(true);
        let (_, map) = listed.split_once("map services {").unwrap();
        map.split_once("\n\t}").unwrap().0.matches(" : 7").count()
    };
    for (before, now) in [("b", "c"), ("c", "a")] {
        let changes = named(before, false).chain(named(now, true)).collect();
        let written = dataplane.apply(&changes).unwrap();
        assert!(written.transactions > 1, "{written:?}");
        assert_eq!(places(), count as usize);
    }
}
