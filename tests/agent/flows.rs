//! Flows that policies no longer allow end; those that they allow go on.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use lab::frames::Ear;
use lab::probe::must_not_reach;
use lab::{by_nftables, slowed};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use serde_json::json;

use crate::guards::remove_middle;
use crate::node::{PATIENCE, PolicedNode};

/// A connection in which only the server speaks, all the time.
fn pushed(node: &PolicedNode, address: IpAddr) -> TcpStream {
    let server = SocketAddr::new(address, 9000);
    pushed_by(node, server, server)
}

/// The same with a server at one address, which the client knows by another.
fn pushed_by(node: &PolicedNode, server: SocketAddr, known: SocketAddr) -> TcpStream {
    let listener = node.space("server").enter(|| TcpListener::bind(server)).unwrap();
    let client = node
        .space("client")
        .enter(|| TcpStream::connect_timeout(&known, slowed(PATIENCE)))
        .unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    spawn(move || {
        let started = Instant::now();
        // A full buffer is no end: it is what a cut flow looks like from here.
        while started.elapsed() < slowed(PATIENCE * 3) {
            match server.write(b"push") {
                Ok(_) => sleep(Duration::from_millis(5)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    });
    client.set_read_timeout(Some(slowed(Duration::from_millis(700)))).unwrap();
    client
}

/// Whether anything still comes.
fn is_fed(mut stream: &TcpStream) -> bool {
    // What was on its way already does not count.
    let started = Instant::now();
    while started.elapsed() < slowed(Duration::from_millis(500)) {
        if stream.read(&mut [0; 65536]).is_err() {
            return false;
        }
    }
    stream.read(&mut [0; 65536]).is_ok_and(|length| length > 0)
}

#[test]
fn a_flow_that_is_no_longer_allowed_is_cut_and_healed_when_it_is_again() {
    let node = PolicedNode::new(&["client", "server", "other"]);
    let streams: Vec<_> = node.addresses("server").iter().map(|it| pushed(&node, *it)).collect();
    assert!(streams.iter().all(is_fed));
    // A change that says nothing of this flow leaves it alone.
    node.write(
        "other",
        &json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "other"}, "spec": {"podSelector": {"matchLabels": {"app": "other"}}}}),
    );
    node.wait("isolation of the other", |it| it.rules().contains("PODWIRE-TO-"));
    assert!(streams.iter().all(is_fed));
    assert_eq!(node.metric("policyd_flows_cut_total"), 0);
    isolate(&node, "server", "Ingress");
    node.wait(ISOLATED, |it| it.metric("policyd_flows_cut_total") >= 2);
    assert!(!streams.iter().any(is_fed));
    node.remove("deny");
    node.wait("the healing", |_| streams.iter().all(is_fed));
    node.clean_up();
}

/// The rules hold for whoever begins anew, and for nobody else.
#[test]
fn where_flows_are_not_cut_they_go_on() {
    let mut node = PolicedNode::told(&["client", "server"], &["--cut-flows", "off"]);
    let streams: Vec<_> = node.addresses("server").iter().map(|it| pushed(&node, *it)).collect();
    assert!(streams.iter().all(is_fed));
    isolate(&node, "server", "Ingress");
    node.wait("isolation", |it| it.isolated() == 1);
    for address in node.addresses("server") {
        must_not_reach(node.space("client"), node.space("server"), &address.to_string());
    }
    // Within this, flows would have been looked at twice.
    sleep(Duration::from_millis(2500));
    assert!(streams.iter().all(is_fed));
    assert_eq!(node.metric("policyd_flows_cut_total"), 0);
    assert!(!node.rules().contains("PODWIRE-MIDDLE"), "{}", node.rules());
    node.roll(&[]);
    node.wait(ISOLATED, |it| it.metric("policyd_flows_cut_total") >= 2);
    assert!(!streams.iter().any(is_fed));
    node.clean_up();
}

const ISOLATED: &str = "the cut";

fn isolate(node: &PolicedNode, app: &str, direction: &str) {
    let spec = json!({"podSelector": {"matchLabels": {"app": app}}, "policyTypes": [direction]});
    node.write(
        "deny",
        &json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "deny"}, "spec": spec}),
    );
}

/// A client that has sent one datagram, and gets answers to it all the time.
fn answered(node: &PolicedNode, address: IpAddr) -> UdpSocket {
    let target = SocketAddr::new(address, 0);
    let server = node.space("server").enter(|| UdpSocket::bind(target)).unwrap();
    let any: SocketAddr = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
    let client = node.space("client").enter(|| UdpSocket::bind(any)).unwrap();
    client.send_to(b"once", server.local_addr().unwrap()).unwrap();
    server.set_read_timeout(Some(slowed(PATIENCE))).unwrap();
    let (_, peer) = server.recv_from(&mut [0; 9]).unwrap();
    spawn(move || {
        let started = Instant::now();
        while started.elapsed() < slowed(PATIENCE * 3) && server.send_to(b"again", peer).is_ok() {
            sleep(Duration::from_millis(5));
        }
    });
    client.set_read_timeout(Some(slowed(Duration::from_millis(700)))).unwrap();
    client
}

fn is_answered(client: &UdpSocket) -> bool {
    let started = Instant::now();
    while started.elapsed() < slowed(Duration::from_millis(500)) {
        if client.recv(&mut [0; 9]).is_err() {
            return false;
        }
    }
    client.recv(&mut [0; 9]).is_ok()
}

#[test]
fn answers_to_a_datagram_end_with_what_allowed_it() {
    let node = PolicedNode::new(&["client", "server"]);
    let clients: Vec<_> = node.addresses("server").iter().map(|it| answered(&node, *it)).collect();
    assert!(clients.iter().all(is_answered));
    isolate(&node, "server", "Ingress");
    node.wait(ISOLATED, |it| it.metric("policyd_flows_cut_total") >= 2);
    assert!(!clients.iter().any(is_answered));
    node.remove("deny");
    node.wait("the healing", |_| clients.iter().all(is_answered));
    node.clean_up();
}

/// What counts is the pod that a Service leads to, at either end.
#[test]
fn a_flow_through_a_service_is_cut() {
    let node = PolicedNode::new(&["client", "server"]);
    for (app, direction) in [("server", "Ingress"), ("client", "Egress")] {
        let before = node.metric("policyd_flows_cut_total");
        let addresses = node.addresses("server").iter();
        let streams: Vec<_> = addresses.map(|it| through_service(&node, *it)).collect();
        assert!(streams.iter().all(is_fed));
        isolate(&node, app, direction);
        node.wait(ISOLATED, |it| it.metric("policyd_flows_cut_total") >= before + 2);
        assert!(!streams.iter().any(is_fed), "{direction}");
        node.remove("deny");
        node.wait("the healing", |_| streams.iter().all(is_fed));
        node.node.sh("nft delete table ip services; nft delete table ip6 services");
    }
    node.clean_up();
}

/// A connection to an address that is nobody's, which a table `services` leads to the server.
fn through_service(node: &PolicedNode, address: IpAddr) -> TcpStream {
    let (family, service) = match address {
        IpAddr::V4(_) => ("ip", "10.96.0.10"),
        IpAddr::V6(_) => ("ip6", "fd00:96::10"),
    };
    let target = SocketAddr::new(address, 8080);
    node.node.sh(&format!(
        "nft add table {family} services
         nft add chain {family} services prerouting '{{ type nat hook prerouting priority -100; }}'
         nft add rule {family} services prerouting {family} daddr {service} tcp dport 80 dnat to {target}"
    ));
    pushed_by(node, target, SocketAddr::new(service.parse().unwrap(), 80))
}

/// Ends a connection by a reset, and begins another one from the same port: by packets that go no further
/// than to the node.
fn end_and_begin_again(node: &PolicedNode, stream: TcpStream) -> OwnedFd {
    let (own, server) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
    let goes_no_further = |socket: BorrowedFd<'_>| {
        if own.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4Ttl, &1).unwrap();
        } else {
            setsockopt(&socket, sockopt::Ipv6Ttl, &1).unwrap();
        }
    };
    goes_no_further(stream.as_fd());
    setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
    drop(stream);
    node.space("client").enter(|| {
        let family = if own.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(family, SockType::Stream, flags, None).unwrap();
        goes_no_further(socket.as_fd());
        setsockopt(&socket, sockopt::ReuseAddr, &true).unwrap();
        // A child that a test beside this one forks has the old socket open until it is another program.
        let started = Instant::now();
        while let Err(error) = bind(socket.as_raw_fd(), &SockaddrStorage::from(own)) {
            assert!(error == Errno::EADDRINUSE && started.elapsed() < slowed(PATIENCE), "{error}");
            sleep(Duration::from_millis(10));
        }
        let begun = connect(socket.as_raw_fd(), &SockaddrStorage::from(server));
        assert_eq!(begun, Err(Errno::EINPROGRESS));
        socket
    })
}

/// When a client has conntrack forget his flow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// When it is cut.
    Cut,
    /// While it is allowed.
    Allowed,
    /// While nobody is isolated.
    Open,
}

/// conntrack sees what a client sends before it is dropped: by a reset he has it forget the flow, and with
/// it that it was cut. What the server says next would begin a flow of its own, to which he answers.
fn is_not_turned_round(direction: &str, when: When) {
    let mut node = PolicedNode::new(&["client", "server"]);
    let (app, other, peers) = match direction {
        "Ingress" => ("server", "client", ["ingress", "from"]),
        _ => ("client", "server", ["egress", "to"]),
    };
    if when != When::Open {
        node.write(
            "allow",
            &json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "allow"}, "spec": {
                "podSelector": {"matchLabels": {"app": app}}, "policyTypes": [direction],
                peers[0]: [{peers[1]: [{"podSelector": {"matchLabels": {"app": other}}}]}]}}),
        );
        node.wait("isolation", |it| {
            // For what comes to the one, or what leaves the other; iptables has tables for each family.
            let chain = if direction == "Ingress" { ":PODWIRE-TO-" } else { ":PODWIRE-FROM-" };
            it.rules().matches(chain).count() >= if by_nftables() { 1 } else { 2 }
        });
    }
    let streams: Vec<_> = node.addresses("server").iter().map(|it| pushed(&node, *it)).collect();
    assert!(streams.iter().all(is_fed));
    // Its own kernel would tell the server.
    node.space("client").sh("nft add table inet own
         nft add chain inet own input '{ type filter hook input priority 0; }'
         nft add rule inet own input tcp sport 9000 drop");
    let tighten = |node: &PolicedNode| {
        isolate(node, app, direction);
        if when != When::Open {
            node.remove("allow");
        }
    };
    if when == When::Cut {
        tighten(&node);
        node.wait(ISOLATED, |it| it.metric("policyd_flows_cut_total") >= 2);
    }
    let again: Vec<_> = streams.into_iter().map(|it| end_and_begin_again(&node, it)).collect();
    // What was on its way.
    sleep(Duration::from_millis(100));
    let ear = Ear::open(node.space("client"), "eth0");
    if when == When::Open {
        // Of both families: then the server is who has begun the flow, for all that the kernel knows.
        node.wait("the server's next word", |it| {
            let listed = it.node.sh("conntrack -L -p tcp -f ipv4; conntrack -L -p tcp -f ipv6");
            let begun = listed.lines().filter_map(|line| line.split("sport=").nth(1));
            begun.filter(|it| it.starts_with("9000 ")).count() == 2
        });
        tighten(&node);
        node.wait(ISOLATED, |it| it.metric("policyd_flows_cut_total") >= 2);
        sleep(Duration::from_millis(100));
        let _ = ear.heard(&["push"]);
    } else if when == When::Allowed {
        sleep(Duration::from_secs(1));
        tighten(&node);
    }
    // The server says it again, after longer pauses each time.
    sleep(Duration::from_secs(8));
    assert!(ear.heard(&["push"]).is_empty());
    if when != When::Open {
        node.kill();
        remove_middle(&node);
        node.wait("what it was that kept it so", |_| !ear.heard(&["push"]).is_empty());
    }
    drop(again);
    node.clean_up();
}

#[test]
fn a_flow_to_who_may_not_be_asked_is_not_turned_round_once_it_is_cut() {
    is_not_turned_round("Ingress", When::Cut);
}

#[test]
fn a_flow_to_who_may_not_be_asked_is_not_turned_round_before_it_is_cut() {
    is_not_turned_round("Ingress", When::Allowed);
}

#[test]
fn a_flow_that_was_turned_round_to_who_may_not_be_asked_is_cut() {
    is_not_turned_round("Ingress", When::Open);
}

#[test]
fn a_flow_of_who_may_not_ask_is_not_turned_round_once_it_is_cut() {
    is_not_turned_round("Egress", When::Cut);
}

#[test]
fn a_flow_of_who_may_not_ask_is_not_turned_round_before_it_is_cut() {
    is_not_turned_round("Egress", When::Allowed);
}

#[test]
fn a_flow_that_was_turned_round_by_who_may_not_ask_is_cut() {
    is_not_turned_round("Egress", When::Open);
}
