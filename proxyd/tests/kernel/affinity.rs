//! Clients that were sent to endpoints which are no more are forgotten.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use proxyd::dataplane::{Dataplane, Written};
use proxyd::nftables::Settings;
use proxyd::plan::Plan;
use serde_json::json;

use crate::scene::{dataplane, forgotten, listed, move_away, name, nft, plan, plans};

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

fn number(service: u8) -> u32 {
    let (listed, place) = (listed(true), format!("10.96.0.{service} . tcp . 80 "));
    let pools = listed.split(&place).filter_map(|it| it.split_once(':')?.1.strip_prefix(" 7200:"));
    let digits = pools.last().unwrap().split([' ', ',', '\n']).next().unwrap();
    u32::from_str_radix(digits, 16).unwrap()
}

fn serving(number: u8, endpoints: &[&str]) -> Dataplane {
    let mut dataplane = dataplane(&Settings::default());
    dataplane.adopt(&plans([("s", sticky(number, endpoints))])).unwrap();
    forgotten(&mut dataplane);
    dataplane
}

#[test]
fn clients_go_with_their_endpoint_though_others_end_by_themselves_meanwhile() {
    move_away();
    let mut dataplane = serving(1, &[A, B]);
    remember(0, A, 50, 2000, long);
    remember(0, B, 51, 2000, long);
    // One in each millisecond.
    remember(0, A, 60, 3000, |it| Duration::from_millis(u64::from(it) + 1000));
    let written = dataplane.apply(&[(name("s"), Some(sticky(1, &[B])))].into()).unwrap();
    assert_eq!(written.transactions, 1, "{written:?}");
    // With the endpoint itself, all that will certainly be there.
    assert!(written.deleted >= 2000, "{written:?}");
    forgotten(&mut dataplane);
    assert_eq!([A, B].map(remembered), [0, 2000]);
}

#[test]
fn of_very_many_some_are_forgotten_at_a_time_and_what_changes_does_not_wait() {
    move_away();
    let mut dataplane = serving(1, &[A, B]);
    remember(0, A, 50, 14_000, long);
    remember(0, B, 51, 1000, long);
    let written = dataplane.apply(&[(name("s"), Some(sticky(1, &[B])))].into()).unwrap();
    assert!(written.deleted < 9000, "{written:?}");
    let mut forgotten_later = 0;
    for step in 0..200 {
        let written = dataplane.forget().unwrap();
        assert!(written.deleted <= 2048, "{written:?}");
        forgotten_later += written.deleted;
        // Others change in between, and so does the Service itself.
        let other = plan("t", &json!({"clusterIP": "10.96.0.2", "ports": [{"port": 80}]}), &[]);
        dataplane.apply(&[(name("t"), Some(other).filter(|_| step % 2 == 0))].into()).unwrap();
        let endpoints: &[&str] = if step % 2 == 0 { &[B, "10.244.0.3"] } else { &[B] };
        dataplane.apply(&[(name("s"), Some(sticky(1, endpoints)))].into()).unwrap();
    }
    assert!(forgotten_later > 4000, "{forgotten_later}");
    forgotten(&mut dataplane);
    assert_eq!([A, B].map(remembered), [0, 1000]);
}

#[test]
fn nobody_gets_a_number_of_which_clients_are_remembered() {
    move_away();
    let mut dataplane = serving(1, &[A]);
    remember(0, A, 50, 14_000, long);
    dataplane.apply(&[(name("s"), None)].into()).unwrap();
    dataplane.tidy().unwrap();
    assert!(remembered(A) > 0);
    dataplane.apply(&[(name("t"), Some(sticky(2, &[B])))].into()).unwrap();
    assert_eq!(number(2), 1);
    forgotten(&mut dataplane);
    assert_eq!(remembered(A), 0);
    dataplane.tidy().unwrap();
    dataplane.apply(&[(name("u"), Some(sticky(3, &[B])))].into()).unwrap();
    assert_eq!(number(3), 0);
}

/// One that was killed before it had them forgotten.
#[test]
fn a_start_forgets_clients_of_what_is_no_more() {
    move_away();
    drop(serving(1, &[A, B]));
    remember(0, "10.244.0.9", 50, 3000, long);
    remember(0, A, 51, 100, long);
    for pool in 1..4 {
        remember(pool, A, 52, 100, long);
    }
    let mut restarted = dataplane(&Settings::default());
    let all = plans([("s", sticky(1, &[A, B])), ("t", sticky(2, &[B]))]);
    restarted.adopt(&all).unwrap();
    assert_eq!([1, 2].map(number), [0, 4]);
    restarted.tidy().unwrap();
    restarted.apply(&[(name("u"), Some(sticky(3, &[B])))].into()).unwrap();
    assert_eq!(number(3), 5);
    forgotten(&mut restarted);
    assert_eq!(["10.244.0.9", A].map(remembered), [0, 100]);
    restarted.tidy().unwrap();
    restarted.apply(&[(name("v"), Some(sticky(4, &[B])))].into()).unwrap();
    assert_eq!(number(4), 1);
}

/// As clients are that come while they are to be forgotten: the rules forget them.
#[test]
fn what_is_forgotten_meanwhile_is_no_failure() {
    move_away();
    let mut dataplane = serving(1, &[A, B]);
    remember(0, A, 50, 14_000, long);
    dataplane.apply(&[(name("s"), Some(sticky(1, &[B])))].into()).unwrap();
    // Until all are found, and some forgotten.
    while dataplane.forget().unwrap().deleted == 0 {}
    assert!(nft(&["flush map ip podwire-proxy affinity"], "").status.success());
    assert_eq!(dataplane.forget().unwrap(), Written::default());
    remember(0, A, 50, 100, long);
    forgotten(&mut dataplane);
    assert_eq!(remembered(A), 0);
}
