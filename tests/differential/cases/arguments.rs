//! CNI_ARGS.

use serde_json::json;

use super::{bridge, bridge_l2, host_local, static_ipam};
use crate::case::Case;

pub(super) fn cases() -> Vec<Case> {
    let good = [
        ("empty", ""),
        ("unknown-ignored", "IgnoreUnknown=1;FOO=bar"),
        ("unknown-ignored-by-true", "IgnoreUnknown=TRUE;FOO=bar"),
        ("unknown-ignored-later", "FOO=bar;IgnoreUnknown=true"),
        (
            "kubernetes",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_UID=1-2",
        ),
        ("ip-goes-to-ipam", "IgnoreUnknown=1;IP=10.1.0.44"),
    ];
    let bad = [
        ("unknown", "FOO=bar"),
        ("unknown-not-ignored", "IgnoreUnknown=0;FOO=bar"),
        ("no-value", "IgnoreUnknown=1;FOO"),
        ("two-equal-signs", "IgnoreUnknown=1;FOO=a=b"),
        ("trailing-semicolon", "IgnoreUnknown=1;"),
        ("ignore-unknown-yes", "IgnoreUnknown=yes"),
        ("lower-case", "mac=02:11:22:00:00:07"),
        ("ip-is-unknown-to-bridge", "IP=10.1.0.44"),
    ];
    let named = |name: &str| bridge(&format!("args-{name}"), json!({}));
    let mut cases: Vec<Case> = good.map(|(name, args)| named(name).env("CNI_ARGS", args)).into();
    // The environment has to be there before the expectation, which copies it.
    cases.extend(bad.map(|(name, args)| named(name).env("CNI_ARGS", args).fails(4)));
    let ranges = json!({"ranges": [[{"subnet": "10.1.0.0/24"}]]});
    cases.extend([
        bridge_l2("args-l2-mac", json!({}))
            .env("CNI_ARGS", "IgnoreUnknown=1;MAC=02:11:22:00:00:07")
            .better_check("bridge-l2-check"),
        host_local("args-unknown", ranges.clone()).env("CNI_ARGS", "FOO=bar").fails(4),
        host_local("args-two-ips", ranges.clone())
            .env("CNI_ARGS", "IP=10.1.0.44,10.1.0.45")
            .fails(4),
        host_local("args-gateway-is-unknown", ranges).env("CNI_ARGS", "GATEWAY=10.1.0.1").fails(4),
        static_ipam("args-unknown", json!({})).env("CNI_ARGS", "FOO=bar").fails(4),
        Case::new("loopback/args-are-not-read", "loopback", json!({})).env("CNI_ARGS", "FOO"),
    ]);
    cases
}
