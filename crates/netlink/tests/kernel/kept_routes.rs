//! Routes that a daemon keeps.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use netlink::{Hop, KeptRoute, Request, Route, RoutingChanges, Socket};
use nix::poll::{PollFd, PollFlags, poll};

use crate::space::{PLAIN, bridge, cidr, heard, move_away, run};

const OURS: u8 = 112;

/// A host with a bridge that has addresses of both families.
fn host() -> (Socket, u32) {
    let mut host = Socket::open().unwrap();
    let link = bridge(&mut host).index;
    let add = |address| Request::add_address(link, "br0", cidr(address), PLAIN);
    host.execute(&["192.0.2.1/24", "2001:db8::1/64"].map(add)).unwrap();
    (host, link)
}

fn via(dst: &str, gateway: &str, link: u32) -> KeptRoute {
    let to = Hop::Gateway { gateway: gateway.parse().unwrap(), link };
    KeptRoute { dst: cidr(dst), table: Route::MAIN_TABLE, priority: 112, to }
}

fn kept(host: &mut Socket) -> Vec<KeptRoute> {
    let mut kept = host.kept_routes(true, OURS).unwrap();
    kept.extend(host.kept_routes(false, OURS).unwrap());
    kept.sort();
    kept
}

#[test]
fn only_routes_of_the_protocol_are_listed_and_deleted() {
    move_away();
    let (mut host, link) = host();
    let nowhere =
        |dst| KeptRoute { priority: u32::MAX, to: Hop::Unreachable, ..via(dst, "192.0.2.9", link) };
    let mut routes = vec![
        via("10.1.0.0/24", "192.0.2.2", link),
        via("fd00:1::/64", "2001:db8::2", link),
        nowhere("10.9.0.0/24"),
        nowhere("fd00:9::/64"),
    ];
    routes.sort();
    for family in ["-4", "-6"] {
        let of = |four: &'static str, six: &'static str| if family == "-4" { four } else { six };
        let (dst, gateway) = (of("10.1.0.0/24", "fd00:1::/64"), of("192.0.2.3", "2001:db8::3"));
        run("ip", &[family, "route", "add", dst, "via", gateway, "metric", "7"], "");
        run("ip", &[family, "route", "add", of("10.7.0.0/24", "fd00:7::/64"), "via", gateway], "");
    }
    let shown = || run("ip", &["-4", "route"], "") + &run("ip", &["-6", "route"], "");
    let before = shown();
    let add: Vec<_> = routes.iter().map(|it| Request::add_kept_route(it, OURS)).collect();
    host.execute(&add).unwrap();
    assert_eq!(kept(&mut host), routes);
    let delete: Vec<_> = routes.iter().map(|it| Request::delete_kept_route(it, OURS)).collect();
    // What belongs to others is not there for it.
    let others = KeptRoute { priority: 7, ..via("10.1.0.0/24", "192.0.2.3", link) };
    assert!(host.execute(&[Request::delete_kept_route(&others, OURS)]).is_err());
    host.execute(&delete).unwrap();
    assert_eq!(kept(&mut host), []);
    assert_eq!(shown(), before);
}

#[test]
fn a_next_hop_gives_way_to_another_without_a_gap() {
    move_away();
    let (mut host, link) = host();
    for [dst, old, new] in
        [["10.1.0.0/24", "192.0.2.2", "192.0.2.3"], ["fd00:1::/64", "2001:db8::2", "2001:db8::3"]]
    {
        let (old, new) = (via(dst, old, link), via(dst, new, link));
        host.execute(&[Request::add_kept_route(&old, OURS)]).unwrap();
        let requests =
            [Request::add_kept_route(&new, OURS), Request::delete_kept_route(&old, OURS)];
        host.execute(&requests).unwrap();
        assert!(kept(&mut host).contains(&new));
        assert!(!kept(&mut host).contains(&old));
    }
    assert_eq!(kept(&mut host).len(), 2);
}

#[test]
fn whatever_has_the_protocol_can_be_deleted() {
    move_away();
    let (mut host, _) = host();
    for line in [
        "-4 route add 10.5.0.0/24 dev br0 proto 112",
        "-4 route add 10.6.0.0/24 proto 112 nexthop via 192.0.2.2 nexthop via 192.0.2.3",
        "-4 route add blackhole 10.7.0.0/24 proto 112 table 100 metric 5",
        "-6 route add fd00:5::/64 dev br0 proto 112",
        "-6 route add blackhole fd00:7::/64 proto 112",
    ] {
        run("ip", &line.split(' ').collect::<Vec<_>>(), "");
    }
    let found = kept(&mut host);
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(found.iter().all(|it| it.to == Hop::Other));
    let delete: Vec<_> = found.iter().map(|it| Request::delete_kept_route(it, OURS)).collect();
    host.execute(&delete).unwrap();
    assert_eq!(kept(&mut host), []);
}

/// A subscription once nothing more comes of what was done before: the kernel tells some of it
/// later, such as the routes of a port whose carrier has settled.
fn settled() -> RoutingChanges {
    let mut changes = RoutingChanges::open().unwrap();
    let started = Instant::now();
    while poll(&mut [PollFd::new(changes.as_fd(), PollFlags::POLLIN)], 100_u16).unwrap() > 0 {
        assert!(started.elapsed() < Duration::from_secs(10), "there is no end of changes");
        changes.receive().unwrap();
    }
    assert_eq!(changes.receive().unwrap(), None);
    changes
}

#[test]
fn what_changes_routing_is_told() {
    move_away();
    let (mut host, link) = host();
    for change in [
        "link set br0 mtu 1300",
        "address add 192.0.2.7/24 dev br0",
        "-6 address add 2001:db8::7/64 dev br0 nodad",
        "route add 10.1.0.0/24 via 192.0.2.2",
        "-6 route add fd00:1::/64 via 2001:db8::2",
    ] {
        let mut changes = settled();
        run("ip", &change.split(' ').collect::<Vec<_>>(), "");
        heard(&mut changes, RoutingChanges::receive, |events| !events.is_empty());
    }
    for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        let mut changes = settled();
        std::fs::write(format!("/proc/sys/net/{key}"), "1").unwrap();
        std::fs::write(format!("/proc/sys/net/{key}"), "0").unwrap();
        heard(&mut changes, RoutingChanges::receive, |events| !events.is_empty());
    }
    assert!(host.link_by_index(link).unwrap().is_some());
}
