//! Endpoints are chosen by the client's address, where that is asked for.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use proxyd::nftables::Scheduler;
use serde_json::json;

use crate::by_both;
use crate::client::{must_ask, must_reach, udp_as};
use crate::daemon::{Folder, wait_ready};
use crate::site::Site;

by_both! {
    a_client_comes_to_the_same_endpoint_and_many_come_to_all
    who_asks_for_it_at_a_restart_gets_it
}

const COUNT: usize = 90;

/// Addresses that the world has from now on.
fn clients(site: &Site) -> Vec<IpAddr> {
    let address = |it: usize| {
        let text =
            if site.is_ipv4 { format!("203.0.113.{it}") } else { format!("2001:db8:9::{it:x}") };
        text.parse::<IpAddr>().expect("an address")
    };
    let clients: Vec<_> = (1..=COUNT).map(address).collect();
    let (length, option) = if site.is_ipv4 { (32, "") } else { (128, "nodad") };
    let add = |it: &IpAddr| format!("ip addr add {it}/{length} dev eth0 {option}\n");
    site.world().sh(&clients.iter().map(add).collect::<String>());
    clients
}

/// Whom each of them is answered by.
fn answers(site: &Site, clients: &[IpAddr], to: SocketAddr) -> Vec<String> {
    let ask = |it: &IpAddr| must_ask(&udp_as(site.world(), *it, to));
    clients.iter().map(ask).collect()
}

/// How many are answered by each.
fn counts(answers: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for it in answers {
        *counts.entry(it.as_str()).or_default() += 1;
    }
    counts
}

fn a_client_comes_to_the_same_endpoint_and_many_come_to_all(is_ipv4: bool) {
    let mut site = Site::with(is_ipv4, |settings| settings.scheduler = Scheduler::SourceHash);
    site.pods(["a", "b", "c", "d"]);
    site.serve(&json!({"type": "NodePort"}), &site.ready(["a", "b", "c"]));
    for from in [site.world(), &site.node, site.pod("d")] {
        let first = must_reach(from, site.at("service", 80)).0;
        for _ in 0..20 {
            assert_eq!(must_reach(from, site.at("service", 80)).0, first);
        }
    }
    let clients = clients(&site);
    let to = site.at("node", 30080);
    let first = answers(&site, &clients, to);
    // Of 90, 30 each, with a deviation of 4.5: four of them.
    let all = counts(&first);
    assert!(all.len() == 3 && all.values().all(|it| (12..=48).contains(it)), "{all:?}");
    assert_eq!(answers(&site, &clients, to), first);
    // Others that come and go are none of a client's business, once there are the same again.
    site.serve(&json!({"type": "NodePort"}), &site.ready(["b", "d"]));
    let others = answers(&site, &clients, to);
    assert_eq!(counts(&others).into_keys().collect::<Vec<_>>(), ["b", "d"]);
    site.serve(&json!({"type": "NodePort"}), &site.ready(["c", "b", "a"]));
    assert_eq!(answers(&site, &clients, to), first);
}

fn who_asks_for_it_at_a_restart_gets_it(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b", "c"]);
    let folder = Folder::with(&site, &["a", "b"]);
    let mut daemon = folder.start(&site);
    wait_ready(&site, &mut daemon);
    let hashes = || site.tables().contains("jhash");
    assert!(!hashes());
    daemon.kill();
    let mut daemon = folder.start_with(&site, &["--scheduler", "source-hash"]);
    wait_ready(&site, &mut daemon);
    assert!(hashes());
    let to = site.at("service", 80);
    let first = must_reach(site.pod("c"), to).0;
    for _ in 0..20 {
        assert_eq!(must_reach(site.pod("c"), to).0, first);
    }
    daemon.kill();
    let mut daemon = folder.start(&site);
    wait_ready(&site, &mut daemon);
    assert!(!hashes());
}
