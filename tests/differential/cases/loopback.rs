//! loopback.

use serde_json::{Value, json};

use crate::case::{Case, step};

fn loopback(name: &str, keys: Value) -> Case {
    Case::new(&format!("loopback/{name}"), "loopback", json!({})).with(keys)
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
        .into_iter()
        .map(|version| loopback(version, json!({})).version(version))
        .collect();
    let foreign = json!({"prevResult": {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0"}],
        "ips": [{"address": "10.1.0.2/24", "interface": 0}]}});
    cases.extend([
        loopback("no-version", json!({"cniVersion": null})).steps(vec![step("ADD"), step("DEL")]),
        loopback("previous-result", json!({})).steps(vec![step("ADD").patch(foreign), step("DEL")]),
        loopback("any-ifname", json!({})).env("CNI_IFNAME", "whatever"),
        loopback("is-up-already", json!({})).in_pod("ip link set lo up"),
        loopback("foreign-address", json!({})).in_pod("ip addr add 192.0.2.7/32 dev lo").fails(101),
        loopback("foreign-address-v6", json!({}))
            .in_pod("ip addr add fd00::7/128 dev lo")
            .fails(101),
        loopback("second-loopback-address", json!({})).in_pod("ip addr add 127.0.0.53/32 dev lo"),
        loopback("ipv6-is-off", json!({}))
            .in_pod("echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6"),
        loopback("check-when-down", json!({})).steps(vec![step("CHECK").fails(102)]),
        loopback("del-without-netns", json!({}))
            .steps(vec![step("ADD"), step("DEL").unset("CNI_NETNS")]),
        loopback("del-vanished-netns", json!({}))
            .steps(vec![step("ADD"), step("DEL").env("CNI_NETNS", "/run/netns/vanished")]),
        loopback("add-vanished-netns", json!({}))
            .steps(vec![step("ADD").env("CNI_NETNS", "/run/netns/vanished").fails(8)]),
        loopback("add-not-a-netns", json!({}))
            .steps(vec![step("ADD").env("CNI_NETNS", "/etc/passwd").fails(8)]),
        loopback("its-own-netns", json!({}))
            .steps(vec![step("DEL").env("CNI_NETNS", "$NODE").fails(8)]),
        loopback("its-own-netns-overridden", json!({}))
            .steps(vec![step("ADD").env("CNI_NETNS", "$NODE").env("CNI_NETNS_OVERRIDE", "true")]),
    ]);
    cases
}
