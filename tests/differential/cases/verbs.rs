//! CHECK that must fail, GC, STATUS and VERSION.

use serde_json::{Value, json};

use super::{bridge, dual, host_local, ptp, static_ipam};
use crate::case::{Case, step};

pub(super) fn cases() -> Vec<Case> {
    [failing_checks(), collections(), status(), version()].concat()
}

/// ADD, a change by somebody else, and a CHECK that must see it.
fn changed(name: &str, line: &'static str) -> Case {
    bridge(name, json!({"isDefaultGateway": true})).steps(vec![
        step("ADD"),
        step("CHECK").before(line).fails(102),
        step("DEL"),
    ])
}

fn failing_checks() -> Vec<Case> {
    let checked = |name: &str, check: Value| {
        bridge(name, json!({"isGateway": true})).steps(vec![
            step("ADD"),
            step("CHECK").patch(check).fails(7),
            step("DEL"),
        ])
    };
    vec![
        changed("check-bridge-gone", "ip link del br0"),
        changed("check-bridge-mac", "ip link set br0 address 02:11:22:00:00:99"),
        changed(
            "check-port-gone",
            "ip link set $(bridge link | sed -n 's/.*: \\(veth[0-9a-f]*\\)@.*/\\1/p') nomaster",
        ),
        changed("check-lease-gone", "rm $DATA/net1/10.1.0.2"),
        checked("check-without-result", json!({"prevResult": null})),
        checked(
            "check-result-of-another-family",
            json!({"prevResult": {"cniVersion": "0.4.0", "ips": []}}),
        ),
        checked(
            "check-result-is-rubbish",
            json!({"prevResult": {"ips": [{"address": "rubbish"}]}}),
        ),
        bridge("check-other-container", json!({})).steps(vec![
            step("ADD"),
            step("CHECK").env("CNI_CONTAINERID", "other").fails(102),
            step("DEL"),
        ]),
        bridge("check-other-sandbox", json!({})).steps(vec![
            step("ADD"),
            step("ADD").pod(1),
            step("CHECK").pod(1).env("CNI_NETNS", "$POD").fails(102),
            step("DEL").pod(1),
            step("DEL"),
        ]),
        bridge("check-vanished-netns", json!({})).steps(vec![
            step("ADD"),
            step("CHECK").env("CNI_NETNS", "/run/netns/vanished").fails(8),
            step("DEL"),
        ]),
        bridge("check-0.3.1", json!({"cniVersion": "0.3.1"})).steps(vec![
            step("ADD"),
            step("CHECK").fails(1),
            step("DEL"),
        ]),
        ptp("check-lease-gone", json!({})).steps(vec![
            step("ADD"),
            step("CHECK").before("rm $DATA/net1/10.1.0.2").fails(102),
            step("DEL"),
        ]),
        ptp("check-without-result", json!({})).steps(vec![
            step("ADD"),
            step("CHECK").patch(json!({"prevResult": null})).fails(7),
            step("DEL"),
        ]),
    ]
}

fn collections() -> Vec<Case> {
    let valid = json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": [{"containerID": "cid1", "ifname": "eth0"}]});
    let none = json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": []});
    vec![
        bridge(
            "gc-all-valid",
            json!({"isGateway": true, "ipMasq": true, "ipMasqBackend": "iptables"}),
        )
        .steps(vec![step("ADD"), step("GC").patch(valid.clone()), step("DEL")]),
        bridge(
            "gc-one-stale",
            json!({"isGateway": true, "ipMasq": true, "ipMasqBackend": "iptables", "ipam": dual()}),
        )
        .steps(vec![
            step("ADD"),
            step("ADD").pod(1),
            step("GC").patch(valid.clone()),
            step("DEL"),
            step("DEL").pod(1),
        ]),
        host_local("gc-all-stale", json!({"ranges": [[{"subnet": "10.1.0.0/24"}]]})).steps(vec![
            step("ADD"),
            step("GC").patch(none.clone()),
            step("DEL"),
        ]),
        static_ipam("gc", json!({})).steps(vec![step("GC").patch(none.clone())]),
        Case::new("loopback/gc", "loopback", json!({})).steps(vec![step("GC").patch(none)]),
        bridge("gc-without-attachments", json!({"cniVersion": "1.1.0"})).steps(vec![
            step("GC").expect(crate::case::Expect::OnlyReference(7, "gc-needs-the-list")),
        ]),
        bridge("gc-1.0.0", valid)
            .steps(vec![step("GC").patch(json!({"cniVersion": "1.0.0"})).fails(1)]),
    ]
}

fn status() -> Vec<Case> {
    let only = |case: Case, code: Option<u64>| {
        let status = step("STATUS");
        case.with(json!({"cniVersion": "1.1.0"}))
            .steps(vec![code.map_or(status.clone(), |code| status.fails(code))])
    };
    vec![
        only(bridge("status", json!({"isGateway": true})), None),
        only(bridge("status-without-ipam", json!({"ipam": null})), None),
        only(bridge("status-ipam-missing", json!({"ipam": {"type": "nosuch"}})), Some(50)),
        only(ptp("status", json!({})), None),
        only(ptp("status-without-ipam", json!({"ipam": null})), Some(7)),
        only(host_local("status", json!({"ranges": [[{"subnet": "10.1.0.0/24"}]]})), None),
        only(static_ipam("status", json!({})), None),
        only(Case::new("loopback/status", "loopback", json!({})), None),
        bridge("status-1.0.0", json!({})).steps(vec![step("STATUS").fails(1)]),
    ]
}

fn version() -> Vec<Case> {
    let plugins = ["bridge", "ptp", "loopback", "host-local", "static", "portmap", "tuning", "sbr"];
    plugins
        .into_iter()
        .map(|plugin| {
            Case::new(&format!("{plugin}/version"), plugin, json!({})).steps(vec![
                step("VERSION"),
                step("VERSION").stdin(""),
                step("VERSION").stdin("rubbish").unset("CNI_IFNAME").unset("CNI_CONTAINERID"),
                step("").unset("CNI_COMMAND"),
            ])
        })
        .collect()
}
