//! Flows of UDP, which nothing ends.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use serde_json::json;

use crate::by_both;
use crate::client::{Outcome, ask, must_ask, udp};
use crate::daemon::{eventually, metric, served, wait_ready};
use crate::objects::{HERE, THERE, leaving, ready};
use crate::site::Site;

/// It was deleted while nobody was there to have its flows cut.
#[test]
fn a_flow_of_a_service_that_went_meanwhile_ends() {
    let (site, folder, mut daemon) = served(true, &["a"]);
    let client = udp(site.pod("b"), site.at("service", 80));
    assert_eq!(must_ask(&client), "a");
    daemon.kill();
    fs::remove_file(folder.manifests().join("service.json")).expect("a file");
    assert_eq!(must_ask(&client), "a");
    let mut daemon = folder.start(&site);
    wait_ready(&site, &mut daemon);
    eventually("the flow's end", || ask(&client) == Outcome::Silence);
    assert!(metric(&site, "kubeproxy_conntrack_reconciler_deleted_entries_total") > 0.0);
}

by_both! {
    a_flow_follows_the_service_to_another_endpoint
    a_flow_of_a_service_that_goes_ends
    a_flow_that_came_before_its_service_is_led_there
    a_flow_to_an_endpoint_that_stays_is_not_cut
    a_flow_to_an_endpoint_that_gets_nothing_new_is_not_cut_while_that_serves
}

fn a_flow_follows_the_service_to_another_endpoint(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b", "c"]);
    site.serve(&json!({"type": "NodePort"}), &site.ready(["a"]));
    // The same sockets all the time, as resolvers have them.
    let clients = [
        udp(site.pod("c"), site.at("service", 80)),
        udp(&site.node, site.at("service", 80)),
        udp(site.world(), site.at("node", 30080)),
    ];
    for client in &clients {
        assert_eq!(must_ask(client), "a");
    }
    assert_eq!(site.serve(&json!({"type": "NodePort"}), &site.ready(["b"])), 3);
    for client in &clients {
        assert_eq!(must_ask(client), "b");
    }
    // None for a while: that is told, and forgotten when there is one.
    site.serve(&json!({"type": "NodePort"}), &[]);
    for client in &clients {
        assert_eq!(ask(client), Outcome::Refused);
    }
    site.serve(&json!({"type": "NodePort"}), &site.ready(["a"]));
    for client in &clients {
        assert_eq!(must_ask(client), "a");
    }
}

fn a_flow_of_a_service_that_goes_ends(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "c"]);
    site.serve(&json!({}), &site.ready(["a"]));
    let client = udp(site.pod("c"), site.at("service", 80));
    assert_eq!(must_ask(&client), "a");
    site.remove("s");
    assert_eq!(ask(&client), Outcome::Silence);
}

fn a_flow_that_came_before_its_service_is_led_there(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "c"]);
    // What nobody serves the world gets as it is.
    let client = udp(site.pod("c"), site.at("named", 80));
    assert_eq!(ask(&client), Outcome::Silence);
    site.serve(&json!({"externalIPs": [site.address("named")]}), &site.ready(["a"]));
    assert_eq!(must_ask(&client), "a");
}

fn a_flow_to_an_endpoint_that_stays_is_not_cut(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b", "c"]);
    site.serve(&json!({}), &site.ready(["a"]));
    let client = udp(site.pod("c"), site.at("service", 80));
    assert_eq!(must_ask(&client), "a");
    assert_eq!(site.serve(&json!({}), &site.ready(["a", "b"])), 0);
    for _ in 0..10 {
        assert_eq!(must_ask(&client), "a");
        sleep(Duration::from_millis(1));
    }
    assert_eq!(site.serve(&json!({}), &site.ready(["b"])), 1);
    assert_eq!(must_ask(&client), "b");
}

fn a_flow_to_an_endpoint_that_gets_nothing_new_is_not_cut_while_that_serves(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b", "c"]);
    let [a, b] = ["a", "b"].map(|it| site.address(it).to_string());
    site.serve(&json!({}), &[ready(&a, THERE)]);
    let client = udp(site.pod("c"), site.at("service", 80));
    assert_eq!(must_ask(&client), "a");
    let mut hinted = [ready(&a, THERE), ready(&b, HERE)];
    for (endpoint, zone) in hinted.iter_mut().zip(["y", "z"]) {
        endpoint["hints"] = json!({"forZones": [{"name": zone}]});
    }
    let local = json!({"internalTrafficPolicy": "Local"});
    for (keys, endpoints) in [
        // It is on its end; it is another zone's; it is another node's, and none is of this one.
        (&json!({}), vec![leaving(&a, THERE), ready(&b, HERE)]),
        (&json!({}), hinted.to_vec()),
        (&local, vec![ready(&a, THERE), ready(&b, HERE)]),
        (&local, vec![ready(&a, THERE), ready(&b, THERE)]),
    ] {
        assert_eq!(site.serve(keys, &endpoints), 0, "{endpoints:?}");
        assert_eq!(must_ask(&client), "a");
        if endpoints[1]["nodeName"] == json!(HERE) {
            let other = udp(site.pod("c"), site.at("service", 80));
            assert_eq!(must_ask(&other), "b");
        }
    }
    site.serve(&json!({}), &[leaving(&a, THERE), ready(&b, HERE)]);
    // It does not serve any more.
    let mut ended = leaving(&a, THERE);
    ended["conditions"]["serving"] = json!(false);
    assert_eq!(site.serve(&json!({}), &[ended, ready(&b, HERE)]), 1);
    assert_eq!(must_ask(&client), "b");
}
