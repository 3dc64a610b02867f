//! The way to an address, and who is there.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use netlink::{Request, Route};

use crate::space::{PLAIN, cidr, namespace, socket, veth};

#[test]
fn the_route_of_one_packet_is_told() {
    let (node, container) = (namespace(), namespace());
    let mut host = socket(&node);
    let link = veth(&mut host, &container, None);
    host.execute(&[Request::set_up(1, "lo")]).unwrap();
    for address in ["10.1.0.1/24", "fd00:1::1/64"] {
        let add = Request::add_address(link.index, &link.name, cidr(address), PLAIN);
        host.execute(&[add]).unwrap();
    }
    let mut far = socket(&container);
    let inside = far.link_by_name("eth0").unwrap().unwrap();
    far.execute(&[Request::set_up(inside.index, "eth0")]).unwrap();
    let mut via = |to: &str, gateway: &str| {
        let route = Route { gateway: gateway.parse().ok(), ..Route::new(cidr(to), link.index) };
        host.execute(&[Request::add_route(&route, &link.name)]).unwrap();
    };
    via("192.0.2.0/24", "10.1.0.9");
    let mut way = |to: &str| {
        let route = host.route_to(to.parse().unwrap()).unwrap();
        route.map(|route| (route.link, route.gateway.map(|it| it.to_string())))
    };
    assert_eq!(way("10.1.0.2"), Some((link.index, None)));
    assert_eq!(way("fd00:1::2"), Some((link.index, None)));
    assert_eq!(way("192.0.2.7"), Some((link.index, Some("10.1.0.9".to_owned()))));
    // Nowhere, and the node itself.
    assert_eq!(way("198.51.100.1"), None);
    assert_eq!(way("2001:db8::1"), None);
    assert_eq!(way("10.1.0.1"), None);
    let mut is_local = |address: &str| host.is_local(address.parse().unwrap()).unwrap();
    // An address of IPv6 is the host's own when the kernel's work for it is done (`addrconf_dad_work`).
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_local("fd00:1::1") {
        assert!(Instant::now() < deadline, "fd00:1::1 is not local");
    }
    assert!(["10.1.0.1", "127.0.0.1"].into_iter().all(&mut is_local));
    let others =
        ["10.1.0.2", "fd00:1::2", "192.0.2.7", "198.51.100.1", "2001:db8::1", "10.1.0.255"];
    assert!(!others.into_iter().any(is_local));
    // As they stand in the table.
    let everything =
        Route { gateway: "10.1.0.8".parse().ok(), ..Route::new(cidr("0.0.0.0/0"), link.index) };
    host.execute(&[Request::add_route(&everything, &link.name)]).unwrap();
    let mut matching = |to: &str| {
        let route = host.matching_route(to.parse().unwrap()).unwrap();
        route.map(|route| (route.dst.to_string(), route.gateway.map(|it| it.to_string())))
    };
    let of = |dst: &str, gateway: Option<&str>| Some((dst.into(), gateway.map(str::to_owned)));
    assert_eq!(matching("10.1.0.2"), of("10.1.0.0/24", None));
    assert_eq!(matching("fd00:1::2"), of("fd00:1::/64", None));
    assert_eq!(matching("192.0.2.7"), of("192.0.2.0/24", Some("10.1.0.9")));
    assert_eq!(matching("198.51.100.1"), of("0.0.0.0/0", Some("10.1.0.8")));
    assert_eq!(matching("2001:db8::1"), None);
    assert_eq!(matching("10.1.0.1"), None);
}

#[test]
fn who_is_asked_for_and_there_becomes_a_neighbour() {
    let (node, container) = (namespace(), namespace());
    let mut host = socket(&node);
    let link = veth(&mut host, &container, None);
    let mut far = socket(&container);
    let inside = far.link_by_name("eth0").unwrap().unwrap();
    far.execute(&[Request::set_up(inside.index, "eth0")]).unwrap();
    for (near, there, nobody) in
        [("10.1.0.1/24", "10.1.0.2/24", "10.1.0.3"), ("fd00:1::1/64", "fd00:1::2/64", "fd00:1::3")]
    {
        let add =
            |link, name: &str, address| Request::add_address(link, name, cidr(address), PLAIN);
        host.execute(&[add(link.index, &link.name, near)]).unwrap();
        far.execute(&[add(inside.index, "eth0", there)]).unwrap();
        let (there, nobody): (IpAddr, IpAddr) = (cidr(there).ip(), nobody.parse().unwrap());
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let asked = [there, nobody].map(|it| Request::ask_for_neighbour(link.index, it));
            host.execute(&asked).unwrap();
            let neighbours = host.neighbours(there.is_ipv4()).unwrap();
            let is_known =
                |address| neighbours.iter().any(|it| it.address == address && it.mac.is_some());
            assert!(!is_known(nobody), "nobody is there");
            if is_known(there) {
                break;
            }
            assert!(Instant::now() < deadline, "{there} does not answer: {neighbours:?}");
        }
    }
}
