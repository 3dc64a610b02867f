//! ptp: routed veths.

use serde_json::{Value, json};

use super::{dual, fixed, ptp, v4, v6};
use crate::case::{Case, Step, step};

pub(super) fn cases() -> Vec<Case> {
    [links(), addresses(), deletions(), errors()].concat()
}

fn links() -> Vec<Case> {
    let of = |command, pod| step(command).pod(pod);
    let net1 = |s: Step| s.env("CNI_IFNAME", "net1");
    vec![
        ptp("plain", json!({})),
        ptp("v6", json!({"ipam": v6()})),
        ptp("dual", json!({"ipam": dual()})),
        ptp("mtu", json!({"mtu": 1400})),
        ptp("mtu-zero", json!({"mtu": 0})),
        ptp("ifname", json!({})).env("CNI_IFNAME", "net1"),
        ptp("two-pods", json!({"ipam": dual()})).steps(vec![
            of("ADD", 0),
            of("ADD", 1),
            of("CHECK", 0),
            of("DEL", 0),
            of("CHECK", 1),
            of("DEL", 1),
        ]),
        ptp("two-interfaces", json!({})).steps(vec![
            step("ADD"),
            net1(step("ADD").patch(other_subnet())),
            step("DEL"),
            net1(step("DEL").patch(other_subnet())),
        ]),
        ptp("forwarding-is-on-already", json!({}))
            .on_node("echo 1 > /proc/sys/net/ipv4/ip_forward"),
        ptp("v6-where-ipv6-is-off", json!({"ipam": v6()}))
            .in_pod("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6"),
    ]
}

fn other_subnet() -> Value {
    json!({"name": "net2", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.2.0.0/24"}]], "dataDir": "$DATA"}})
}

fn addresses() -> Vec<Case> {
    let mut with_default = dual();
    with_default["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
    let mut with_mtu = v4();
    with_mtu["routes"] = json!([{"dst": "0.0.0.0/0", "mtu": 1300, "advmss": 1200}]);
    let mut with_priority = v4();
    with_priority["routes"] = json!([{"dst": "10.9.0.0/16", "priority": 7}]);
    vec![
        ptp("default-routes", json!({"ipam": with_default})),
        ptp("route-mtu-and-advmss", json!({"ipam": with_mtu})),
        ptp("route-priority", json!({"ipam": with_priority})),
        ptp(
            "two-sets-of-one-family",
            json!({"ipam": {"type": "host-local",
            "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]}}),
        ),
        ptp(
            "gateway-given",
            json!({"ipam": {"type": "host-local",
            "ranges": [[{"subnet": "10.1.0.0/24", "gateway": "10.1.0.254"}]]}}),
        ),
        ptp(
            "static",
            json!({"ipam": fixed(json!([{"address": "10.1.0.7/24", "gateway": "10.1.0.1"},
            {"address": "fd00:1::7/64", "gateway": "fd00:1::1"}]))}),
        ),
        ptp(
            "static-without-a-subnet",
            json!({"ipam": fixed(json!([{"address": "10.1.0.7/32", "gateway": "169.254.1.1"}]))}),
        )
        .better("ptp-host-prefix"),
        ptp("dns", json!({"dns": {"nameservers": ["10.9.9.9"], "search": ["c.example"]}})),
    ]
}

fn deletions() -> Vec<Case> {
    let ends = |del: Step| vec![step("ADD"), del.clone(), del];
    vec![
        ptp("del-without-netns", json!({})).steps(ends(step("DEL").unset("CNI_NETNS"))),
        ptp("del-vanished-netns", json!({}))
            .steps(ends(step("DEL").env("CNI_NETNS", "/run/netns/vanished"))),
        ptp("del-never-added", json!({})).steps(vec![step("DEL")]),
        ptp("del-of-another-container", json!({})).steps(vec![
            step("ADD"),
            step("DEL").env("CNI_CONTAINERID", "other").env("CNI_IFNAME", "net9"),
            step("CHECK"),
            step("DEL"),
        ]),
    ]
}

fn errors() -> Vec<Case> {
    vec![
        ptp("no-ipam", json!({"ipam": null})).fails(7),
        ptp("empty-ipam", json!({"ipam": {}})).fails(7),
        ptp("no-gateway", json!({"ipam": fixed(json!([{"address": "10.1.0.7/24"}]))})).fails(7),
        ptp("no-addresses", json!({"ipam": {"type": "static"}})).fails(7),
        ptp("ifname-exists", json!({})).in_pod("ip link add eth0 type bridge").fails(101),
        ptp("mtu-not-a-number", json!({"mtu": "1400"})).fails(6),
        ptp(
            "route-unreachable",
            json!({"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]],
            "routes": [{"dst": "10.9.0.0/16", "gw": "172.30.0.1"}]}}),
        )
        .fails(100),
    ]
}
