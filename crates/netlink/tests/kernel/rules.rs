//! Rules, and routes of any table.

use netlink::{HeldRoute, Request, Route, Rule, Socket};

use crate::space::{PLAIN, bridge, cidr, move_away, run};

fn ip(line: &str) -> String {
    run("ip", &line.split(' ').collect::<Vec<_>>(), "")
}

fn plain(socket: &mut Socket) -> Vec<Rule> {
    let rules = socket.rules().unwrap().into_iter();
    rules.filter(|rule| !rule.has_more && rule.source.is_some()).collect()
}

#[test]
fn rules_of_sources_are_added_listed_and_deleted() {
    move_away();
    let mut host = Socket::open().unwrap();
    let before = host.rules().unwrap();
    let tables: Vec<u32> = before.iter().map(|rule| rule.table).collect();
    assert!(tables.contains(&255) && tables.contains(&Route::MAIN_TABLE), "{before:?}");
    let rules = [
        Rule::of_source(cidr("10.1.0.2/32"), 100),
        Rule::of_source(cidr("fd00:1::2/128"), 100_000),
        Rule { priority: 7, ..Rule::of_source(cidr("10.2.0.0/16"), 101) },
    ];
    host.execute(&rules.each_ref().map(Request::add_rule)).unwrap();
    let found = plain(&mut host);
    assert_eq!(found.len(), 3);
    for rule in &rules {
        let is_it = |it: &&Rule| it.source == rule.source && it.table == rule.table;
        let it = found.iter().find(is_it).unwrap();
        // Before the main table's, 32766.
        assert_eq!(it.priority, if rule.priority == 0 { 32765 } else { 7 });
    }
    let error = host.execute(&[Request::add_rule(&rules[2])]).unwrap_err();
    assert!(
        error.to_string().starts_with("cannot add rule from 10.2.0.0/16 lookup 101"),
        "{error}"
    );
    host.execute(&found.iter().map(Request::delete_rule).collect::<Vec<_>>()).unwrap();
    assert_eq!(host.rules().unwrap(), before);
    assert!(host.execute(&[Request::delete_rule(&rules[0])]).is_err());
    host.execute(&[Request::delete_rule(&rules[0]).or_gone()]).unwrap();
}

#[test]
fn rules_that_ask_for_more_are_told_apart() {
    move_away();
    let mut host = Socket::open().unwrap();
    for more in [
        "to 10.9.0.0/16 lookup 100",
        "iif lo lookup 100",
        "oif lo lookup 100",
        "fwmark 7 lookup 100",
        "tos 8 lookup 100",
        "uidrange 1-2 lookup 100",
        "ipproto tcp lookup 100",
        "ipproto tcp dport 80 lookup 100",
        "lookup 100 suppress_prefixlength 0",
        "unreachable",
    ] {
        ip(&format!("rule add from 10.1.0.2 {more}"));
    }
    ip("rule add not from 10.1.0.2 lookup 100");
    assert_eq!(plain(&mut host), []);
    ip("rule add from 10.1.0.2 lookup 100 protocol static");
    assert_eq!(plain(&mut host).len(), 1);
}

fn of_table(host: &mut Socket, table: u32) -> Vec<HeldRoute> {
    let mut held = host.held_routes(true).unwrap();
    held.extend(host.held_routes(false).unwrap());
    held.retain(|it| it.route.table == table && it.is_unicast);
    held
}

#[test]
fn routes_go_to_another_table_as_they_are() {
    move_away();
    let mut host = Socket::open().unwrap();
    let link = bridge(&mut host).index;
    let add = |address| Request::add_address(link, "br0", cidr(address), PLAIN);
    host.execute(&["192.0.2.1/24", "2001:db8::1/64"].map(add)).unwrap();
    for line in [
        "route add default via 192.0.2.9 mtu 1300 advmss 1200 initcwnd 20 proto static",
        "route add 10.1.0.0/16 via 198.51.100.1 dev br0 onlink",
        "route add 10.2.0.0/16 dev br0 src 192.0.2.1 metric 7 tos 0x8",
        "route add 10.3.0.0/16 nexthop via 192.0.2.7 nexthop via 192.0.2.8",
        "route add blackhole 10.4.0.0/16",
        "-6 route add default via 2001:db8::9 metric 5 pref high hoplimit 9",
        "-6 route add fd00:1::/64 dev br0 proto 77",
    ] {
        ip(line);
    }
    let shown = |table: &str| {
        let text =
            ip(&format!("route show table {table}")) + &ip(&format!("-6 route show table {table}"));
        let mut lines: Vec<_> =
            text.lines().map(|line| line.trim().replace(" linkdown", "")).collect();
        lines.sort();
        lines
    };
    let all = of_table(&mut host, Route::MAIN_TABLE);
    let several: Vec<_> = all.iter().filter(|it| it.route.link == 0).collect();
    assert_eq!(several.len(), 1, "{several:?}");
    assert_eq!(several[0].route.dst, cidr("10.3.0.0/16"));
    assert!(host.held_routes(true).unwrap().iter().any(|it| !it.is_unicast));
    // Twice: the second time in the place of the first.
    for _ in 0..2 {
        let copies: Vec<_> = all.iter().map(|it| Request::copy_route(it, 1000)).collect();
        host.execute(&copies).unwrap();
        let expected: Vec<_> =
            shown("main").into_iter().filter(|it| !it.starts_with("blackhole")).collect();
        assert_eq!(shown("1000"), expected);
    }
    let copies = of_table(&mut host, 1000);
    host.execute(&copies.iter().map(Request::delete_held_route).collect::<Vec<_>>()).unwrap();
    assert_eq!(of_table(&mut host, 1000), []);
    assert_eq!(of_table(&mut host, Route::MAIN_TABLE), all);
    let gone = Request::delete_held_route(&copies[0]);
    assert!(host.execute(std::slice::from_ref(&gone)).is_err());
    host.execute(&[gone.or_gone()]).unwrap();
}

#[test]
fn a_route_takes_the_place_of_another() {
    move_away();
    let mut host = Socket::open().unwrap();
    let link = bridge(&mut host).index;
    host.execute(&[Request::add_address(link, "br0", cidr("192.0.2.1/24"), PLAIN)]).unwrap();
    let via = |gateway: &str| Route {
        gateway: Some(gateway.parse().unwrap()),
        table: 300,
        ..Route::new(cidr("0.0.0.0/0"), link)
    };
    for gateway in ["192.0.2.8", "192.0.2.9"] {
        host.execute(&[Request::replace_route(&via(gateway), "br0")]).unwrap();
        let found = of_table(&mut host, 300);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].route, via(gateway));
    }
}
