//! SCTP: what begins an association, as the kernel need not speak it.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use lab::sockets::raw;
use lab::{Space, slowed};
use nix::sys::socket::SockProtocol;
use serde_json::{Value, json};

use crate::by_both;
use crate::server::PORT;
use crate::site::Site;

by_both! {
    associations_are_led_to_endpoints
    an_association_follows_the_service_to_another_endpoint
}

/// Whoever is to be reached is within this time.
const PATIENCE: Duration = Duration::from_secs(15);
const SILENCE: Duration = Duration::from_millis(500);
/// The port that clients have.
const OWN_PORT: u16 = 5000;

fn spec(site: &Site) -> Value {
    let ports = json!([{"name": "s", "port": 80, "nodePort": 30080, "protocol": "SCTP"}]);
    json!({"type": "NodePort", "clusterIP": site.address("service"), "ports": ports})
}

/// The checksum of RFC 9260, appendix A.
fn checksum(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| sum >> 1 ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 };
    !bytes.iter().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}

/// A packet with an INIT.
fn init(to_port: u16) -> Vec<u8> {
    let ports = [OWN_PORT.to_be_bytes(), to_port.to_be_bytes()].concat();
    let chunk = [1, 0, 0, 20, 0, 0, 0x12, 0x34, 0, 0, 0xff, 0xff, 0, 10, 0, 10, 0, 0, 0, 1];
    let packet = [&ports[..], &[0; 8], &chunk].concat();
    let sum = checksum(&packet).to_le_bytes();
    [&ports[..], &[0; 4], &sum, &chunk].concat()
}

/// A socket that hears all of SCTP, and speaks it.
fn socket(space: &Space, is_ipv4: bool) -> UdpSocket {
    let any: IpAddr = if is_ipv4 { "0.0.0.0" } else { "::" }.parse().expect("an address");
    space.enter(|| raw(any, SockProtocol::Sctp))
}

/// Begins an association.
fn begin(socket: &UdpSocket, to: SocketAddr) {
    // Of what the node itself sends and drops the sender learns at once.
    _ = socket.send_to(&init(to.port()), SocketAddr::new(to.ip(), 0));
}

/// From where the next INIT comes to the port of endpoints, and whether its checksum is right; `None`: none comes.
fn heard(socket: &UdpSocket) -> Option<(IpAddr, bool)> {
    let mut room = [0; 256];
    while let Ok((length, peer)) = socket.recv_from(&mut room) {
        let packet = &room[..length];
        // IPv4 gives the header, too.
        let packet =
            if peer.is_ipv4() { &packet[usize::from(packet[0] & 15) * 4..] } else { packet };
        let is_init = packet.get(12) == Some(&1);
        if is_init && packet[2..4] == PORT.to_be_bytes() {
            let sum = u32::from_le_bytes([packet[8], packet[9], packet[10], packet[11]]);
            let without = [&packet[..8], &[0; 4], &packet[12..]].concat();
            return Some((peer.ip(), checksum(&without) == sum));
        }
    }
    None
}

/// Begins it again and again, until it comes to this one: as whom he sees the client.
fn must_come(client: &UdpSocket, to: SocketAddr, server: &UdpSocket) -> IpAddr {
    let started = Instant::now();
    while heard(server).is_some() {}
    loop {
        begin(client, to);
        sleep(Duration::from_millis(20));
        if let Some((from, is_right)) = heard(server) {
            assert!(is_right, "a wrong checksum");
            return from;
        }
        assert!(started.elapsed() < slowed(PATIENCE), "nothing comes");
    }
}

fn associations_are_led_to_endpoints(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "c"]);
    let spec = spec(&site);
    site.serve_as("s", &spec, &site.ready(["a"]));
    let server = socket(site.pod("a"), is_ipv4);
    let pod = socket(site.pod("c"), is_ipv4);
    // A pod is seen as it is; who comes to a node port is hidden behind the node.
    assert_eq!(must_come(&pod, site.at("service", 80), &server), site.address("c"));
    let world = socket(site.world(), is_ipv4);
    assert_eq!(must_come(&world, site.at("node", 30080), &server), site.address("gateway"));
    let own = socket(&site.node, is_ipv4);
    must_come(&own, site.at("service", 80), &server);
}

fn an_association_follows_the_service_to_another_endpoint(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b", "c"]);
    let spec = spec(&site);
    site.serve_as("s", &spec, &site.ready(["a"]));
    let servers = ["a", "b"].map(|it| socket(site.pod(it), is_ipv4));
    let client = socket(site.pod("c"), is_ipv4);
    must_come(&client, site.at("service", 80), &servers[0]);
    assert_eq!(site.serve_as("s", &spec, &site.ready(["a", "b"])), 0);
    assert_eq!(site.serve_as("s", &spec, &site.ready(["b"])), 1);
    must_come(&client, site.at("service", 80), &servers[1]);
    site.remove("s");
    for server in &servers {
        while heard(server).is_some() {}
    }
    begin(&client, site.at("service", 80));
    sleep(SILENCE);
    assert!(servers.iter().all(|it| heard(it).is_none()));
}
