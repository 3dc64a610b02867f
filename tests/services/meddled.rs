//! Others change what is proxyd's, or keep it from changing it.

use std::io::{Write, pipe};
use std::thread::sleep;
use std::time::Duration;

use lab::{Daemon, program};

use crate::client::{Outcome, connect, must_reach};
use crate::daemon::{
    Folder, PATIENCE, asked, eventually, metric, served, service, slice, wait_ready,
};
use crate::many::{MANY, held, many};
use crate::site::Site;
use crate::steady::Steady;

#[test]
fn whatever_is_taken_away_or_added_is_put_right() {
    let (site, folder, _daemon) = served(true, &["a", "b"]);
    folder.write("many.json", &many(&site, 0));
    eventually("all of them", || held(&site) == MANY as usize);
    // What is written in one piece is numbered in the order of names.
    site.node.sh("nft flush ruleset");
    eventually("all of them", || held(&site) == MANY as usize);
    must_reach(site.pod("b"), site.at("service", 80));
    let tables = site.content();
    let table = "ip podwire-proxy";
    let listed = site.node.sh("nft list table ip podwire-proxy");
    let (_, chains) = listed.split_once("map chains {").expect("it is there");
    let (_, kind) = chains.split_once("elements = { ").expect("there are some");
    let (kind, _) = kind.split_once(" : ").expect("it leads somewhere");
    for damage in [
        "flush ruleset".to_owned(),
        format!("delete table {table}"),
        format!("add table {table} {{ flags dormant; }}"),
        format!("flush chain {table} prerouting"),
        format!("insert rule {table} look-up drop"),
        format!("delete element {table} services {{ 10.96.0.1 . tcp . 80 }}"),
        format!("flush map {table} endpoints"),
        format!("flush map {table} chains"),
        format!("add element {table} cluster-ips {{ 192.0.2.77 }}"),
        format!("add element {table} chains {{ 1:1 : goto rejecting }}"),
        format!("add element {table} sticky {{ 7200:1 : goto rejecting }}"),
        format!("add element {table} services {{ 10.96.0.1 . icmp . 80 : 7080:1 }}"),
        format!("add element {table} hairpin {{ 10.1.0.97 . 10.1.0.98 }}"),
        format!(
            "delete element {table} chains {{ {kind} }}; add element {table} chains {{ {kind} : drop }}"
        ),
        format!("add set {table} mine {{ type ipv4_addr; }}"),
        format!(
            "add map {table} mine {{ type mark : verdict; elements = {{ 1 : goto rejecting }}; }}"
        ),
        format!("add chain {table} mine; add rule {table} mine jump rejecting"),
        // What is part of a rule can neither be changed nor go by itself.
        format!(
            "add chain {table} mine; add rule {table} mine ip saddr 192.0.2.1 jump {{ accept; }}"
        ),
        format!(
            "insert rule {table} look-up ip saddr {{ 192.0.2.1, 192.0.2.2 }} goto {{ accept; }}"
        ),
    ] {
        site.node.sh(&format!("nft '{damage}'"));
        eventually(&damage, || {
            let outcome = connect(site.pod("b"), site.at("service", 80));
            matches!(outcome, Outcome::Answer(..)) && site.content() == tables
        });
        assert_eq!(held(&site), MANY as usize);
    }
}

/// A chain that is called where none of ours is has the whole table made anew: in one piece.
#[test]
fn a_table_that_is_made_anew_serves_all_the_time() {
    let (site, folder, _daemon) = served(true, &["a"]);
    folder.write("many.json", &many(&site, 0));
    eventually("all of them", || held(&site) == MANY as usize);
    let steady = Steady::start(site.pod("c"), site.at("service", 80));
    for _ in 0..5 {
        site.node
            .sh("nft add chain ip podwire-proxy mine '{ type filter hook input priority 0; }'");
        eventually("the chain's end", || !site.tables().contains("chain mine"));
    }
    assert_eq!(held(&site), MANY as usize);
    steady.end();
}

#[test]
fn what_is_there_of_the_same_name_gives_way() {
    let mut site = Site::new(true);
    site.pods(["a", "b"]);
    site.node.sh(
        "nft flush ruleset; nft -f - <<'END'
table ip podwire-proxy {
    map services { type ipv4_addr : verdict; elements = { 10.96.0.1 : drop }; }
    chain prerouting { type filter hook prerouting priority -300; policy accept; ip daddr vmap @services; }
}
END",
    );
    assert_eq!(connect(site.pod("b"), site.at("service", 80)), Outcome::Silence);
    let folder = Folder::with(&site, &["a"]);
    let mut daemon = folder.start(&site);
    wait_ready(&site, &mut daemon);
    assert_eq!(must_reach(site.pod("b"), site.at("service", 80)).0, "a");
}

/// A program may have a table that nobody else may change, and that goes with it.
#[test]
fn what_the_kernel_refuses_is_told_and_tried_again() {
    let mut site = Site::new(true);
    site.pods(["a", "b"]);
    site.node.sh("nft flush ruleset");
    let folder = Folder::new();
    let (reader, mut writer) = pipe().expect("a pipe");
    writeln!(writer, "add table ip podwire-proxy {{ flags owner; }}").expect("room in the pipe");
    let mut command = program("nft");
    command.arg("-i").stdin(reader);
    let mut owner = Daemon::start("nft", command, &site.node, folder.home.path().join("nft.log"));
    owner.wait_until(PATIENCE, || site.tables().contains("flags owner"));
    folder.write("service.json", &service(&site));
    folder.write("slice.json", &slice(&site, &["a"]));
    let mut daemon = folder.start(&site);
    let refusal = "Operation not permitted";
    daemon.wait_until(PATIENCE, || asked(&site, "/readyz").is_some_and(|it| it.contains(refusal)));
    assert!(asked(&site, "/livez").is_some_and(|it| it.starts_with("HTTP/1.1 200 ")));
    owner.kill();
    wait_ready(&site, &mut daemon);
    assert_eq!(must_reach(site.pod("b"), site.at("service", 80)).0, "a");
}

/// What others write all the time, in tables of their own, is no reason to compare all with the kernel again and again.
#[test]
fn who_writes_elsewhere_all_the_time_keeps_it_from_nothing() {
    let mut site = Site::new(true);
    site.pods(["a", "b"]);
    let mut writing = program("sh");
    let without_end = "while nft 'add table ip elsewhere; delete table ip elsewhere'; do :; done";
    writing.args(["-c", without_end]);
    let folder = Folder::new();
    let log = folder.home.path().join("writing.log");
    let mut writer = Daemon::start("sh", writing, &site.node, log);
    folder.write("service.json", &service(&site));
    folder.write("slice.json", &slice(&site, &["a"]));
    // Comparing them takes long enough that others write meanwhile.
    folder.write("many.json", &many(&site, 0));
    let mut daemon = folder.start(&site);
    wait_ready(&site, &mut daemon);
    let compared = || metric(&site, "kubeproxy_sync_full_proxy_rules_duration_seconds_count");
    // Two pauses between comparisons, and half of one.
    let stays = Duration::from_millis(2500);
    let settles = || {
        let mut counts = vec![compared()];
        while !matches!(counts.as_slice(), [.., before, last] if before == last) {
            assert!(counts.len() < 12, "there are ever more of them: {counts:?}");
            sleep(stays);
            counts.push(compared());
        }
    };
    settles();
    site.node.sh("nft add element ip podwire-proxy cluster-ips '{ 192.0.2.77 }'");
    eventually("its end", || !site.tables().contains("192.0.2.77"));
    settles();
    must_reach(site.pod("b"), site.at("service", 80));
    writer.kill();
}
