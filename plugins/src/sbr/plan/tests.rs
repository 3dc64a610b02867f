use super::*;
use proptest::prelude::*;

const ETH0: u32 = 2;
const NET1: u32 = 3;

fn cidr(text: &str) -> IpNetwork {
    cni::parse_cidr(text).unwrap()
}

fn source(address: &str, gateway: Option<&str>) -> Source {
    Source { cidr: cidr(address), gateway: gateway.map(|text| text.parse().unwrap()) }
}

fn direct(dst: &str, from: Option<&str>, link: u32) -> Route {
    let from = from.map(|text| text.parse().unwrap());
    Route { source: from, scope: Route::SCOPE_LINK, ..Route::new(cidr(dst), link) }
}

fn via(dst: &str, gateway: &str, link: u32) -> Route {
    Route { gateway: Some(gateway.parse().unwrap()), ..Route::new(cidr(dst), link) }
}

/// A container with two interfaces, of which `net1` has just come.
fn held() -> Held {
    let routes = [
        direct("10.1.0.0/24", Some("10.1.0.2"), ETH0),
        via("0.0.0.0/0", "10.1.0.1", ETH0),
        via("0.0.0.0/0", "10.2.0.1", NET1),
        direct("10.2.0.0/24", Some("10.2.0.2"), NET1),
        via("10.9.0.0/16", "10.2.0.9", NET1),
        via("10.8.0.0/16", "172.16.0.1", NET1),
        direct("10.7.0.0/16", None, NET1),
        direct("fd00:2::/64", None, NET1),
        direct("fe80::/64", None, NET1),
        via("::/0", "fd00:2::1", NET1),
    ];
    let all = |table| Rule { source: None, table, priority: 0, has_more: false };
    Held {
        rules: vec![all(255), all(Route::MAIN_TABLE)],
        routes: routes.into_iter().map(HeldRoute::from).collect(),
    }
}

fn planned(conf: &Conf, sources: &[Source]) -> Plan {
    plan(conf, NET1, sources, &held()).unwrap()
}

fn texts<'a>(routes: impl IntoIterator<Item = &'a Route>) -> Vec<String> {
    let text = |it: &Route| {
        let gateway = it.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
        let from = it.source.map(|from| format!(" from {from}")).unwrap_or_default();
        format!("{}{gateway}{from}", it.dst)
    };
    routes.into_iter().map(text).collect()
}

fn copied(plan: &Plan, table: u32) -> Vec<String> {
    texts(plan.copied.iter().filter(|(_, into)| *into == table).map(|(it, _)| &it.route))
}

fn moved(plan: &Plan) -> Vec<String> {
    texts(plan.moved.iter().map(|it| &it.route))
}

#[test]
fn each_address_gets_a_table_with_the_routes_that_are_about_it() {
    let sources = [
        source("10.2.0.2/24", Some("10.2.0.1")),
        source("fd00:2::2/64", Some("fd00:2::1")),
        source("192.0.2.7/32", None),
    ];
    let plan = planned(&Conf::default(), &sources);
    let rule = |address, table| Rule::of_source(cidr(address), table);
    let rules = [rule("10.2.0.2/32", 100), rule("fd00:2::2/128", 101), rule("192.0.2.7/32", 102)];
    assert_eq!(plan.rules, rules);
    assert_eq!(texts(&plan.made), ["0.0.0.0/0 via 10.2.0.1", "::/0 via fd00:2::1"]);
    assert!(plan.made.iter().map(|it| it.table).eq([100, 101]));
    let of_v4 = [
        "0.0.0.0/0 via 10.2.0.1",
        "10.2.0.0/24 from 10.2.0.2",
        "10.9.0.0/16 via 10.2.0.9",
        "10.7.0.0/16",
    ];
    assert_eq!(copied(&plan, 100), of_v4);
    assert_eq!(copied(&plan, 101), ["fd00:2::/64", "fe80::/64", "::/0 via fd00:2::1"]);
    assert_eq!(copied(&plan, 102), ["10.7.0.0/16"]);
    assert_eq!(plan.hints, []);
    // The other interface's stay, and so does the network of link-local addresses.
    let gone = [
        "0.0.0.0/0 via 10.2.0.1",
        "10.2.0.0/24 from 10.2.0.2",
        "10.9.0.0/16 via 10.2.0.9",
        "10.8.0.0/16 via 172.16.0.1",
        "10.7.0.0/16",
        "fd00:2::/64",
        "::/0 via fd00:2::1",
    ];
    assert_eq!(moved(&plan), gone);
}

#[test]
fn a_table_that_is_given_is_only_led_to() {
    let conf = Conf { table: Some(7), add_source_hints: true, ..Conf::default() };
    let plan = planned(&conf, &[source("10.2.0.2/24", Some("10.2.0.1"))]);
    let rules = vec![Rule::of_source(cidr("10.2.0.2/32"), 7)];
    assert_eq!(plan, Plan { rules, ..Plan::default() });
}

#[test]
fn hints_leave_the_networks_in_the_main_table() {
    let conf = Conf { add_source_hints: true, ..Conf::default() };
    let sources = [source("10.2.0.2/24", None), source("fd00:2::2/64", None)];
    let plan = planned(&conf, &sources);
    assert_eq!(texts(&plan.hints), ["10.2.0.2/24 from 10.2.0.2", "fd00:2::2/64 from fd00:2::2"]);
    assert_eq!((plan.hints[0].scope, plan.hints[1].priority), (Route::SCOPE_LINK, 256));
    let gone = [
        "0.0.0.0/0 via 10.2.0.1",
        "10.9.0.0/16 via 10.2.0.9",
        "10.8.0.0/16 via 172.16.0.1",
        "::/0 via fd00:2::1",
    ];
    assert_eq!(moved(&plan), gone);
    assert_eq!(planned(&conf, &[source("10.2.0.2/32", None)]).hints, []);
}

#[test]
fn a_gateway_of_the_configuration_is_not_replaced() {
    let conf = Conf { gateways: vec!["10.2.0.99".parse().unwrap()], ..Conf::default() };
    let plan = planned(&conf, &[source("10.2.0.2/24", Some("10.2.0.99"))]);
    assert_eq!(texts(&plan.made), ["0.0.0.0/0 via 10.2.0.99"]);
    let copied = copied(&plan, 100);
    assert!(copied.iter().all(|text| !text.starts_with("0.0.0.0/0")), "{copied:?}");
}

#[test]
fn a_second_add_is_refused() {
    let mut held = held();
    let plan = |held: &Held, conf: &Conf| {
        plan(conf, NET1, &[source("10.2.0.2/24", None)], held).map_err(|error| error.to_string())
    };
    held.rules.push(Rule { has_more: true, ..Rule::of_source(cidr("10.2.0.2/32"), 100) });
    held.rules.push(Rule::of_source(cidr("10.2.0.0/24"), 101));
    assert_eq!(plan(&held, &Conf::default()).unwrap().rules[0].table, 102);
    held.rules.push(Rule::of_source(cidr("10.2.0.2/32"), 103));
    let to = |table| Conf { table: Some(table), ..Conf::default() };
    assert_eq!(plan(&held, &to(7)).unwrap().rules[0].table, 7);
    for conf in [Conf::default(), to(103)] {
        let error = plan(&held, &conf).unwrap_err();
        assert!(error.contains("10.2.0.2/24 has a rule already, to table 103"), "{error}");
    }
}

proptest! {
    #[test]
    fn tables_are_free_and_none_is_taken_twice(
        of_rules in proptest::collection::vec(95_u32..120, 0..20),
        of_routes in proptest::collection::vec(95_u32..120, 0..20),
        count in 1_u8..10,
    ) {
        let mut held = held();
        let from = |table: &u32| Rule::of_source(cidr("10.3.0.0/16"), *table);
        held.rules.extend(of_rules.iter().map(from));
        let route = |table: &u32| Route { table: *table, ..direct("10.4.0.0/16", None, ETH0) };
        held.routes.extend(of_routes.iter().map(|table| HeldRoute::from(route(table))));
        let sources: Vec<Source> =
            (1..=count).map(|n| source(&format!("10.2.0.{}/24", n + 10), None)).collect();
        let plan = plan(&Conf::default(), NET1, &sources, &held).unwrap();
        let tables: BTreeSet<u32> = plan.rules.iter().map(|rule| rule.table).collect();
        prop_assert_eq!(tables.len(), sources.len());
        prop_assert!(tables.iter().all(|it| *it >= 100 && !of_rules.contains(it) && !of_routes.contains(it)));
    }

    /// Whatever the main table loses, the address that it is about finds in its own.
    #[test]
    fn nothing_is_lost(
        routes in proptest::collection::vec((0_u8..6, 0_u8..4, 1_u32..4), 0..20),
        hints in any::<bool>(),
    ) {
        let mut held = held();
        let route = |(dst, gateway, link): &(u8, u8, u32)| {
            let dst = format!("10.{}.0.0/16", dst + 20);
            match gateway {
                0 => direct(&dst, None, *link),
                1 => direct(&dst, Some("10.2.0.2"), *link),
                n => via(&dst, &format!("10.{n}.0.1"), *link),
            }
        };
        held.routes.extend(routes.iter().map(route).map(HeldRoute::from));
        let own = source("10.2.0.2/24", None);
        let conf = Conf { add_source_hints: hints, ..Conf::default() };
        let plan = plan(&conf, NET1, &[own], &held).unwrap();
        for it in &plan.moved {
            prop_assert_eq!(it.route.link, NET1);
            let is_copied = plan.copied.iter().any(|(copied, _)| copied == it);
            prop_assert_eq!(is_copied, is_about(&it.route, &own));
        }
    }
}
