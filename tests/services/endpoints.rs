//! Which endpoints are chosen, and how often.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::by_both;
use crate::client::must_reach;
use crate::objects::{HERE, THERE, leaving, ready};
use crate::site::Site;

by_both! {
    each_is_chosen_as_often_as_any_other
    one_that_comes_or_goes_is_known_at_once
    hints_keep_connections_near
    those_on_their_end_serve_only_where_no_other_is
}

fn chosen(site: &Site, count: usize) -> BTreeMap<String, usize> {
    let mut chosen = BTreeMap::new();
    for _ in 0..count {
        let (name, _) = must_reach(&site.node, site.at("service", 80));
        *chosen.entry(name).or_default() += 1;
    }
    chosen
}

fn each_is_chosen_as_often_as_any_other(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b", "c"]);
    site.serve(&json!({}), &site.ready(["a", "b", "c"]));
    let count = 600;
    let chosen = chosen(&site, count);
    // Of 600, 200 each, with a deviation of 11.5: six of them are never seen.
    assert!(chosen.len() == 3 && chosen.values().all(|it| (130..=270).contains(it)), "{chosen:?}");
}

fn one_that_comes_or_goes_is_known_at_once(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b", "c"]);
    let names = |site: &Site| chosen(site, 60).into_keys().collect::<BTreeSet<_>>();
    let set = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<BTreeSet<_>>();
    site.serve(&json!({}), &site.ready(["a"]));
    assert_eq!(names(&site), set(&["a"]));
    site.serve(&json!({}), &site.ready(["a", "b", "c"]));
    assert_eq!(names(&site), set(&["a", "b", "c"]));
    site.serve(&json!({}), &site.ready(["b", "c"]));
    assert_eq!(names(&site), set(&["b", "c"]));
    site.serve(&json!({}), &site.ready(["c", "a"]));
    assert_eq!(names(&site), set(&["a", "c"]));
}

fn hints_keep_connections_near(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b"]);
    let hinted = |name: &str, hints| {
        let mut it = ready(&site.address(name).to_string(), HERE);
        it["hints"] = hints;
        it
    };
    let zone = |name: &str| json!({"forZones": [{"name": name}]});
    let near = [hinted("a", zone("z")), hinted("b", zone("other"))];
    let some = [hinted("a", zone("z")), hinted("b", json!({}))];
    let elsewhere = [hinted("a", zone("y")), hinted("b", zone("other"))];
    let of_node = |name: &str| json!({"forNodes": [{"name": name}], "forZones": [{"name": "z"}]});
    let nodes = [hinted("a", of_node(THERE)), hinted("b", of_node(HERE))];
    for (endpoints, expected) in [
        (&near, vec!["a"]),
        // Hints count only where all have some, and one is for this zone.
        (&some, vec!["a", "b"]),
        (&elsewhere, vec!["a", "b"]),
        // A node's count before a zone's.
        (&nodes, vec!["b"]),
    ] {
        site.serve(&json!({}), endpoints);
        let names: Vec<_> = chosen(&site, 40).into_keys().collect();
        assert_eq!(names, expected);
    }
}

fn those_on_their_end_serve_only_where_no_other_is(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b"]);
    let end = leaving(&site.address("b").to_string(), HERE);
    site.serve(&json!({}), &[site.ready(["a"]), vec![end.clone()]].concat());
    assert_eq!(chosen(&site, 20).into_keys().collect::<Vec<_>>(), ["a"]);
    site.serve(&json!({}), &[end]);
    assert_eq!(chosen(&site, 5).into_keys().collect::<Vec<_>>(), ["b"]);
}
