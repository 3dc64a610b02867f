//! Every version of the protocol, and those that there are not.

use serde_json::json;

use super::{bridge, bridge_l2, dual, host_local, ptp};
use crate::case::{Case, step};

const ALL: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut routed = dual();
    routed["routes"] =
        json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "10.9.0.0/16", "priority": 5}]);
    for version in ALL {
        let name = format!("version-{version}");
        let gateway = json!({"isGateway": true, "ipam": routed.clone()});
        cases.push(bridge(&name, gateway).version(version));
        cases.push(ptp(&name, json!({"ipam": routed.clone()})).version(version));
        let ranges = json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]], "routes": routed["routes"]});
        cases.push(host_local(&name, ranges).version(version));
    }
    cases.extend(["0.1.0", "0.2.0"].map(|version| {
        bridge_l2(&format!("version-{version}-l2"), json!({})).version(version).fails(7)
    }));
    cases.extend([
        bridge_l2("version-0.3.1-l2", json!({})).version("0.3.1"),
        bridge("version-missing", json!({"cniVersion": null}))
            .steps(vec![step("ADD"), step("DEL")]),
        bridge("version-empty", json!({"cniVersion": ""})).steps(vec![step("ADD"), step("DEL")]),
        bridge("version-unknown", json!({"cniVersion": "9.9.9"})).steps(refused(1)),
        bridge("version-between", json!({"cniVersion": "0.3.2"})).steps(refused(1)),
        bridge("version-rubbish", json!({"cniVersion": "rubbish"})).steps(refused(1)),
        bridge("version-two-parts", json!({"cniVersion": "1.0"})).steps(refused(1)),
        bridge("version-a-number", json!({"cniVersion": 1})).steps(refused(6)),
        bridge("version-rubbish-in-check", json!({"cniVersion": "rubbish"}))
            .steps(vec![step("CHECK").fails(6)]),
        bridge("version-rubbish-in-status", json!({"cniVersion": "rubbish"}))
            .steps(vec![step("STATUS").fails(6)]),
        bridge("version-unknown-in-check", json!({"cniVersion": "9.9.9"}))
            .steps(vec![step("CHECK").fails(1)]),
        bridge("version-unknown-in-gc", json!({"cniVersion": "9.9.9"}))
            .steps(vec![step("GC").fails(1)]),
    ]);
    cases
}

fn refused(code: u64) -> Vec<crate::case::Step> {
    vec![step("ADD").fails(code), step("DEL").fails(code)]
}
