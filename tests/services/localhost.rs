//! Node ports at the node's own 127.0.0.1, which stays the node's own.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use lab::{Daemon, Space, proxyd, slowed};
use serde_json::json;

use crate::client::{Outcome, connect, must_ask, must_reach, udp};
use crate::daemon::{Folder, PATIENCE, eventually, service, slice, wait_ready};
use crate::server::Server;
use crate::site::Site;

const ROUTE_LOCALNET: &str = "net/ipv4/conf/all/route_localnet";
/// Whoever does not hear of something within this time does not.
const SILENCE: Duration = Duration::from_millis(700);

fn localhost(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A node with the pods "a" and "b", and a service with these endpoints.
fn site(endpoints: &[&str]) -> (Site, Folder) {
    let mut site = Site::new(true);
    site.pods(["a", "b"]);
    let folder = Folder::new();
    let mut service = service(&site);
    service["spec"]["ports"][1]["nodePort"] = json!(30080);
    folder.write("service.json", &service);
    folder.write("slice.json", &slice(&site, endpoints));
    (site, folder)
}

fn start(site: &Site, folder: &Folder, addresses: &str) -> Daemon {
    let mut daemon = folder.start_with(site, &["--nodeport-addresses", addresses]);
    wait_ready(site, &mut daemon);
    daemon
}

fn is_routed(site: &Site) -> bool {
    site.node.sysctl(ROUTE_LOCALNET).as_deref() == Some("1")
}

#[test]
fn the_node_reaches_node_ports_at_its_own_localhost() {
    let (site, folder) = site(&["a"]);
    let _daemon = start(&site, &folder, "localhost");
    let to = localhost(30080);
    // From there nobody could answer: it is seen as the node.
    assert_eq!(must_reach(&site.node, to), ("a".to_owned(), site.address("gateway")));
    assert_eq!(must_ask(&udp(&site.node, to)), "a");
    // Nobody has asked for the others.
    assert_eq!(connect(site.world(), site.at("node", 30080)), Outcome::Refused);
    // Another pod's is another one.
    assert_eq!(connect(site.pod("b"), to), Outcome::Refused);
    // An endpoint of the node's own network.
    let server = Server::start(&site.node, "node", true);
    folder.write("slice.json", &slice(&site, &["node"]));
    eventually("the node", || must_reach(&site.node, to).0 == "node");
    assert_eq!(must_ask(&udp(&site.node, to)), "node");
    drop(server);
    // Nodes are as near as any, where others only get to endpoints here.
    let mut near = service(&site);
    near["spec"]["externalTrafficPolicy"] = json!("Local");
    near["spec"]["type"] = json!("NodePort");
    folder.write("service.json", &near);
    folder.write("slice.json", &slice(&site, &["b"]));
    eventually("the pod", || {
        connect(&site.node, to) == Outcome::Answer("b".to_owned(), site.address("gateway"))
    });
    folder.write("slice.json", &slice(&site, &[]));
    eventually("nobody", || connect(&site.node, to) == Outcome::Refused);
}

/// Has the world send what it wants to the node's localhost, and as it, to a node that believes all that the kernel lets pass.
fn attack(site: &Site) {
    for interface in ["all", "v0"] {
        site.node.set_sysctl(&format!("net/ipv4/conf/{interface}/rp_filter"), "0");
    }
    site.world().set_sysctl("net/ipv4/conf/all/route_localnet", "1");
    site.world().sh(&format!(
        "ip addr flush dev lo; ip route flush table local type broadcast || true
         ip addr add 127.0.0.2/32 dev eth0
         ip route replace {node} dev eth0 src {world}
         ip route add 127.0.0.1/32 via {node} dev eth0 src {world}",
        node = site.address("node"),
        world = site.address("world"),
    ));
}

/// Whether what the world sends as the node's own 127.0.0.2 gets there.
fn is_believed(site: &Site) -> bool {
    let heard = site.node.enter(|| UdpSocket::bind("192.0.2.1:5353").expect("a port"));
    heard.set_read_timeout(Some(slowed(SILENCE))).expect("a time");
    let liar = site.world().enter(|| UdpSocket::bind("127.0.0.2:0").expect("a port"));
    liar.send_to(b"me", "192.0.2.1:5353").expect("a route");
    let mut room = [0; 8];
    heard.recv_from(&mut room).is_ok_and(|(_, from)| from.ip().is_loopback())
}

/// Whether the world reaches what listens at the node's 127.0.0.1 alone.
fn reaches(from: &Space, listener: &TcpListener) -> bool {
    let to = listener.local_addr().expect("an address");
    from.enter(|| std::net::TcpStream::connect_timeout(&to, slowed(SILENCE)).is_ok())
}

#[test]
fn nobody_else_reaches_the_nodes_localhost_or_is_taken_for_it() {
    let (site, folder) = site(&["a"]);
    attack(&site);
    let own = site.node.enter(|| TcpListener::bind("127.0.0.1:0").expect("a port"));
    assert!(!reaches(site.world(), &own) && !is_believed(&site));
    // That it can fail: so it would be without what guards it.
    site.node.set_sysctl(ROUTE_LOCALNET, "1");
    assert!(reaches(site.world(), &own) && is_believed(&site));
    let mut daemon = start(&site, &folder, "localhost");
    assert!(!reaches(site.world(), &own) && !is_believed(&site));
    assert_eq!(connect(site.world(), localhost(30080)), Outcome::Silence);
    assert!(reaches(&site.node, &own));
    must_reach(&site.node, localhost(30080));
    // Killed, it leaves that as it is. Asked for no more, it is closed.
    daemon.kill();
    assert!(is_routed(&site) && !reaches(site.world(), &own));
    let mut daemon = start(&site, &folder, "primary");
    assert!(!is_routed(&site) && !reaches(site.world(), &own) && !is_believed(&site));
    assert_eq!(connect(&site.node, localhost(30080)), Outcome::Refused);
    eventually("no guard", || !site.tables().contains("guard-localhost"));
    assert!(!reaches(site.world(), &own) && !is_believed(&site));
    daemon.kill();
    // And so it is by who takes away the rest.
    let mut daemon = start(&site, &folder, "primary,127.0.0.0/8");
    eventually("the parameter", || is_routed(&site));
    must_reach(&site.node, localhost(30080));
    assert_eq!(must_reach(site.world(), site.at("node", 30080)).0, "a");
    daemon.terminate(PATIENCE);
    site.node.sh(&format!("{} cleanup", proxyd().display()));
    assert!(!is_routed(&site) && !reaches(site.world(), &own) && !is_believed(&site));
    assert_eq!(site.tables(), "");
}

#[test]
fn who_takes_away_what_guards_localhost_has_it_back() {
    let (site, folder) = site(&["a"]);
    let mut daemon = start(&site, &folder, "localhost");
    eventually("the parameter", || is_routed(&site));
    site.node.sh("nft delete chain ip podwire-proxy guard-localhost");
    eventually("the guard", || site.tables().contains("guard-localhost"));
    must_reach(&site.node, localhost(30080));
    daemon.terminate(PATIENCE);
}
