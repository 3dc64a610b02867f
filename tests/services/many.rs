//! Many services beside the one that is looked at.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::client::must_reach;
use crate::daemon::{eventually, served, service as of_site, slice as slice_of_site};
use crate::site::Site;
use crate::steady::Steady;

/// So many: more than a transaction takes.
pub(crate) const MANY: u32 = 1500;
/// Each has so many endpoints.
const ENDPOINTS: u32 = 4;

/// Services at addresses of 10.96.128.0/17 or the like, with endpoints that nobody asks. Half of them have others each time that
/// `turn` is another one.
pub(crate) fn many(site: &Site, turn: u32) -> Value {
    let objects = (0..MANY).flat_map(|number| {
        let variant = if number % 2 == 0 { 0 } else { turn % 7 };
        [of_number(site, number), slice(site, number, variant)]
    });
    json!({"apiVersion": "v1", "kind": "List", "items": objects.collect::<Vec<_>>()})
}

/// How many of them the kernel has.
pub(crate) fn held(site: &Site) -> usize {
    let family = if site.is_ipv4 { "ip" } else { "ip6" };
    // There may be no table.
    let text = site.node.try_sh(&format!("nft list map {family} podwire-proxy services")).stdout;
    let start = if site.is_ipv4 { "10.96.1" } else { "fd00:96::1:" };
    text.matches(start).count()
}

fn of_number(site: &Site, number: u32) -> Value {
    let (high, low) = (128 + number / 250, number % 250);
    let address = if site.is_ipv4 {
        format!("10.96.{high}.{low}")
    } else {
        format!("fd00:96::1:{:x}", number + 0x1000)
    };
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": format!("many-{number}"), "namespace": "default"},
        "spec": {"clusterIP": address, "ports": [{"name": "p", "port": 80}]},
    })
}

fn slice(site: &Site, number: u32, variant: u32) -> Value {
    let endpoint = |it: u32| {
        let address = if site.is_ipv4 {
            format!("10.9.{}.{}", number % 250, it * 8 + variant + 1)
        } else {
            format!("fd00:9::{:x}:{:x}", number + 1, it * 8 + variant + 1)
        };
        json!({"addresses": [address]})
    };
    // One endpoint fewer at times.
    let count = ENDPOINTS - variant % 2;
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("many-{number}-1"), "namespace": "default",
            "labels": {"kubernetes.io/service-name": format!("many-{number}")},
        },
        "addressType": if site.is_ipv4 { "IPv4" } else { "IPv6" },
        "endpoints": (0..count).map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "p", "port": 8080}],
    })
}

/// All change in one file: the one comes first and the other last, and between them are more than are taken in at once.
#[test]
fn places_pass_from_one_service_to_another_however_many_change_between() {
    let (site, folder, _daemon) = served(true, &["a", "b"]);
    let [one, other] = ["10.96.9.1", "10.96.9.2"];
    let all = |turn: u32| {
        let mut all = many(&site, 0);
        let items = all["items"].as_array_mut().expect("a list");
        for service in items.iter_mut().filter(|it| it["kind"] == "Service") {
            service["spec"]["ports"][0]["port"] = json!(80 + turn % 2);
        }
        let places = if turn.is_multiple_of(2) { [one, other] } else { [other, one] };
        for ((name, endpoint), place) in [("aa-first", "a"), ("zz-last", "b")].iter().zip(places) {
            let (mut object, mut endpoints) = (of_site(&site), slice_of_site(&site, &[endpoint]));
            object["metadata"]["name"] = json!(name);
            object["spec"] = json!({"clusterIP": place, "ports": [{"name": "t", "port": 80}]});
            endpoints["metadata"]["name"] = json!(name);
            endpoints["metadata"]["labels"] = json!({"kubernetes.io/service-name": name});
            items.extend([object, endpoints]);
        }
        all
    };
    let [to_one, to_other] =
        [one, other].map(|it| SocketAddr::new(it.parse().expect("an address"), 80));
    folder.write("all.json", &all(0));
    eventually("all", || held(&site) == MANY as usize);
    let steady = [to_one, to_other].map(|to| Steady::start(site.pod("c"), to));
    for turn in 1..=4 {
        folder.write("all.json", &all(turn));
        let names = if turn.is_multiple_of(2) { ["a", "b"] } else { ["b", "a"] };
        eventually("the exchange", || {
            [to_one, to_other].map(|to| must_reach(&site.node, to).0) == names
        });
    }
    steady.into_iter().for_each(|it| _ = it.end());
}
