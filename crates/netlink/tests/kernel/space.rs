//! Namespaces, and what is in them.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use netlink::nftables::Client;
use netlink::{
    AddressOptions, BridgeSpec, Error, Event, HardwareAddress, Link, Request, Socket, VethSpec,
};
use netns::Netns;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::{CloneFlags, unshare};
use runner::{OsRunner, Program, Runner as _};

pub(crate) const PLAIN: AddressOptions =
    AddressOptions { detect_duplicates: false, network_route: true };

/// A fresh namespace, kept alive by the returned descriptor.
pub(crate) fn namespace() -> Netns {
    let fresh = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("tests run as root");
        Netns::open(Path::new("/proc/thread-self/ns/net")).unwrap()
    };
    std::thread::spawn(fresh).join().unwrap()
}

/// Moves this test's thread into a namespace of its own, which ends with it.
pub(crate) fn move_away() {
    unshare(CloneFlags::CLONE_NEWNET).expect("tests run as root");
}

/// An nf_tables client in a namespace that this test's thread has to itself.
pub(crate) fn nf_tables() -> Client {
    move_away();
    Client::open().unwrap().expect("the kernel has nf_tables")
}

/// Has the program nft do this.
pub(crate) fn nft(commands: &str) {
    run("nft", &["-f", "-"], commands);
}

pub(crate) fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|it| (*it).to_owned()).collect()
}

pub(crate) fn socket(netns: &Netns) -> Socket {
    let _entered = netns.enter().unwrap();
    Socket::open().unwrap()
}

pub(crate) fn cidr(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

pub(crate) fn bridge(host: &mut Socket) -> Link {
    let spec = BridgeSpec { name: "br0", mtu: Some(1400), mac: None, vlan_filtering: false };
    let link = host.create_link(Request::create_bridge(&spec), "br0").unwrap();
    host.execute(&[Request::set_up(link.index, "br0")]).unwrap();
    link
}

/// A veth pair, `veth<number>` and, in the container, `eth0` of MAC address
/// `02:00:00:00:<number>:02`.
pub(crate) fn numbered_veth(
    host: &mut Socket,
    number: u8,
    container: &Netns,
    bridge: Option<u32>,
) -> Link {
    let name = format!("veth{number}");
    let request = Request::create_veth(&VethSpec {
        name: &name,
        mac: HardwareAddress([2, 0, 0, 0, number, 1]),
        bridge,
        peer_name: "eth0",
        peer_mac: HardwareAddress([2, 0, 0, 0, number, 2]),
        peer_netns: container.as_fd(),
        mtu: Some(1300),
    });
    host.create_link(request, &name).unwrap()
}

pub(crate) fn veth(host: &mut Socket, container: &Netns, bridge: Option<u32>) -> Link {
    numbered_veth(host, 0, container, bridge)
}

/// Runs a program in the thread's namespace, which must succeed; its output.
pub(crate) fn run(file: &str, args: &[&str], input: &str) -> String {
    let program =
        Program { file: file.into(), args, stdin: input.as_bytes(), ..Program::default() };
    let output = OsRunner.run(&program).expect("the program is installed");
    assert!(output.status.success(), "{file} {args:?} < {input}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a subscription tells until `enough` has been told.
pub(crate) fn heard<S: AsFd, T>(
    subscription: &mut S,
    receive: impl Fn(&mut S) -> Result<Option<Vec<Event<T>>>, Error>,
    mut enough: impl FnMut(&[Event<T>]) -> bool,
) -> Vec<Event<T>> {
    let (deadline, mut events) = (Instant::now() + Duration::from_secs(10), Vec::new());
    while !enough(&events) {
        assert!(Instant::now() < deadline, "{} events, but not the one", events.len());
        match receive(subscription).unwrap() {
            Some(more) => events.extend(more),
            None => {
                let mut waiting = [PollFd::new(subscription.as_fd(), PollFlags::POLLIN)];
                poll(&mut waiting, 1000_u16).unwrap();
            }
        }
    }
    events
}

/// What events tell, of which none may be missed.
pub(crate) fn told<T>(events: Vec<Event<T>>) -> Vec<T> {
    assert!(!events.iter().any(|event| matches!(event, Event::Missed)));
    let told = |event| match event {
        Event::Heard(told) => Some(told),
        Event::Missed => None,
    };
    events.into_iter().filter_map(told).collect()
}
