//! What stands on stdin.

use serde_json::json;

use super::{bridge, host_local};
use crate::case::{Case, Expect, step};

/// ADD and DEL with these bytes, which both must refuse.
fn refused(name: &str, stdin: &'static str, code: u64) -> Case {
    bridge(&format!("stdin-{name}"), json!({}))
        .steps(vec![step("ADD").stdin(stdin).fails(code), step("DEL").stdin(stdin).fails(code)])
}

/// A wrong value of one key of bridge.
fn wrong(key: &str, value: serde_json::Value) -> Case {
    bridge(&format!("type-{key}"), json!({key: value})).fails(6)
}

pub(super) fn cases() -> Vec<Case> {
    [documents(), types(), keys()].concat()
}

fn documents() -> Vec<Case> {
    vec![
        refused("empty", "", 6),
        refused("rubbish", "rubbish", 6),
        refused("cut-off", r#"{"cniVersion":"1.0.0","name":"net1""#, 6),
        refused("list", "[]", 6),
        refused("number", "7", 6),
        refused("two-documents", r#"{"cniVersion":"1.0.0","name":"net1","type":"bridge"} {}"#, 6),
        refused("no-name", r#"{"cniVersion":"1.0.0","type":"bridge"}"#, 7),
        refused("empty-name", r#"{"cniVersion":"1.0.0","name":"","type":"bridge"}"#, 7),
        refused("bad-name", r#"{"cniVersion":"1.0.0","name":"a/b","type":"bridge"}"#, 7),
        refused(
            "name-starts-with-a-dot",
            r#"{"cniVersion":"1.0.0","name":".a","type":"bridge"}"#,
            7,
        ),
        refused("name-a-number", r#"{"cniVersion":"1.0.0","name":1,"type":"bridge"}"#, 6),
    ]
}

fn types() -> Vec<Case> {
    vec![
        wrong("isGateway", json!("yes")),
        wrong("bridge", json!(7)),
        wrong("mtu", json!("1400")),
        bridge("type-mtu-a-fraction", json!({"mtu": 1.5})).fails(6),
        wrong("ipMasq", json!(1)),
        wrong("ipMasqBackend", json!(true)),
        wrong("vlan", json!("100")),
        wrong("vlanTrunk", json!({"id": 1})),
        wrong("runtimeConfig", json!([])),
        wrong("dns", json!({"nameservers": "10.1.0.1"})),
        wrong("ipam", json!("host-local")),
        wrong("args", json!("x")),
        wrong("prevResult", json!([])),
    ]
}

fn keys() -> Vec<Case> {
    let twice = r#"{"cniVersion":"1.0.0","name":"net1","type":"bridge","bridge":"other0","bridge":"br0","isGateway":false,
        "isGateway":true,"ipam":{"type":"host-local","dataDir":"$DATA","ranges":[[{"subnet":"10.1.0.0/24"}]]}}"#;
    vec![
        bridge("keys-in-capitals", json!({"isGateway": null, "ISGATEWAY": true, "Mtu": 1400})),
        bridge("keys-exact-beats-other-case", json!({"MTU": 1300, "mtu": 1400})),
        bridge("keys-null", json!({"bridge": "br0"}))
            .steps(vec![step("ADD").stdin(NULLS), step("DEL").stdin(NULLS)]),
        bridge(
            "keys-unknown",
            json!({"isGatway": true, "capabilities": {"mac": true}, "x": [1, {}]}),
        ),
        bridge("keys-twice", json!({}))
            .steps(vec![step("ADD").stdin(twice), step("DEL").stdin(twice)]),
        host_local(
            "keys-ipam-type-missing",
            json!({"type": null, "ranges": [[{"subnet": "10.1.0.0/24"}]]}),
        )
        .steps(vec![step("ADD").expect(Expect::Agree), step("DEL").expect(Expect::Agree)]),
    ]
}

const NULLS: &str = r#"{"cniVersion":"1.0.0","name":"net1","type":"bridge","bridge":"br0","isGateway":null,"mtu":null,
    "ipMasq":null,"vlan":null,"vlanTrunk":null,"args":null,"runtimeConfig":null,"dns":null,"prevResult":null,
    "ipam":{"type":"host-local","dataDir":"$DATA","ranges":[[{"subnet":"10.1.0.0/24"}]],"routes":null}}"#;
