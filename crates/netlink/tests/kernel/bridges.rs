//! Bridges, and where addresses are.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use netlink::{
    BridgeFiltering, Error, FdbEntry, HardwareAddress, HostInterface, Link, Neighbour, Request,
    Route, Socket,
};
use netns::Netns;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::space::{PLAIN, bridge, cidr, namespace, numbered_veth, run, socket};

const ALL: BridgeFiltering = BridgeFiltering::BOTH;
const IPV6: BridgeFiltering = BridgeFiltering { ipv4: false, ipv6: true };

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A container with addresses, which the host can reach by `near`.
fn container(host: &mut Socket, number: u8, bridge: Option<u32>) -> (Netns, Link) {
    let netns = namespace();
    let near = numbered_veth(host, number, &netns, bridge);
    let mut inside = socket(&netns);
    let far = inside.link_by_name("eth0").unwrap().unwrap().index;
    let add = |text: String| Request::add_address(far, "eth0", cidr(&text), PLAIN);
    let up = Request::set_up(far, "eth0");
    let requests = [up, add(format!("10.1.{number}.2/16")), add(format!("fd00:{number}::2/16"))];
    inside.execute(&requests).unwrap();
    (netns, near)
}

/// A host with a bridge that has addresses, set up.
fn host() -> (Netns, Socket, Link) {
    let netns = namespace();
    let mut host = socket(&netns);
    let bridge = bridge(&mut host);
    let add = |text| Request::add_address(bridge.index, "br0", cidr(text), PLAIN);
    host.execute(&[add("10.1.0.1/16"), add("fd00::1/16")]).unwrap();
    (netns, host, bridge)
}

fn ping(address: &str) {
    run("ping", &["-q", "-c1", "-W5", address], "");
}

#[test]
fn what_a_bridge_passes_to_iptables_is_set_and_read() {
    let (netns, mut host, bridge) = host();
    let link = |host: &mut Socket, name| host.link_by_name(name).unwrap().unwrap();
    assert_eq!(bridge.filtering, Some(BridgeFiltering::default()));
    let _entered = netns.enter().unwrap();
    for wanted in [IPV6, ALL, BridgeFiltering::default()] {
        let before = link(&mut host, "br0");
        host.set_bridge_filtering(&before, wanted).unwrap();
        assert_eq!(link(&mut host, "br0").filtering, Some(wanted));
    }
    let lo = link(&mut host, "lo");
    assert_eq!(lo.filtering, None);
    let error = host.set_bridge_filtering(&lo, ALL).unwrap_err().to_string();
    assert!(error.starts_with("cannot have bridge \"lo\" pass packets to iptables"), "{error}");
}

#[test]
fn bridged_packets_pass_iptables_when_they_are_told_to() {
    let (netns, mut host, bridge) = host();
    let (first, _near) = container(&mut host, 1, Some(bridge.index));
    let (_second, _near) = container(&mut host, 2, Some(bridge.index));
    let _entered = netns.enter().unwrap();
    for parameter in ["iptables", "ip6tables"] {
        let file = format!("/proc/sys/net/bridge/bridge-nf-call-{parameter}");
        std::fs::write(file, "0").unwrap();
    }
    run("iptables", &["-A", "FORWARD"], "");
    run("ip6tables", &["-A", "FORWARD"], "");
    let seen = || {
        let _entered = first.enter().unwrap();
        ping("10.1.2.2");
        ping("fd00:2::2");
        drop(_entered);
        ["iptables-save", "ip6tables-save"].map(|file| {
            let rules = run(file, &["-c"], "");
            let rule = rules.lines().find(|line| line.ends_with("-A FORWARD")).unwrap();
            !rule.starts_with("[0:0]")
        })
    };
    assert_eq!(seen(), [false, false]);
    host.set_bridge_filtering(&bridge, IPV6).unwrap();
    assert_eq!(seen(), [false, true]);
    host.set_bridge_filtering(&bridge, ALL).unwrap();
    assert_eq!(seen(), [true, true]);
}

#[test]
fn a_missing_module_is_told() {
    let (netns, mut host, bridge) = host();
    let refused = || {
        netns.enter().map(std::mem::forget).unwrap();
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        // Stands for a kernel without the module, on one that has it: it cannot be unloaded for one test.
        let (hidden, none) = ("/proc/sys/net/bridge", MsFlags::empty());
        if std::path::Path::new(hidden).exists() {
            mount(Some("none"), hidden, Some("tmpfs"), none, None::<&str>).unwrap();
        }
        let error = host.set_bridge_filtering(&bridge, ALL).unwrap_err();
        assert!(matches!(&error, Error::NoBridgeNetfilter { bridge } if bridge == "br0"));
        assert!(error.to_string().contains("is module br_netfilter loaded?"), "{error}");
        host.link_by_name("br0").unwrap().unwrap().filtering
    };
    let left = std::thread::scope(|scope| scope.spawn(refused).join().unwrap());
    assert_eq!(left, Some(BridgeFiltering::default()));
}

#[test]
fn neighbours_and_forwarding_databases_are_listed() {
    let (netns, mut host, bridge) = host();
    let (_container, near) = container(&mut host, 1, Some(bridge.index));
    let _entered = netns.enter().unwrap();
    let mac = HardwareAddress([2, 0, 0, 0, 1, 2]);
    for text in ["10.1.1.2", "fd00:1::2"] {
        ping(text);
        let address = address(text);
        let wanted = Neighbour { link: bridge.index, address, mac: Some(mac), is_static: false };
        let listed = host.neighbours(address.is_ipv4()).unwrap();
        assert!(listed.contains(&wanted), "{listed:?}");
        assert!(listed.iter().all(|found| found.address.is_ipv4() == address.is_ipv4()));
    }
    let fdb = host.fdb().unwrap();
    let entry =
        |mac, is_own| FdbEntry { bridge: Some(bridge.index), link: near.index, mac, is_own };
    assert!(fdb.contains(&entry(mac, false)), "{fdb:?}");
    assert!(fdb.contains(&entry(near.mac.unwrap(), true)), "{fdb:?}");
}

#[test]
fn what_waits_for_a_neighbour_goes_when_it_is_forgotten() {
    let (netns, mut host, bridge) = host();
    let (container, _near) = container(&mut host, 1, Some(bridge.index));
    let mut inside = socket(&container);
    let far = inside.link_by_name("eth0").unwrap().unwrap().index;
    let receiver = {
        let _entered = container.enter().unwrap();
        UdpSocket::bind("[::]:9").unwrap()
    };
    receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let _entered = netns.enter().unwrap();
    let sender = UdpSocket::bind("[::]:0").unwrap();
    // What an address gets that somebody takes after it was sent to.
    let mut received = |text: &str, is_forgotten: bool| {
        let neighbour = address(text);
        let to = match neighbour {
            IpAddr::V4(it) => it.to_ipv6_mapped().into(),
            IpAddr::V6(_) => neighbour,
        };
        sender.send_to(b"before", (to, 9)).unwrap();
        if is_forgotten {
            let forget = || Request::forget_neighbour(bridge.index, neighbour);
            host.execute(&[forget()]).unwrap();
            host.execute(&[forget()]).expect("one that is not there");
        }
        let add = Request::add_address(far, "eth0", cidr(&format!("{text}/16")), PLAIN);
        inside.execute(&[add]).unwrap();
        sender.send_to(b"after", (to, 9)).unwrap();
        let mut buffer = [0; 16];
        let length = receiver.recv(&mut buffer).unwrap();
        buffer[..length].to_vec()
    };
    for (waited_for, forgotten) in [("10.1.1.77", "10.1.1.78"), ("fd00:1::77", "fd00:1::78")] {
        assert_eq!(received(forgotten, true), b"after");
        assert_eq!(received(waited_for, false), b"before");
        assert_eq!(receiver.recv(&mut [0; 16]).unwrap(), b"after".len());
    }
}

#[test]
fn a_neighbour_that_does_not_answer_has_no_hardware_address() {
    let (netns, mut host, bridge) = host();
    let (_container, _near) = container(&mut host, 1, Some(bridge.index));
    let _entered = netns.enter().unwrap();
    let unheard = address("10.1.1.77");
    let sender = UdpSocket::bind("0.0.0.0:0").unwrap();
    sender.send_to(b"?", (unheard, 9)).unwrap();
    let wanted = Neighbour { link: bridge.index, address: unheard, mac: None, is_static: false };
    assert!(host.neighbours(true).unwrap().contains(&wanted));
    assert_eq!(host.host_interfaces().unwrap().of(unheard), None);
}

#[test]
fn the_interface_of_an_address_is_found() {
    let (netns, mut host, bridge) = host();
    let (_bridged, port) = container(&mut host, 1, Some(bridge.index));
    let (_routed, routed) = container(&mut host, 2, None);
    let routes = ["10.1.2.2/32", "fd00:2::2/128"]
        .map(|to| Request::add_route(&Route::new(cidr(to), routed.index), "veth2"));
    host.execute(&routes).unwrap();
    let _entered = netns.enter().unwrap();
    for (address, name, index, bridge) in [
        ("10.1.1.2", "veth1", port.index, Some(bridge.index)),
        ("fd00:1::2", "veth1", port.index, Some(bridge.index)),
        ("10.1.2.2", "veth2", routed.index, None),
        ("fd00:2::2", "veth2", routed.index, None),
    ] {
        if bridge.is_some() {
            ping(address);
        }
        let found = host.host_interfaces().unwrap().of(address.parse().unwrap());
        assert_eq!(found, Some(HostInterface { index, name: name.into(), bridge }), "{address}");
    }
    let interfaces = host.host_interfaces().unwrap();
    for nowhere in ["10.1.1.3", "10.1.0.1", "192.0.2.1", "fd00::1"] {
        assert_eq!(interfaces.of(address(nowhere)), None, "{nowhere}");
    }
    assert_eq!(host.links().unwrap().len(), 4);
}
