//! Clients that were sent to an endpoint which goes are forgotten with it.

use std::fmt::Write;
use std::sync::Arc;
use std::thread::{self, sleep};
use std::time::Duration;

use proxyd::dataplane::{Dataplane, Written};
use proxyd::nftables::Settings;
use proxyd::plan::Plan;
use serde_json::json;

use crate::scene::{dataplane, listed, move_away, name, nft, plan, plans};

/// A service of this number that remembers its clients.
fn sticky(number: u8, endpoints: &[&str]) -> Arc<Plan> {
    let spec = json!({
        "clusterIP": format!("10.96.0.{number}"), "ports": [{"port": 80}],
        "sessionAffinity": "ClientIP",
    });
    let endpoints: Vec<_> = endpoints.iter().map(|it| (*it, "there")).collect();
    plan("s", &spec, &endpoints)
}

const A: &str = "10.244.0.1";
const B: &str = "10.244.0.2";

/// Clients of a pool, each with the time after which it is forgotten by itself.
fn remember(pool: u32, endpoint: &str, net: u8, count: u32, lasting: impl Fn(u32) -> Duration) {
    let mut text = String::from("add element ip podwire-proxy affinity {");
    for number in 0..count {
        let (high, low, milliseconds) = (number / 250, number % 250, lasting(number).as_millis());
        let client = format!("10.{net}.{high}.{low} . 7200:{pool:x} timeout {milliseconds}ms");
        write!(text, "{client} : {endpoint} . 8080,").unwrap();
    }
    text.push('}');
    assert!(nft(&["-f", "-"], &text).status.success());
}

fn long(_: u32) -> Duration {
    Duration::from_secs(600)
}

/// How many clients are remembered with an endpoint.
fn remembered(endpoint: &str) -> usize {
    let listed = listed(true);
    let (_, map) = listed.split_once("map affinity {").unwrap();
    let (map, _) = map.split_once("\n\t}").unwrap();
    map.matches(&format!(": {endpoint} . 8080")).count()
}

fn serving(number: u8, endpoints: &[&str]) -> Dataplane {
    let mut dataplane = dataplane(&Settings::default());
    dataplane.adopt(&plans([("s", sticky(number, endpoints))])).unwrap();
    dataplane
}

#[test]
fn clients_go_with_their_endpoint_though_others_end_by_themselves_meanwhile() {
    move_away();
    let mut dataplane = serving(1, &[A, B]);
    remember(0, A, 50, 2000, long);
    remember(0, B, 51, 2000, long);
    // One in each millisecond.
    remember(0, A, 60, 3000, |it| Duration::from_millis(u64::from(it) + 500));
    let written = dataplane.apply(&[(name("s"), Some(sticky(1, &[B])))].into()).unwrap();
    // One of the chain for a single endpoint, and one of all else.
    assert_eq!(written.transactions, 2, "{written:?}");
    // With the endpoint itself, all that will certainly be there.
    assert!(written.deleted >= 2000, "{written:?}");
    sleep(Duration::from_millis(1500));
    assert_eq!([A, B].map(remembered), [0, 2000]);
}

#[test]
fn very_many_hold_up_nothing() {
    move_away();
    let mut dataplane = serving(1, &[A, B]);
    remember(0, A, 50, 14_000, long);
    remember(0, B, 51, 1000, long);
    let written = dataplane.apply(&[(name("s"), Some(sticky(1, &[B])))].into()).unwrap();
    assert_eq!(written.transactions, 2, "{written:?}");
    assert!((4000..9000).contains(&written.deleted), "{written:?}");
    assert_eq!(remembered(B), 1000);
}

/// As where they end by themselves while others change rules.
#[test]
fn clients_that_are_gone_before_they_are_forgotten_are_no_failure() {
    move_away();
    let mut dataplane = serving(1, &[A, B]);
    for round in 0..30 {
        remember(0, A, 50, 2000, long);
        let emptied = thread::spawn(move || {
            sleep(Duration::from_millis(round));
            nft(&["flush map ip podwire-proxy affinity"], "")
        });
        for endpoints in [&[B][..], &[A, B]] {
            dataplane.apply(&[(name("s"), Some(sticky(1, endpoints)))].into()).unwrap();
        }
        assert!(emptied.join().unwrap().status.success());
    }
}

/// They were remembered before it was killed: the rules forget them.
#[test]
fn a_start_leaves_clients_as_they_are() {
    move_away();
    drop(serving(1, &[A, B]));
    remember(0, "10.244.0.9", 50, 100, long);
    remember(0, A, 51, 100, long);
    let mut restarted = dataplane(&Settings::default());
    let written = restarted.adopt(&plans([("s", sticky(1, &[A, B]))])).unwrap();
    assert_eq!(written, Written::default());
    assert_eq!(["10.244.0.9", A].map(remembered), [100, 100]);
}
