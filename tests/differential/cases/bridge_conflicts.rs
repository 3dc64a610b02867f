//! bridge: what is there already and is in the way.

use serde_json::json;

use super::{bridge, dual, fixed, v6};
use crate::case::{Case, step};

pub(super) fn cases() -> Vec<Case> {
    [addresses(), names(), delegates()].concat()
}

fn addresses() -> Vec<Case> {
    let other_v4 = "ip link add br0 up type bridge; ip addr add 10.2.0.1/24 dev br0";
    let other_v6 = "ip link add br0 up type bridge; ip addr add fd00:2::1/64 dev br0";
    let within_v6 = "ip link add br0 up type bridge; ip addr add fd00:1::9/64 dev br0";
    vec![
        bridge("address-conflict", json!({"isGateway": true})).on_node(other_v4).fails(101),
        bridge("address-forced", json!({"isGateway": true, "forceAddress": true})).on_node(other_v4),
        bridge("address-of-the-other-family", json!({"isGateway": true, "ipam": v6()})).on_node(other_v4),
        bridge("address-v6-elsewhere", json!({"isGateway": true, "ipam": v6()})).on_node(other_v6),
        bridge("address-v6-overlap", json!({"isGateway": true, "ipam": v6()})).on_node(within_v6).fails(101),
        bridge("address-v6-forced", json!({"isGateway": true, "forceAddress": true, "ipam": v6()}))
            .on_node(within_v6),
        bridge("address-is-there", json!({"isGateway": true, "ipam": dual()})).on_node(
            "ip link add br0 up type bridge; ip addr add 10.1.0.1/24 dev br0; ip addr add fd00:1::1/64 dev br0",
        ),
        bridge("address-with-another-prefix", json!({"isGateway": true}))
            .on_node("ip link add br0 up type bridge; ip addr add 10.1.0.1/16 dev br0")
            .fails(101),
        bridge("address-conflict-without-gateway", json!({})).on_node(other_v4),
        bridge("gateway-given", json!({"isGateway": true, "ipam": {"type": "host-local",
            "ranges": [[{"subnet": "10.1.0.0/24", "gateway": "10.1.0.254"}]]}})),
        bridge("two-sets-of-one-family", json!({"isDefaultGateway": true, "ipam": {"type": "host-local",
            "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]}}))
            .fails(101),
        bridge("no-gateway-from-ipam", json!({"isGateway": true,
            "ipam": fixed(json!([{"address": "10.1.0.7/24"}]))})),
        bridge("address-is-the-gateway", json!({"isGateway": true,
            "ipam": fixed(json!([{"address": "10.1.0.1/24", "gateway": "10.1.0.1"}]))})),
    ]
}

fn names() -> Vec<Case> {
    vec![
        bridge("is-a-veth", json!({}))
            .on_node("ip link add br0 type veth peer name br1")
            .fails(101),
        bridge("name-of-16-bytes", json!({"bridge": "abcdefghijklmnop"})).fails(7),
        bridge("name-of-15-bytes", json!({"bridge": "abcdefghijklmno"})),
        bridge("name-with-a-dot", json!({"bridge": "br0.5", "isGateway": true, "ipam": dual()})),
        bridge("name-with-a-slash", json!({"bridge": "br/0"})).fails(7),
        bridge("failed-then-good", json!({"isGateway": true})).steps(vec![
            step("ADD").fails(100).patch(json!({"isGateway": true, "ipam": {"type": "static",
                "addresses": [{"address": "10.1.0.7/24"}],
                "routes": [{"dst": "10.9.0.0/24", "gw": "10.77.0.1"}]}})),
            step("DEL").expect(crate::case::Expect::Agree),
        ]),
    ]
}

fn delegates() -> Vec<Case> {
    vec![
        bridge("ipam-missing", json!({"ipam": {"type": "nosuch"}})).fails(7),
        bridge("ipam-with-a-slash", json!({"ipam": {"type": "../bridge"}})).fails(7),
        bridge("ipam-fails", json!({"ipam": {"type": "host-local"}})).fails(7),
        bridge("ipam-without-addresses", json!({"ipam": {"type": "static"}})).fails(7),
        bridge("ipam-no-path", json!({})).fails(7).env("CNI_PATH", "/nonexistent"),
        bridge("ipam-second-path", json!({})).env("CNI_PATH", "/nonexistent:$BIN"),
        bridge("ipam-exhausted", json!({"ipam": {"type": "host-local",
            "ranges": [[{"subnet": "10.1.0.0/30", "rangeStart": "10.1.0.2", "rangeEnd": "10.1.0.2"}]]}}))
            .steps(vec![
                step("ADD"),
                step("ADD").pod(1).fails(11),
                step("DEL").pod(1),
                step("DEL"),
                step("ADD").pod(1),
                step("DEL").pod(1),
            ]),
    ]
}
