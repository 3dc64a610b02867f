//! What `/metrics` shows.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lab::Space;
use serde_json::json;

use crate::by_both;
use crate::client::{Outcome, connect, must_ask, must_reach, udp};
use crate::daemon::{
    Folder, HEALTH, asked, eventually, metric, served, service, shown, slice, wait_ready,
};
use crate::objects::THERE;
use crate::server::PORT;
use crate::site::Site;

by_both! {
    connections_are_counted_by_services_ports
}

/// How many connections there were to a port of the service, or to that which is told instead.
fn connections(site: &Site, port: &str, protocol: &str) -> Option<f64> {
    let labels =
        format!("{{namespace=\"default\",service=\"s\",port=\"{port}\",protocol=\"{protocol}\"}}");
    shown(site, &format!("podwire_proxy_service_connections_total{labels}"))
}

fn reach_times(from: &Space, to: SocketAddr, times: usize) {
    (0..times).for_each(|_| _ = must_reach(from, to));
}

/// How many connections by TCP the kernel has counted, by what nft lists.
fn by_nft(site: &Site) -> f64 {
    let tables = site.tables();
    let lines = tables.lines().filter(|it| it.contains(" . tcp . ") && it.contains(" packets "));
    let count = |line: &str| line.split(" packets ").nth(1)?.split(' ').next()?.parse().ok();
    lines.map(|it| count(it).unwrap_or_else(|| panic!("{it}"))).map(|it: u32| f64::from(it)).sum()
}

fn connections_are_counted_by_services_ports(is_ipv4: bool) {
    let (site, folder, mut daemon) = served(is_ipv4, &["a"]);
    let (inside, node_port) = (site.at("service", 80), site.at("node", 30080));
    let is = |protocol: &str, wanted: Option<f64>| {
        let mut told = None;
        eventually(&format!("{wanted:?} by {protocol}"), || {
            told = connections(&site, "80", protocol);
            told == wanted
        });
    };
    // The kernel counts what is led on, and no more.
    assert_eq!(connections(&site, "80", "TCP"), None);
    reach_times(site.pod("b"), inside, 5);
    reach_times(site.world(), node_port, 5);
    reach_times(&site.node, inside, 1);
    assert_eq!(connect(site.pod("b"), site.at("service", 81)), Outcome::Refused);
    let counted = by_nft(&site);
    assert!(counted >= 11.0, "{counted}");
    is("TCP", Some(counted));
    assert_eq!(connections(&site, "80", "UDP"), None);
    assert_eq!(must_ask(&udp(site.pod("b"), inside)), "a");
    is("UDP", Some(1.0));
    // The elements go and come again, and count from 0.
    folder.write("slice.json", &slice(&site, &[]));
    eventually("nobody", || connect(site.pod("b"), inside) == Outcome::Refused);
    eventually("no elements", || !site.tables().contains(" packets "));
    let before = connections(&site, "80", "TCP").expect("it is there");
    assert!(before >= counted, "{before}");
    folder.write("slice.json", &slice(&site, &["b"]));
    reach_times(site.pod("a"), inside, 1);
    reach_times(site.world(), node_port, 1);
    is("TCP", Some(before + by_nft(&site)));
    // Who starts anew goes on with what the kernel has.
    daemon.kill();
    let mut daemon = folder.start(&site);
    wait_ready(&site, &mut daemon);
    is("TCP", Some(by_nft(&site)));
    assert_eq!(metric(&site, "podwire_proxy_other_service_connections_total"), 0.0);
    fs::remove_file(folder.manifests().join("service.json")).expect("a file");
    is("TCP", None);
    let address = format!("{} . ", site.address("service"));
    eventually("no service", || !site.tables().contains(&address));
    daemon.kill();
    folder.write("service.json", &service(&site));
    let mut daemon = folder.start_with(&site, &["--service-counters", "1"]);
    wait_ready(&site, &mut daemon);
    reach_times(site.pod("a"), inside, 2);
    is("TCP", Some(by_nft(&site)));
    must_ask(&udp(site.pod("b"), inside));
    eventually("the others", || {
        metric(&site, "podwire_proxy_other_service_connections_total") == 1.0
    });
    assert_eq!(connections(&site, "80", "UDP"), None);
}

#[test]
fn what_kube_proxy_tells_is_told_by_the_same_names() {
    let mut site = Site::new(true);
    site.pods(["a", "b"]);
    let folder = Folder::new();
    let mut object = service(&site);
    object["spec"]["internalTrafficPolicy"] = json!("Local");
    folder.write("service.json", &object);
    let mut endpoints = slice(&site, &["a"]);
    // What happened before it started says nothing of it.
    endpoints["metadata"]["annotations"] =
        json!({"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-02T03:04:05.678Z"});
    folder.write("slice.json", &endpoints);
    let mut daemon = folder.start(&site);
    wait_ready(&site, &mut daemon);
    let shown = |name: &str| metric(&site, &format!("kubeproxy_{name}"));
    let local = |policy: &str| {
        shown(&format!("sync_proxy_rules_no_local_endpoints_total{{traffic_policy=\"{policy}\"}}"))
    };
    assert_eq!(shown("network_programming_duration_seconds_count"), 0.0);
    assert_eq!((local("internal"), local("external")), (0.0, 0.0));
    assert_eq!(shown("sync_full_proxy_rules_duration_seconds_count"), 1.0);
    assert_eq!(shown("sync_partial_proxy_rules_duration_seconds_count"), 0.0);
    assert_eq!(shown("sync_proxy_rules_service_changes_total"), 1.0);
    assert_eq!(shown("sync_proxy_rules_endpoint_changes_total"), 1.0);
    // Both ports have endpoints elsewhere alone.
    let now = SystemTime::now();
    let happened = site.node.sh("date -u -d '1 second' +%Y-%m-%dT%H:%M:%S.%NZ");
    endpoints["metadata"]["annotations"] =
        json!({"endpoints.kubernetes.io/last-change-trigger-time": happened.trim()});
    endpoints["endpoints"][0]["nodeName"] = json!(THERE);
    folder.write("slice.json", &endpoints);
    eventually("it is dropped", || local("internal") == 2.0);
    assert_eq!(shown("network_programming_duration_seconds_count"), 1.0);
    assert!(shown("network_programming_duration_seconds_sum") < 60.0);
    assert_eq!(shown("sync_proxy_rules_endpoint_changes_total"), 2.0);
    for pending in ["service", "endpoint"] {
        assert_eq!(shown(&format!("sync_proxy_rules_{pending}_changes_pending")), 0.0);
    }
    assert!(shown("sync_partial_proxy_rules_duration_seconds_count") >= 1.0);
    let all = shown("sync_full_proxy_rules_duration_seconds_count")
        + shown("sync_partial_proxy_rules_duration_seconds_count");
    assert_eq!(shown("sync_proxy_rules_duration_seconds_count"), all);
    assert!(shown("conntrack_reconciler_sync_duration_seconds_count") >= 2.0);
    let since = now.duration_since(UNIX_EPOCH).expect("it is later").as_secs_f64();
    for time in ["last", "last_queued"] {
        let told = shown(&format!("sync_proxy_rules_{time}_timestamp_seconds"));
        assert!((since..since + 600.0).contains(&told), "{time}: {told} {since}");
    }
    asked(&site, "/healthz").expect("it answers");
    assert_eq!(shown("proxy_healthz_total{code=\"200\"}"), 1.0);
    asked(&site, "/livez").expect("it answers");
    assert_eq!(shown("proxy_livez_total{code=\"200\"}"), 1.0);
    assert_eq!(shown("sync_proxy_rules_nftables_sync_failures_total"), 0.0);
    // What it does not tell is by a name of ours.
    assert!(metric(&site, "podwire_proxy_event_to_kernel_seconds_count") >= 2.0);
    assert_eq!(metric(&site, "podwire_proxy_services"), 1.0);
}

/// What the kernel tells of a process: how many threads it has, or KiB.
fn of_process(id: u32, name: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
    let line = status.lines().find_map(|it| it.strip_prefix(name)?.strip_prefix(':'));
    let value = line.and_then(|it| it.trim().trim_end_matches(" kB").parse().ok());
    value.unwrap_or_else(|| panic!("no {name}: {status}"))
}

/// Who asks and goes away frees its place at once, and the text is written nevertheless.
#[test]
fn texts_that_nobody_waits_for_are_not_written_beside_each_other() {
    const PORTS: u16 = 2000;
    let (site, folder, daemon) = served(true, &["a"]);
    let named =
        |port: u16, to: u16| json!({"name": format!("p{port}"), "port": to, "protocol": "UDP"});
    let mut object = service(&site);
    object["spec"]["ports"] = (1..=PORTS).map(|port| named(port, port)).collect();
    let mut endpoints = slice(&site, &["a"]);
    endpoints["ports"] = (1..=PORTS).map(|port| named(port, PORT)).collect();
    folder.write("slice.json", &endpoints);
    folder.write("service.json", &object);
    let last = format!("{} . udp . {PORTS} ", site.address("service"));
    eventually("all ports", || site.tables().contains(&last));
    site.pod("b").enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port");
        for port in 1..=PORTS {
            socket.send_to(b"x", site.at("service", port)).expect("a route");
        }
    });
    let port = PORTS.to_string();
    eventually("a long text", || connections(&site, &port, "UDP") == Some(1.0));
    let before = of_process(daemon.id(), "VmHWM");
    let most = site.node.enter(|| {
        let ask = |number: usize| {
            let mut stream = TcpStream::connect(HEALTH).expect("it listens");
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("it reads");
            // It has read that when the next one comes.
            sleep(Duration::from_micros(500));
            if number.is_multiple_of(50) { of_process(daemon.id(), "Threads") } else { 0 }
        };
        (0..2000).map(ask).max().unwrap_or_default()
    });
    assert!(most < 32, "{most} threads");
    // The kernel counts by processor, and tells somewhat less or more than there was.
    let more = of_process(daemon.id(), "VmHWM").saturating_sub(before);
    assert!(more < 32 << 10, "{more} KiB");
    assert_eq!(connections(&site, &port, "UDP"), Some(1.0));
}
