//! sbr: what is sent from an address goes by the routes of its interface.

use serde_json::{Value, json};

use super::{dual, fixed, sbr, v4, v6};
use crate::case::{Case, Expect, Step, step};

pub(super) fn cases() -> Vec<Case> {
    [addresses(), tables(), routes(), deletions(), checks(), verbs(), versions(), errors()].concat()
}

fn bridge(ipam: Value) -> Value {
    json!({"type": "bridge", "isDefaultGateway": true, "ipam": ipam})
}

fn addresses() -> Vec<Case> {
    let two = json!({"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]});
    vec![
        sbr("plain", json!({})),
        sbr("v6", json!({})).on(bridge(v6())),
        sbr("dual", json!({})).on(bridge(dual())),
        sbr("two-of-a-family", json!({}))
            .on(json!({"type": "bridge", "ipam": two}))
            .in_pod("ip -6 route del fe80::/64 dev eth0"),
        sbr("ptp", json!({})).on(json!({"type": "ptp", "ipam": v4()})),
        sbr("ptp-dual", json!({})).on(json!({"type": "ptp", "ipam": dual()})),
        sbr("without-gateway", json!({}))
            .on(json!({"type": "bridge", "ipam": fixed(json!([{"address": "10.1.0.7/24"}]))})),
        sbr("another-interface", json!({})).in_pod(
            "ip link add eth9 type bridge; ip link set eth9 up; ip addr add 10.9.0.2/24 dev eth9
             ip route add 10.8.0.0/16 via 10.9.0.1",
        ),
        sbr("two-pods", json!({})).steps(vec![
            step("ADD"),
            step("ADD").pod(1),
            step("DEL"),
            step("CHECK").pod(1),
            step("DEL").pod(1),
        ]),
        sbr("arguments-are-not-read", json!({})).env("CNI_ARGS", "FOO=1"),
    ]
}

fn tables() -> Vec<Case> {
    vec![
        sbr("table", json!({"table": 500})),
        sbr("table-dual", json!({"table": 100_000})).on(bridge(dual())),
        sbr("table-of-others", json!({"table": 500}))
            .in_pod("ip route add 10.66.0.0/16 dev eth0 table 500"),
        sbr("tables-that-are-used", json!({})).in_pod(
            "ip rule add from 10.9.9.9 lookup 100; ip route add 10.66.0.0/16 dev eth0 table 101
             ip -6 rule add from fd00:9::9 lookup 102; ip route add blackhole 10.67.0.0/16 table 103",
        ),
        sbr("table-zero", json!({"table": 0})).refused(7, "sbr-table-that-is-none"),
        sbr("table-negative", json!({"table": -1})).refused(7, "sbr-table-that-is-none"),
        sbr("table-no-number", json!({"table": "500"})).fails(6),
    ]
}

fn routes() -> Vec<Case> {
    let mut with_routes = v4();
    with_routes["routes"] =
        json!([{"dst": "10.8.0.0/16", "gw": "10.1.0.9"}, {"dst": "10.9.0.0/16"}]);
    vec![
        sbr("routes-of-ipam", json!({})).on(bridge(with_routes)),
        sbr("routes-with-attributes", json!({})).in_pod(
            "ip route add 10.8.0.0/16 via 10.1.0.9 mtu 1300 metric 7 proto static
             ip route add 10.9.0.0/16 dev eth0 src 10.1.0.2 advmss 1200",
        ),
        sbr("routes-of-nobody", json!({})).in_pod(
            "ip route add 172.16.0.1 dev eth0 src 10.1.0.2; ip route add 10.8.0.0/16 via 172.16.0.1",
        ),
        sbr("another-default-route", json!({}))
            .in_pod("ip route replace default via 10.1.0.9 dev eth0"),
    ]
}

fn deletions() -> Vec<Case> {
    let del = |name: &str, steps: Vec<Step>| sbr(name, json!({})).steps(steps);
    let better = |step: Step| step.expect(Expect::OnlyPodwire("sbr-del-without-netns"));
    vec![
        del("del-without-netns", vec![step("ADD"), better(step("DEL").unset("CNI_NETNS"))]),
        del("del-vanished-netns", vec![
            step("ADD"),
            better(step("DEL").env("CNI_NETNS", "$HOME/data/vanished")),
        ]),
        del("del-never-added", vec![step("DEL")]),
        del("del-of-another-interface", vec![
            step("ADD"),
            step("DEL").env("CNI_IFNAME", "net9").patch(json!({"prevResult": null})),
            step("DEL"),
        ]),
        del("del-link-is-gone", vec![
            step("ADD"),
            step("DEL").before("nsenter --net=$POD ip link del eth0"),
        ]),
        del("del-address-is-gone", vec![
            step("ADD"),
            step("DEL").before("nsenter --net=$POD ip addr flush dev eth0"),
        ]),
        del("del-rule-is-gone", vec![
            step("ADD"),
            step("DEL").before("nsenter --net=$POD ip rule del from 10.1.0.2 lookup 100"),
        ]),
        sbr("del-table", json!({"table": 500}))
            .in_pod("ip rule add from 10.1.0.2 lookup 501 priority 7; ip rule add from 10.1.0.3 lookup 500")
            .steps(vec![step("DEL")]),
        del("del-rules-of-others", vec![step("ADD"), step("DEL")])
            .in_pod("ip rule add from 10.1.0.2 to 10.8.0.0/16 lookup main"),
        del("del-wrong-keys", vec![
            step("ADD"),
            step("DEL").patch(json!({"table": "x"})).expect(Expect::OnlyPodwire("del-to-the-fullest")),
        ]),
    ]
}

fn checks() -> Vec<Case> {
    let changed = |name: &str, line: &'static str| {
        sbr(name, json!({})).steps(vec![
            step("ADD"),
            step("CHECK").before(line).expect(Expect::OnlyReference(102, "sbr-check")),
            step("DEL"),
        ])
    };
    vec![
        changed("check-rule", "nsenter --net=$POD ip rule del from 10.1.0.2 lookup 100"),
        changed("check-way-out", "nsenter --net=$POD ip route del default table 100"),
        changed("check-link", "nsenter --net=$POD ip link del eth0"),
        sbr("check-table", json!({"table": 500})).steps(vec![
            step("ADD"),
            step("CHECK")
                .patch(json!({"table": 501}))
                .expect(Expect::OnlyReference(102, "sbr-check")),
            step("DEL"),
        ]),
        sbr("check-routes-of-others", json!({})).steps(vec![
            step("ADD"),
            step("CHECK").before("nsenter --net=$POD ip route add 10.77.0.0/16 dev eth0"),
            step("DEL"),
        ]),
        sbr("check-without-result", json!({})).steps(vec![
            step("ADD"),
            step("CHECK")
                .patch(json!({"prevResult": null}))
                .expect(Expect::OnlyReference(7, "sbr-check")),
            step("DEL"),
        ]),
        sbr("check-vanished-netns", json!({})).steps(vec![
            step("ADD"),
            step("CHECK")
                .env("CNI_NETNS", "/run/netns/vanished")
                .expect(Expect::OnlyReference(8, "sbr-check")),
            step("DEL"),
        ]),
    ]
}

fn verbs() -> Vec<Case> {
    let none = json!({"cni.dev/valid-attachments": []});
    vec![
        sbr("gc", json!({})).version("1.1.0").steps(vec![
            step("ADD"),
            step("GC").patch(none).unset("CNI_CONTAINERID").unset("CNI_IFNAME"),
            step("DEL"),
        ]),
        sbr("status", json!({})).version("1.1.0").steps(vec![step("STATUS")]),
        sbr("status-wrong-keys", json!({"table": 0}))
            .version("1.1.0")
            .steps(vec![step("STATUS").expect(Expect::OnlyReference(7, "sbr-table-that-is-none"))]),
    ]
}

fn versions() -> Vec<Case> {
    let versions = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
    versions
        .into_iter()
        .map(|version| sbr(&format!("version-{version}"), json!({})).version(version))
        .collect()
}

fn errors() -> Vec<Case> {
    let prev = |result: Value| step("ADD").patch(json!({"prevResult": result}));
    let other = json!({"cniVersion": "1.0.0", "interfaces": [{"name": "eth9", "sandbox": "/n"}],
        "ips": [{"address": "10.1.0.2/24", "interface": 0}]});
    let unversioned = json!({"ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}]});
    let far = fixed(json!([{"address": "10.1.0.7/24", "gateway": "172.30.0.1"}]));
    let gateways = |list: Value| {
        sbr(&format!("gateways-{list}"), json!({"gateways": list}))
            .refused(7, "sbr-keys-after-the-release")
    };
    vec![
        sbr("without-result", json!({})).steps(vec![prev(Value::Null).fails(7), step("DEL")]),
        sbr("result-of-another-family", json!({}))
            .steps(vec![prev(json!({"cniVersion": "0.4.0"})).fails(7)]),
        sbr("result-without-version", json!({})).steps(vec![
            prev(unversioned).expect(Expect::OnlyPodwire("sbr-result-without-version")),
            step("DEL"),
        ]),
        sbr("without-addresses", json!({})).steps(vec![
            prev(other).expect(Expect::OnlyReference(7, "sbr-without-addresses")),
            step("DEL").expect(Expect::Agree),
        ]),
        sbr("gateway-out-of-reach", json!({}))
            .on(json!({"type": "bridge", "ipam": far}))
            .fails(100),
        sbr("add-twice", json!({})).steps(vec![
            step("ADD"),
            step("ADD").fails(101),
            step("CHECK"),
            step("DEL").expect(Expect::Agree),
        ]),
        sbr("no-such-interface", json!({})).env("CNI_IFNAME", "net1").fails(7),
        sbr("no-namespace", json!({})).env("CNI_NETNS", "/etc/passwd").fails(8),
        sbr("source-hints", json!({"addSourceHints": true})).on(bridge(dual())),
        sbr("gateways", json!({"gateways": ["10.1.0.9"]})),
        gateways(json!(["x"])),
        gateways(json!(["10.1.0.1", "10.1.0.2"])),
        gateways(json!(["10.1.0.1", "fd00:1::1", "10.1.0.2"])),
    ]
}
