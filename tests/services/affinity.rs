//! A client comes to the same endpoint.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

use lab::{Space, slowed};
use serde_json::{Value, json};

use crate::by_both;
use crate::client::{Outcome, connect, must_ask, must_reach, udp};
use crate::site::Site;

by_both! {
    a_client_stays_with_its_endpoint
    an_endpoint_that_goes_is_forgotten
    after_its_time_a_client_is_forgotten
    whatever_the_kernel_remembers_nobody_is_led_to_what_is_no_endpoint
    a_client_that_never_pauses_is_led_on_too
}

fn sticky(seconds: u32) -> Value {
    json!({
        "type": "NodePort", "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}},
    })
}

fn a_client_stays_with_its_endpoint(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b", "c", "d"]);
    site.serve(&sticky(600), &site.ready(["a", "b", "c"]));
    for from in [site.world(), &site.node, site.pod("d")] {
        // By whichever address of the service.
        let places = [site.at("service", 80), site.at("node", 30080)];
        let first = must_reach(from, places[0]).0;
        for to in places {
            let names: BTreeSet<_> = (0..20).map(|_| must_reach(from, to).0).collect();
            assert_eq!(names, [first.clone()].into());
        }
    }
    // Others that come or go are none of its business.
    let first = must_reach(site.pod("d"), site.at("service", 80)).0;
    let others: Vec<_> = ["a", "b", "c"].into_iter().filter(|it| *it != first).collect();
    site.serve(&sticky(600), &site.ready([first.as_str(), others[0]]));
    site.serve(&sticky(600), &site.ready(["a", "b", "c", "d"]));
    for _ in 0..20 {
        assert_eq!(must_reach(site.pod("d"), site.at("service", 80)).0, first);
    }
}

fn an_endpoint_that_goes_is_forgotten(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b", "c"]);
    site.serve(&sticky(600), &site.ready(["a"]));
    assert_eq!(must_reach(site.pod("c"), site.at("service", 80)).0, "a");
    site.serve(&sticky(600), &site.ready(["b"]));
    assert_eq!(must_reach(site.pod("c"), site.at("service", 80)).0, "b");
    // Nor is it remembered when it comes back.
    site.serve(&sticky(600), &site.ready(["a", "b"]));
    for _ in 0..20 {
        assert_eq!(must_reach(site.pod("c"), site.at("service", 80)).0, "b");
    }
}

fn after_its_time_a_client_is_forgotten(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b", "c"]);
    site.serve(&sticky(1), &site.ready(["a", "b"]));
    let mut names = BTreeSet::new();
    // One of two each time: to be always the same one in twenty rounds is one in half a million.
    for _ in 0..20 {
        names.insert(must_reach(site.pod("c"), site.at("service", 80)).0);
        if names.len() == 2 {
            return;
        }
        sleep(Duration::from_millis(1100));
    }
    panic!("always {names:?}");
}

/// As of a Service that went, and had the number of the pool; or of an endpoint, where the kernel has too many clients to forget
/// them at once.
fn whatever_the_kernel_remembers_nobody_is_led_to_what_is_no_endpoint(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b", "c"]);
    site.serve(&sticky(600), &site.ready(["a"]));
    let clients: [(&Space, &str); 2] = [(site.pod("c"), "c"), (&site.node, "node")];
    for (from, address) in clients {
        assert_eq!(must_reach(from, site.at("service", 80)).0, "a");
        remember(&site, address, "b");
        // Its first packet is lost, and the second one is not.
        let outcome = connect(from, site.at("service", 80));
        assert!(matches!(&outcome, Outcome::Answer(name, _) if name == "a"), "{outcome:?}");
        let client = udp(from, site.at("service", 80));
        assert_eq!(must_ask(&client), "a");
        assert_eq!(must_reach(from, site.at("service", 80)).0, "a");
    }
}

/// An ingress, say, or the many that are behind one address.
fn a_client_that_never_pauses_is_led_on_too(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b", "c"]);
    site.serve(&sticky(600), &site.ready(["a"]));
    let to = site.at("service", 80);
    assert_eq!(must_ask(&udp(site.pod("c"), to)), "a");
    let sockets: Vec<_> = (0..300).map(|_| udp(site.pod("c"), to)).collect();
    remember(&site, "c", "b");
    for socket in &sockets {
        socket.send(b"?").expect("a packet is sent");
        sleep(Duration::from_millis(2));
    }
    let bound = slowed(Duration::from_millis(20));
    let answered = sockets.iter().filter(|it| {
        it.set_read_timeout(Some(bound)).expect("an option of sockets");
        it.recv(&mut [0; 64]).is_ok()
    });
    let lost = sockets.len() - answered.count();
    // One packet, and those that passed at the same moment.
    assert!((1..10).contains(&lost), "{lost} of {} were lost", sockets.len());
}

/// Has the kernel remember a client of the service as being sent to this pod.
fn remember(site: &Site, client: &str, pod: &str) {
    let family = if site.is_ipv4 { "ip" } else { "ip6" };
    for pool in 0..2 {
        let client = format!("{} . 7200:{pool}", site.address(client));
        let endpoint = site.address(pod);
        // It may be there.
        let at = format!("{family} podwire-proxy affinity");
        _ = site.node.try_sh(&format!("nft delete element {at} '{{ {client} }}'"));
        let element = format!("{client} timeout 600s : {endpoint} . 8080");
        site.node.sh(&format!("nft add element {at} '{{ {element} }}'"));
    }
}
