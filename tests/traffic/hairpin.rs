//! A pod that reaches itself through the node: a service whose only endpoint is the caller.

use lab::probe::{Protocol, Server, must_not_reach_at, must_reach_at};
use serde_json::json;

use crate::network::{Guest, Network};

/// A node that translates 203.0.113.9:7000 to the pod, and masquerades what would come from the pod
/// itself. With br_netfilter the translated frame stays in the bridge, and has to leave by the port
/// that it came in at.
fn service(network: &Network, guest: &Guest, server: &Server) {
    network.node.set_sysctl("net/bridge/bridge-nf-call-iptables", "1");
    let (address, port) = (&guest.v4, server.port());
    network.node.sh(&format!(
        "iptables -t nat -A PREROUTING -d 203.0.113.9 -p tcp --dport 7000 -j DNAT --to-destination {address}:{port}
         iptables -t nat -A POSTROUTING -s {address} -d {address} -j MASQUERADE"
    ));
}

fn network(hairpin: bool) -> Network {
    Network::new(
        json!({"type": "bridge", "bridge": "br0", "isDefaultGateway": true, "hairpinMode": hairpin,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]]}}),
    )
}

#[test]
fn with_hairpin_mode_a_pod_reaches_itself_by_its_service() {
    let network = network(true);
    let guest = network.guest("one");
    let server = Server::start(&guest.pod, Protocol::Tcp, "10.1.0.2".parse().unwrap());
    service(&network, &guest, &server);
    let seen = must_reach_at(&guest.pod, &server, "203.0.113.9:7000");
    assert_eq!(seen.to_string(), "10.1.0.1", "it comes back masqueraded");
    network.leave(&guest);
}

/// That the test above can fail: the bridge does not send a frame back by default.
#[test]
fn without_hairpin_mode_it_does_not() {
    let network = network(false);
    let guest = network.guest("one");
    let server = Server::start(&guest.pod, Protocol::Tcp, "10.1.0.2".parse().unwrap());
    service(&network, &guest, &server);
    must_not_reach_at(&guest.pod, &server, "203.0.113.9:7000");
    network.leave(&guest);
}
