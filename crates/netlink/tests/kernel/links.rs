//! Links, addresses and routes.

use std::thread::sleep;
use std::time::{Duration, Instant};

use netlink::{HardwareAddress, Link, Monitor, OperState, PortOptions, Request, Route, Socket};
use netns::Netns;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use std::path::Path;

use crate::space::{PLAIN, bridge, cidr, namespace, socket, veth};

#[test]
fn a_socket_stays_in_its_namespace() {
    let netns = namespace();
    let mut inside = socket(&netns);
    bridge(&mut inside);
    assert!(inside.link_by_name("br0").unwrap().is_some());
    let own = socket(&Netns::open(Path::new("/proc/thread-self/ns/net")).unwrap())
        .link_by_name("lo")
        .unwrap();
    assert!(own.is_some_and(|link| link.is_loopback));
    assert!(socket(&namespace()).link_by_name("br0").unwrap().is_none());
}

#[test]
fn a_pair_is_created_whole_in_one_message() {
    let (host_netns, container_netns) = (namespace(), namespace());
    let (mut host, mut container) = (socket(&host_netns), socket(&container_netns));
    let bridge = bridge(&mut host);
    let near = veth(&mut host, &container_netns, Some(bridge.index));
    assert_eq!((near.kind.as_str(), near.mtu, near.is_up), ("veth", 1300, true));
    assert_eq!(near.mac_text(), "02:00:00:00:00:01");
    assert_eq!(near.controller, Some(bridge.index));

    let far = container.link_by_name("eth0").unwrap().unwrap();
    assert_eq!((far.mtu, far.is_up), (1300, false));
    assert_eq!(far.mac_text(), "02:00:00:00:00:02");
    assert_eq!(near.peer.unwrap_or(near.index), far.index);

    let up = Request::set_up(far.index, "eth0");
    container.execute_and_look_up(vec![up], far.index).unwrap();
    wait_until_up(&mut container, far.index);
    wait_until_up(&mut host, near.index);
    assert_eq!(bridge.mtu, 1400);
    let (_, bridge) = host.link_pair(near.index, bridge.index).unwrap();
    // A bridge follows the smallest of its ports until somebody sets its MTU after creation.
    assert_eq!(bridge.mtu, 1300);

    container.execute(&[Request::delete_link("eth0")]).unwrap();
    assert!(host.link_by_name("veth0").unwrap().is_none());
    container.execute(&[Request::delete_link("eth0").or_gone()]).unwrap();
    let error = container.execute(&[Request::delete_link("eth0")]).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ENODEV));
}

/// Before Linux 6.8 a link is up moments after it was looked up, and not before.
fn wait_until_up(socket: &mut Socket, index: u32) {
    let started = Instant::now();
    while socket.link_by_index(index).unwrap().unwrap().oper_state != OperState::Up {
        assert!(started.elapsed() < Duration::from_secs(10), "link {index} is not up");
        sleep(Duration::from_millis(1));
    }
}

#[test]
fn port_options_are_set_and_refused_with_the_kernels_words() {
    let netns = namespace();
    let mut host = socket(&netns);
    let bridge = bridge(&mut host);
    // Kept: the pair goes with either of its namespaces.
    let container = namespace();
    let port = veth(&mut host, &container, Some(bridge.index));
    let options = PortOptions { hairpin: true, isolated: true };
    host.execute(&[Request::set_port_options(port.index, "veth0", options)]).unwrap();
    let _entered = netns.enter().unwrap();
    for name in ["hairpin_mode", "isolated"] {
        // sysfs shows the namespace that it was mounted in, so a mount of its own is needed.
        let shown = std::thread::scope(|scope| {
            let read = || {
                netns.enter().map(std::mem::forget).unwrap();
                unshare(CloneFlags::CLONE_NEWNS).unwrap();
                let flags = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
                nix::mount::mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).unwrap();
                let none = nix::mount::MsFlags::empty();
                nix::mount::mount(Some("sysfs"), "/sys", Some("sysfs"), none, None::<&str>)
                    .unwrap();
                std::fs::read_to_string(format!("/sys/class/net/veth0/brport/{name}")).unwrap()
            };
            scope.spawn(read).join().unwrap()
        });
        assert_eq!(shown, "1\n", "{name}");
    }
    let error = host
        .execute(&[Request::set_port_options(bridge.index, "br0", options)])
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("cannot set the bridge port options of \"br0\""), "{error}");
}

#[test]
fn addresses_are_usable_at_once_and_listed_by_link() {
    let netns = namespace();
    let mut host = socket(&netns);
    let bridge = bridge(&mut host);
    let wanted = [cidr("10.1.0.1/24"), cidr("fd00::1/64")];
    let requests: Vec<Request> = wanted
        .iter()
        .map(|address| Request::add_address(bridge.index, "br0", *address, PLAIN))
        .collect();
    host.execute(&requests).unwrap();
    let listed = host.addresses(bridge.index, "br0").unwrap();
    for address in wanted {
        let found = listed.iter().find(|found| found.cidr == address).unwrap();
        assert!(!found.is_tentative && !found.is_duplicate);
    }
    assert!(host.addresses(1, "lo").unwrap().iter().all(|address| address.cidr.ip().is_loopback()));

    let error = host.execute(&requests[..1]).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EEXIST));
    assert!(error.to_string().starts_with("cannot add address 10.1.0.1/24 to \"br0\""), "{error}");
    host.execute(&[requests[0].clone().or_exists()]).unwrap();
    host.execute(&[Request::delete_address(bridge.index, "br0", wanted[0])]).unwrap();
    let gone = Request::delete_address(bridge.index, "br0", wanted[0]).or_gone();
    host.execute(&[gone]).unwrap();
}

#[test]
fn a_refusal_in_the_middle_is_told_and_the_rest_still_happens() {
    let netns = namespace();
    let mut host = socket(&netns);
    let bridge = bridge(&mut host);
    let add = |text| Request::add_address(bridge.index, "br0", cidr(text), PLAIN);
    let wrong = Request::add_address(4711, "nothing", cidr("10.9.0.1/24"), PLAIN);
    let error = host.execute(&[add("10.1.0.1/24"), wrong, add("10.2.0.1/24")]).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ENODEV));
    assert!(error.to_string().contains("10.9.0.1/24 to \"nothing\""), "{error}");
    let listed = host.addresses(bridge.index, "br0").unwrap();
    assert_eq!(listed.iter().filter(|address| address.cidr.is_ipv4()).count(), 2);
}

#[test]
fn routes_keep_their_attributes() {
    let netns = namespace();
    let mut host = socket(&netns);
    let bridge = bridge(&mut host);
    let routes = [
        Route {
            gateway: Some("10.1.0.9".parse().unwrap()),
            priority: 50,
            table: 1000,
            mtu: Some(1300),
            advmss: Some(1200),
            ..Route::new(cidr("10.9.0.0/16"), bridge.index)
        },
        Route { scope: Route::SCOPE_LINK, ..Route::new(cidr("0.0.0.0/0"), bridge.index) },
        Route {
            gateway: Some("fd00::9".parse().unwrap()),
            priority: 7,
            ..Route::new(cidr("fd09::/48"), bridge.index)
        },
    ];
    let mut requests: Vec<Request> = ["10.1.0.1/24", "fd00::1/64"]
        .map(|address| Request::add_address(bridge.index, "br0", cidr(address), PLAIN))
        .into();
    requests.extend(routes.iter().map(|route| Request::add_route(route, "br0")));
    host.execute(&requests).unwrap();
    let mut listed = host.routes(true).unwrap();
    listed.extend(host.routes(false).unwrap());
    for route in &routes {
        assert!(listed.contains(route), "{route:?} is not in {listed:#?}");
    }
    let again = Request::add_route(&routes[0], "br0");
    assert_eq!(
        host.execute(std::slice::from_ref(&again)).unwrap_err().errno(),
        Some(Errno::EEXIST)
    );
    host.execute(&[again.or_exists()]).unwrap();
    host.execute(&[Request::delete_route(&routes[0], "br0")]).unwrap();
    assert!(!host.routes(true).unwrap().contains(&routes[0]));
}

/// Requests for routes to as many networks, more than are sent to the kernel at once, and more
/// than it can refuse at once.
fn many_routes(bridge: &Link) -> Vec<Request> {
    let route = |number: u32| {
        let network = std::net::Ipv4Addr::from(0x0a80_0000 + number * 256);
        Request::add_route(&Route::new(cidr(&format!("{network}/24")), bridge.index), "br0")
    };
    (0..1000).map(route).collect()
}

#[test]
fn any_number_of_requests_is_carried_out() {
    let netns = namespace();
    let mut host = socket(&netns);
    let bridge = bridge(&mut host);
    let requests = many_routes(&bridge);
    host.execute(&requests).unwrap();
    assert_eq!(host.routes(true).unwrap().len(), requests.len());
    let again: Vec<Request> = requests.into_iter().map(Request::or_exists).collect();
    host.execute(&again).unwrap();
    assert_eq!(host.execute_and_look_up(again, bridge.index).unwrap().name, "br0");
}

#[test]
fn of_many_refusals_the_first_that_is_not_tolerated_is_told() {
    let netns = namespace();
    let mut host = socket(&netns);
    let bridge = bridge(&mut host);
    let requests = many_routes(&bridge);
    let (first, last) = requests.split_at(500);
    host.execute(first).unwrap();
    let wrong = Request::add_address(4711, "nothing", cidr("10.9.0.1/24"), PLAIN);
    let mut all: Vec<Request> = first.iter().cloned().map(Request::or_exists).collect();
    all.push(wrong.clone());
    all.extend_from_slice(last);
    all.extend_from_slice(last);
    let error = host.execute(&all).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ENODEV));
    assert!(error.to_string().contains("10.9.0.1/24 to \"nothing\""), "{error}");
    assert_eq!(host.routes(true).unwrap().len(), requests.len());
    // The socket is as good as new: no answer is left in it.
    assert_eq!(host.execute(&[wrong]).unwrap_err().errno(), Some(Errno::ENODEV));
    assert_eq!(host.link_by_name("br0").unwrap().unwrap().index, bridge.index);
}

#[test]
fn an_unreachable_gateway_is_explained() {
    let netns = namespace();
    let mut host = socket(&netns);
    let bridge = bridge(&mut host);
    let gateway = Some("192.0.2.1".parse().unwrap());
    let route = Route { gateway, ..Route::new(cidr("10.9.0.0/16"), bridge.index) };
    let error = host.execute(&[Request::add_route(&route, "br0")]).unwrap_err();
    let netlink::Error::Refused { explanation, errno, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*errno, Errno::ENETUNREACH);
    assert_eq!(explanation, "Nexthop has invalid gateway");
}

#[test]
fn a_change_is_heard_of() {
    let netns = namespace();
    let mut host = socket(&netns);
    let mut monitor = {
        let _entered = netns.enter().unwrap();
        Monitor::of_links().unwrap()
    };
    let mut other = socket(&netns);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            bridge(&mut other);
        });
        let found = monitor.wait_for(Duration::from_secs(10), || host.link_by_name("br0")).unwrap();
        assert_eq!(found.unwrap().kind, "bridge");
    });
    let nothing = monitor.wait_for(Duration::from_millis(20), || host.link_by_name("br1")).unwrap();
    assert!(nothing.is_none());
}

/// Reads a parameter of the namespace that a test thread entered.
fn sysctl(key: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/net/{key}")).unwrap().trim().to_owned()
}

#[test]
fn forwarding_is_told_as_the_files_have_it() {
    let netns = namespace();
    let mut socket = socket(&netns);
    let _entered = netns.enter().unwrap();
    let files = [(true, "ipv4/ip_forward"), (false, "ipv6/conf/all/forwarding")];
    for (is_ipv4, key) in files {
        for value in ["0", "1"] {
            std::fs::write(format!("/proc/sys/net/{key}"), value).unwrap();
            assert_eq!(socket.forwards(is_ipv4).unwrap(), Some(value == "1"), "{key}");
        }
    }
}

#[test]
fn a_links_parameters_are_read_and_set() {
    let netns = namespace();
    let mut socket = socket(&netns);
    let link = bridge(&mut socket);
    let _entered = netns.enter().unwrap();
    for value in ["0", "1", "2"] {
        std::fs::write("/proc/sys/net/ipv6/conf/br0/accept_ra", value).unwrap();
        let told = socket.link_by_name("br0").unwrap().unwrap().accepts_advertisements;
        assert_eq!(told, Some(value != "0"));
    }
    assert_eq!(sysctl("ipv4/conf/br0/arp_notify"), "0");
    socket.execute(&[Request::announce_addresses(link.index, "br0")]).unwrap();
    assert_eq!(sysctl("ipv4/conf/br0/arp_notify"), "1");
}

#[test]
fn a_link_is_read_as_it_is() {
    let (host_netns, container_netns) = (namespace(), namespace());
    let mut host = socket(&host_netns);
    let bridge = bridge(&mut host);
    let near = veth(&mut host, &container_netns, Some(bridge.index));
    let mut inside = socket(&container_netns);
    let far = inside.link_by_name("eth0").unwrap().unwrap();
    assert_eq!((near.peer, far.peer), (Some(far.index), Some(near.index)));
    assert_eq!((near.is_up, far.is_up), (true, false));
    assert_eq!((far.mtu, far.kind.as_str(), far.controller), (1300, "veth", None));
    let lo = inside.link_by_name("lo").unwrap().unwrap();
    assert_eq!(
        (lo.is_loopback, lo.kind.as_str(), lo.mac_text().as_str()),
        (true, "", "00:00:00:00:00:00")
    );
    assert_eq!(inside.link_by_name("eth1").unwrap(), None);
}

#[test]
fn what_can_be_tuned_is_set_read_and_set_back() {
    let netns = namespace();
    let mut host = socket(&netns);
    let before = bridge(&mut host);
    let (index, name) = (before.index, "br0");
    let mac = HardwareAddress([2, 0, 0, 0, 9, 9]);
    let changes = [
        Request::set_mac(index, name, mac),
        Request::set_mtu(index, name, 1300),
        Request::set_tx_queue_length(index, name, 7),
        Request::set_promiscuous(index, name, true),
        Request::set_all_multicast(index, name, true),
    ];
    host.execute(&changes).unwrap();
    let after = host.link_by_index(index).unwrap().unwrap();
    assert_eq!((after.mac, after.mtu, after.tx_queue_length), (Some(mac), 1300, 7));
    assert!(after.is_promiscuous && after.is_all_multicast && after.is_up);
    host.execute(&[
        Request::set_mtu(index, name, before.mtu),
        Request::set_tx_queue_length(index, name, before.tx_queue_length),
        Request::set_promiscuous(index, name, false),
        Request::set_all_multicast(index, name, false),
    ])
    .unwrap();
    let end = host.link_by_index(index).unwrap().unwrap();
    assert!(!end.is_promiscuous && !end.is_all_multicast);
    assert_eq!((end.mtu, end.tx_queue_length), (before.mtu, before.tx_queue_length));
    let error = host.execute(&[Request::set_mtu(index, name, u32::MAX)]).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EINVAL));
    assert!(
        error.to_string().starts_with("cannot set the MTU of \"br0\" to 4294967295"),
        "{error}"
    );
}
