//! Many services beside the one that is looked at.

use serde_json::{Value, json};

use crate::site::Site;

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
