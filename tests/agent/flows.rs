//! Flows that policies no longer allow end; those that they allow go on.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::node::{PATIENCE, PolicedNode};

/// A connection in which only the server speaks, all the time.
fn pushed(node: &PolicedNode, address: IpAddr) -> TcpStream {
    let target = SocketAddr::new(address, 0);
    let listener = node.space("server").enter(|| TcpListener::bind(target)).unwrap();
    let target = listener.local_addr().unwrap();
    let client =
        node.space("client").enter(|| TcpStream::connect_timeout(&target, PATIENCE)).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    std::thread::spawn(move || {
        let started = Instant::now();
        // A full buffer is no end: it is what a cut flow looks like from here.
        while started.elapsed() < PATIENCE * 3 {
            match server.write(b"push") {
                Ok(_) => std::thread::sleep(Duration::from_millis(5)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    });
    client.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    client
}

/// Whether anything still comes.
fn is_fed(mut stream: &TcpStream) -> bool {
    // What was on its way already does not count.
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(500) {
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
    node.write(
        "deny",
        &json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "deny"}, "spec": {"podSelector": {"matchLabels": {"app": "server"}}}}),
    );
    node.wait("the cut", |it| it.metric("policyd_flows_cut_total") >= 2);
    assert!(!streams.iter().any(is_fed));
    node.remove("deny");
    node.wait("the healing", |_| streams.iter().all(is_fed));
    node.clean_up();
}
