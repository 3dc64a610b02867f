//! static alone.

use serde_json::{Value, json};

use super::static_ipam;
use crate::case::{Case, step};

pub(super) fn cases() -> Vec<Case> {
    [answers(), requests(), errors(), checks()].concat()
}

fn one() -> Value {
    json!({"addresses": [{"address": "10.1.0.7/24", "gateway": "10.1.0.1"}]})
}

fn both() -> Value {
    json!({"addresses": [{"address": "10.1.0.7/24", "gateway": "10.1.0.1"}, {"address": "fd00:1::7/64"}]})
}

fn answers() -> Vec<Case> {
    let mut all = both();
    all["routes"] = json!([{"dst": "0.0.0.0/0"}, {"dst": "fd99::/48", "gw": "fd00:1::1", "mtu": 1300, "priority": 3}]);
    all["dns"] = json!({"nameservers": ["10.1.0.1"], "domain": "a.example", "search": ["b.example"], "options": ["rotate"]});
    let mut cases: Vec<Case> = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
        .into_iter()
        .map(|version| static_ipam(version, all.clone()).version(version))
        .collect();
    cases.extend([
        static_ipam("one", one()),
        static_ipam("both", both()),
        static_ipam("slash-32", json!({"addresses": [{"address": "10.1.0.7/32"}]})),
        static_ipam("no-addresses", json!({})),
        static_ipam(
            "v6-spelled-long",
            json!({"addresses": [{"address": "FD00:0001:0:0::0007/64"}]}),
        ),
        static_ipam(
            "routes-only-v6-0.2.0",
            json!({"addresses": [{"address": "10.1.0.7/24"}],
            "routes": [{"dst": "fd99::/48"}, {"dst": "10.9.0.0/16"}]}),
        )
        .version("0.2.0"),
        static_ipam(
            "two-of-a-family-0.4.0",
            json!({"addresses": [{"address": "10.1.0.7/24"}, {"address": "10.2.0.7/24"}]}),
        )
        .version("0.4.0"),
    ]);
    cases
}

fn requests() -> Vec<Case> {
    let runtime = |list: Value| json!({"runtimeConfig": {"ips": list}});
    let args = |list: Value| json!({"args": {"cni": {"ips": list}}});
    let empty = |name: &str| static_ipam(name, json!({}));
    vec![
        empty("cni-args").env("CNI_ARGS", "IP=10.1.0.8/24"),
        empty("cni-args-with-gateway").env("CNI_ARGS", "IP=10.1.0.8/24;GATEWAY=10.1.0.1"),
        empty("cni-args-two")
            .env("CNI_ARGS", "IP=10.1.0.8/24,fd00:1::8/64;GATEWAY=10.1.0.1,fd00:1::1"),
        empty("cni-args-gateway-elsewhere").env("CNI_ARGS", "IP=10.1.0.8/24;GATEWAY=10.7.0.1"),
        static_ipam("cni-args-and-config", one())
            .env("CNI_ARGS", "IP=10.2.0.8/24;GATEWAY=10.1.0.9"),
        static_ipam("args-replace-config", one()).with(args(json!(["10.3.0.8/24"]))),
        static_ipam("runtime-replaces-args", one())
            .with(args(json!(["10.3.0.8/24"])))
            .with(runtime(json!(["10.4.0.8/24"]))),
        static_ipam("runtime-with-cni-args", one())
            .with(runtime(json!(["10.4.0.8/24"])))
            .env("CNI_ARGS", "IP=10.2.0.8/24"),
        static_ipam("runtime-empty", one()).with(runtime(json!([]))),
    ]
}

fn errors() -> Vec<Case> {
    let address = |text: &str| json!({"addresses": [{"address": text}]});
    vec![
        static_ipam("no-ipam", one()).with(json!({"ipam": null})).fails(7),
        static_ipam("address-without-prefix", address("10.1.0.7")).fails(7),
        static_ipam("address-rubbish", address("rubbish")).fails(7),
        static_ipam("address-empty", address("")).fails(7),
        static_ipam(
            "gateway-rubbish",
            json!({"addresses": [{"address": "10.1.0.7/24", "gateway": "x"}]}),
        )
        .fails(7),
        static_ipam(
            "gateway-of-the-other-family",
            json!({"addresses": [{"address": "10.1.0.7/24", "gateway": "fd00::1"}]}),
        )
        .refused(7, "gateway-of-the-other-family"),
        static_ipam("cni-args-without-prefix", one()).fails(4).env("CNI_ARGS", "IP=10.1.0.8"),
        static_ipam("cni-args-gateway-rubbish", one())
            .fails(4)
            .env("CNI_ARGS", "IP=10.1.0.8/24;GATEWAY=x"),
        static_ipam("runtime-without-prefix", one())
            .with(json!({"runtimeConfig": {"ips": ["10.4.0.8"]}}))
            .fails(7),
        static_ipam("args-without-prefix", one())
            .with(json!({"args": {"cni": {"ips": ["10.4.0.8"]}}}))
            .fails(7),
        static_ipam(
            "two-of-a-family-0.2.0",
            json!({"addresses": [{"address": "10.1.0.7/24"}, {"address": "10.2.0.7/24"}]}),
        )
        .version("0.2.0")
        .fails(7),
        static_ipam("addresses-not-a-list", json!({"addresses": "10.1.0.7/24"})).fails(6),
    ]
}

fn checks() -> Vec<Case> {
    let previous = |address: &str, gateway: &str| json!({"prevResult": {"cniVersion": "1.0.0", "ips": [{"address": address, "gateway": gateway}]}});
    vec![
        static_ipam("check-without-result", one()).steps(vec![step("CHECK").fails(7)]),
        static_ipam("check-same", one())
            .steps(vec![step("CHECK").patch(previous("10.1.0.7/24", "10.1.0.1"))]),
        static_ipam("check-other-gateway", one())
            .steps(vec![step("CHECK").patch(previous("10.1.0.7/24", "10.1.0.9")).fails(102)]),
        static_ipam("check-other-address", one())
            .steps(vec![step("CHECK").patch(previous("10.7.0.7/24", "10.7.0.1"))]),
    ]
}
