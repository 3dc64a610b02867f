//! host-local: configurations that are wrong, and DEL and CHECK of what is not there.

use serde_json::{Value, json};

use super::host_local;
use crate::case::{Case, Expect, step};

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = wrong_ranges()
        .into_iter()
        .map(|(name, ranges)| host_local(name, json!({"ranges": ranges})).fails(7))
        .collect();
    cases.extend(wrong_configurations());
    cases.extend(not_there());
    cases
}

fn wrong_ranges() -> Vec<(&'static str, Value)> {
    let range = |keys: Value| {
        let mut range = json!({"subnet": "10.1.0.0/24"});
        crate::case::merge(&mut range, &keys);
        json!([[range]])
    };
    vec![
        ("slash-31", range(json!({"subnet": "10.1.0.0/31"}))),
        ("slash-32", range(json!({"subnet": "10.1.0.1/32"}))),
        ("slash-127", range(json!({"subnet": "fd00::/127"}))),
        ("host-bits", range(json!({"subnet": "10.1.0.5/24"}))),
        ("start-outside", range(json!({"rangeStart": "10.2.0.5"}))),
        ("end-outside", range(json!({"rangeEnd": "10.2.0.5"}))),
        ("start-after-end", range(json!({"rangeStart": "10.1.0.60", "rangeEnd": "10.1.0.50"}))),
        ("start-of-the-other-family", range(json!({"rangeStart": "fd00::1"}))),
        ("start-rubbish", range(json!({"rangeStart": "10.1.0.300"}))),
        ("subnet-rubbish", range(json!({"subnet": "rubbish"}))),
        ("subnet-missing", json!([[{}]])),
        ("empty-set", json!([[]])),
        ("empty-ranges", json!([])),
        ("mixed-families", json!([[{"subnet": "10.1.0.0/24"}, {"subnet": "fd00::/64"}]])),
        ("overlap-within-a-set", json!([[{"subnet": "10.1.0.0/24"}, {"subnet": "10.1.0.0/25"}]])),
        ("overlap-of-sets", json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.1.0.0/16"}]])),
    ]
}

fn wrong_configurations() -> Vec<Case> {
    let good = || json!({"ranges": [[{"subnet": "10.1.0.0/24"}]]});
    let two = || json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]});
    vec![
        host_local("no-ipam", good()).with(json!({"ipam": null})).fails(7),
        host_local("no-ranges", json!({})).fails(7),
        host_local("two-of-a-family-0.2.0", two()).version("0.2.0").fails(7),
        host_local("two-of-a-family-0.1.0", two()).version("0.1.0").fails(7),
        host_local("two-of-a-family-0.3.1", two()).version("0.3.1"),
        host_local(
            "gateway-of-the-other-family",
            json!({"ranges": [[{"subnet": "10.1.0.0/24", "gateway": "fd00::1"}]]}),
        )
        .refused(7, "gateway-of-the-other-family"),
        host_local("ranges-not-a-list", json!({"ranges": {"subnet": "10.1.0.0/24"}})).fails(6),
        host_local("ranges-not-nested", json!({"ranges": [{"subnet": "10.1.0.0/24"}]})).fails(6),
        host_local("subnet-a-number", json!({"ranges": [[{"subnet": 10}]]})).fails(6),
        host_local(
            "routes-not-a-list",
            json!({"ranges": [[{"subnet": "10.1.0.0/24"}]], "routes": "0.0.0.0/0"}),
        )
        .fails(6),
        host_local(
            "route-without-destination",
            json!({"ranges": [[{"subnet": "10.1.0.0/24"}]], "routes": [{}]}),
        )
        .refused(7, "route-without-destination"),
        host_local(
            "keys-in-capitals",
            json!({"RANGES": [[{"SUBNET": "10.1.0.0/24", "rangestart": "10.1.0.9"}]]}),
        ),
        host_local(
            "null-keys",
            json!({"ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": null, "gateway": null}]],
            "routes": null}),
        ),
        host_local(
            "empty-strings",
            json!({"ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "", "gateway": ""}]]}),
        ),
    ]
}

fn not_there() -> Vec<Case> {
    let good = |name: &str| host_local(name, json!({"ranges": [[{"subnet": "10.1.0.0/24"}]]}));
    vec![
        good("del-never-added").steps(vec![step("DEL"), step("DEL")]),
        good("check-never-added").steps(vec![step("CHECK").fails(102)]),
        good("check-after-del").steps(vec![step("ADD"), step("DEL"), step("CHECK").fails(102)]),
        good("del-of-another-container").steps(vec![
            step("ADD"),
            step("DEL").env("CNI_CONTAINERID", "other"),
            step("DEL").env("CNI_IFNAME", "net9"),
            step("CHECK"),
            step("DEL"),
        ]),
        good("del-without-netns").steps(vec![step("ADD"), step("DEL").unset("CNI_NETNS")]),
        good("del-with-bad-ranges").steps(vec![
            step("ADD"),
            step("DEL")
                .patch(json!({"ipam": {"type": "host-local", "dataDir": "$DATA"}}))
                .expect(Expect::OnlyPodwire("del-to-the-fullest")),
            step("DEL"),
        ]),
        good("del-with-other-ranges").steps(vec![
            step("ADD"),
            step("DEL").patch(json!({"ipam": {"type": "host-local", "dataDir": "$DATA",
                "ranges": [[{"subnet": "10.5.0.0/24"}]]}})),
        ]),
    ]
}
