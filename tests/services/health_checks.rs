//! Load balancers ask at a port of the node whether it has endpoints of a service.

use std::net::{SocketAddr, TcpStream};

use lab::{Daemon, program, proxyd, without_ipv6};
use serde_json::{Value, json};

use crate::by_both;
use crate::daemon::{Folder, HEALTH, ask_at, eventually, service, slice, wait_ready};
use crate::objects::HERE;
use crate::site::Site;

by_both! {
    a_load_balancer_learns_which_nodes_have_endpoints
    a_load_balancer_is_answered_where_there_are_node_ports
}

/// The port.
const PORT: u16 = 32_000;

/// The service with this name and port for health checks.
fn checked(site: &Site, name: &str, address: &str, port: u16) -> Value {
    let mut object = service(site);
    object["metadata"]["name"] = json!(name);
    object["spec"] = json!({
        "type": "LoadBalancer", "clusterIP": site.address(address), "externalTrafficPolicy": "Local",
        "healthCheckNodePort": port, "ports": [{"name": "t", "port": 80}],
    });
    object
}

/// What a load balancer is answered: the code, the weight and the document.
fn check(site: &Site, port: u16) -> Option<(u16, usize, Value)> {
    check_at(site, "node", port)
}

fn check_at(site: &Site, of: &str, port: u16) -> Option<(u16, usize, Value)> {
    let text = ask_at(site.world(), SocketAddr::new(site.address(of), port), "/")?;
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
    let after = |what: &str| {
        let (_, rest) = head.split_once(what).unwrap_or_else(|| panic!("no {what} in {head}"));
        rest.split([' ', '\r']).next().expect("a word").to_owned()
    };
    let code = after("HTTP/1.1 ").parse().expect("a code");
    let weight = after("x-load-balancing-endpoint-weight: ").parse().expect("a number");
    Some((code, weight, serde_json::from_str(body).expect("a document")))
}

fn answer(code: u16, name: &str, count: usize) -> Option<(u16, usize, Value)> {
    let document = json!({
        "service": {"namespace": "default", "name": name}, "localEndpoints": count, "serviceProxyHealthy": true,
    });
    Some((code, count, document))
}

fn a_load_balancer_learns_which_nodes_have_endpoints(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b"]);
    let folder = Folder::new();
    folder.write("service.json", &checked(&site, "s", "service", PORT));
    folder.write("slice.json", &slice(&site, &["a", "b"]));
    let mut daemon = folder.start(&site);
    wait_ready(&site, &mut daemon);
    assert_eq!(check(&site, PORT), answer(200, "s", 2));
    // Endpoints of other nodes, and those that leave, do not count.
    let mut other = slice(&site, &["a", "b"]);
    other["endpoints"][0]["nodeName"] = json!("elsewhere");
    other["endpoints"][1]["conditions"] =
        json!({"ready": false, "serving": true, "terminating": true});
    folder.write("slice.json", &other);
    eventually("none", || check(&site, PORT) == answer(503, "s", 0));
    folder.write("slice.json", &slice(&site, &["b"]));
    eventually("one", || check(&site, PORT) == answer(200, "s", 1));
    // Another one wants the same port: it gets it once the first has gone.
    folder.write("other.json", &checked(&site, "other", "other", PORT));
    folder.write("third.json", &checked(&site, "third", "nobody", PORT + 1));
    eventually("the third", || check(&site, PORT + 1) == answer(503, "third", 0));
    assert_eq!(check(&site, PORT), answer(200, "s", 1));
    std::fs::remove_file(folder.manifests().join("service.json")).expect("a file");
    eventually("the other", || check(&site, PORT) == answer(503, "other", 0));
    // A port that somebody has is taken over when he goes.
    let taken = site.node.enter(|| std::net::TcpListener::bind(("::", PORT + 2)).expect("a port"));
    folder.write("third.json", &checked(&site, "third", "nobody", PORT + 2));
    eventually("no port", || check(&site, PORT + 1).is_none());
    drop(taken);
    eventually("the port", || check(&site, PORT + 2) == answer(503, "third", 0));
    std::fs::remove_file(folder.manifests().join("third.json")).expect("a file");
    eventually("no port", || check(&site, PORT + 2).is_none());
}

fn a_load_balancer_is_answered_where_there_are_node_ports(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a"]);
    let folder = Folder::new();
    folder.write("service.json", &checked(&site, "s", "service", PORT));
    folder.write("slice.json", &slice(&site, &["a"]));
    let (named, length) = (site.address("named"), if is_ipv4 { 32 } else { 128 });
    let add = format!("ip addr add {named}/{length} dev v0 {}", if is_ipv4 { "" } else { "nodad" });
    site.node.sh(&add);
    let mut daemon = folder.start(&site);
    wait_ready(&site, &mut daemon);
    assert_eq!(check(&site, PORT), answer(200, "s", 1));
    assert_eq!(check_at(&site, "named", PORT), None);
    daemon.kill();
    // One that comes later is one of the range, too.
    site.node.sh(&format!("ip addr del {named}/{length} dev v0"));
    let range = format!("{named}/{length}");
    let mut daemon = folder.start_with(&site, &["--nodeport-addresses", &range]);
    wait_ready(&site, &mut daemon);
    assert_eq!(check(&site, PORT), None);
    site.node.sh(&add);
    eventually("the range", || check_at(&site, "named", PORT) == answer(200, "s", 1));
    assert_eq!(check(&site, PORT), None);
    daemon.kill();
    let mut daemon = folder.start_with(&site, &["--nodeport-addresses", "all"]);
    wait_ready(&site, &mut daemon);
    for of in ["node", "named"] {
        assert_eq!(check_at(&site, of, PORT), answer(200, "s", 1), "{of}");
    }
}

/// Any pod can connect to the node, as often as it likes.
#[test]
fn whoever_connects_and_says_nothing_keeps_nobody_from_an_answer() {
    let mut site = Site::new(true);
    site.pods(["a", "b"]);
    let folder = Folder::new();
    folder.write("service.json", &checked(&site, "s", "service", PORT));
    folder.write("slice.json", &slice(&site, &["a"]));
    let mut command = program(proxyd());
    command.args(["--node-name", HERE, "--listen=10256"]).args(folder.arguments(&site));
    let log = folder.home.path().join("proxyd.log");
    let mut daemon = Daemon::start("proxyd", command, &site.node, log);
    wait_ready(&site, &mut daemon);
    let healthz = SocketAddr::new(site.address("node"), 10256);
    let silent: Vec<_> = [healthz, SocketAddr::new(site.address("node"), PORT)]
        .into_iter()
        .flat_map(|at| (0..300).map(move |_| at))
        .map(|at| site.pod("b").enter(|| TcpStream::connect(at)).expect("it is taken"))
        .collect();
    let told = ask_at(site.world(), healthz, "/healthz").expect("it answers");
    assert!(told.starts_with("HTTP/1.1 200 "), "{told}");
    assert_eq!(check(&site, PORT), answer(200, "s", 1));
    assert_eq!(silent.len(), 600);
}

#[test]
fn where_there_is_no_ipv6_all_addresses_are_those_of_ipv4() {
    let mut site = Site::new(true);
    site.pods(["a"]);
    site.node.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
    let folder = Folder::new();
    folder.write("service.json", &checked(&site, "s", "service", PORT));
    folder.write("slice.json", &slice(&site, &["a"]));
    let start = |has_ipv6: bool| {
        let mut command = program(proxyd());
        command.args(["--node-name", HERE, "--nodeport-addresses=all"]);
        command.args(folder.arguments(&site));
        if !has_ipv6 {
            without_ipv6(&mut command);
        }
        let log = folder.home.path().join("proxyd.log");
        Daemon::start("proxyd", command, &site.node, log)
    };
    // The kernel has it and it is off; and it has none.
    for has_ipv6 in [true, false] {
        let mut daemon = start(has_ipv6);
        wait_ready(&site, &mut daemon);
        let healthz = SocketAddr::new(site.address("node"), 10256);
        let told = ask_at(site.world(), healthz, "/healthz").expect("it answers");
        assert!(told.starts_with("HTTP/1.1 200 "), "{told}");
        eventually("an answer", || check(&site, PORT) == answer(200, "s", 1));
        let has = |family: &str| {
            let listening = format!("ss -Hltn --{family} sport = {PORT}");
            !site.node.sh(&listening).is_empty()
        };
        assert_eq!((has("ipv6"), has("ipv4")), (has_ipv6, !has_ipv6));
    }
}

#[test]
fn there_may_be_as_many_ports_as_whoever_starts_it_allows() {
    let site = Site::new(true);
    let folder = Folder::new();
    let mut shell = program("sh");
    shell.args(["-c", "ulimit -Sn 64 && ulimit -Hn 5000 && exec \"$0\" \"$@\""]).arg(proxyd());
    shell.arg("--manifests").arg(folder.manifests()).args([
        "--node-name",
        HERE,
        "--listen",
        HEALTH,
    ]);
    let log = folder.home.path().join("proxyd.log");
    let mut daemon = Daemon::start("proxyd", shell, &site.node, log);
    wait_ready(&site, &mut daemon);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.id())).expect("limits");
    let open_files = limits.lines().find(|it| it.starts_with("Max open files")).expect("a limit");
    let numbers: Vec<_> = open_files.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers, ["5000", "5000"]);
}
