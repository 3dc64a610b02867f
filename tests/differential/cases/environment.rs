//! The environment: what is missing, malformed, or leads to the wrong place.

use serde_json::json;

use super::{bridge, host_local};
use crate::case::{Case, Step, step};

/// A case of one call.
fn call(name: &str, step: Step) -> Case {
    bridge(name, json!({})).steps(vec![step])
}

pub(super) fn cases() -> Vec<Case> {
    [missing(), malformed(), namespaces()].concat()
}

fn missing() -> Vec<Case> {
    let add = || step("ADD").fails(4);
    vec![
        call("env-no-container", add().unset("CNI_CONTAINERID")),
        call("env-no-netns", add().unset("CNI_NETNS")),
        call("env-no-ifname", add().unset("CNI_IFNAME")),
        call("env-no-path", add().unset("CNI_PATH")),
        call("env-empty-container", add().env("CNI_CONTAINERID", "")),
        call("env-empty-netns", add().env("CNI_NETNS", "")),
        call(
            "env-nothing",
            add().unset("CNI_CONTAINERID").unset("CNI_NETNS").unset("CNI_IFNAME").unset("CNI_PATH"),
        ),
        call("env-del-without-container", step("DEL").unset("CNI_CONTAINERID").fails(4)),
        call("env-check-without-netns", step("CHECK").unset("CNI_NETNS").fails(4)),
        call(
            "env-status-without-path",
            step("STATUS").patch(json!({"cniVersion": "1.1.0"})).unset("CNI_PATH").fails(4),
        ),
        call(
            "env-status-needs-little",
            step("STATUS")
                .patch(json!({"cniVersion": "1.1.0"}))
                .unset("CNI_CONTAINERID")
                .unset("CNI_NETNS")
                .unset("CNI_IFNAME"),
        ),
        host_local("env-no-netns", json!({"ranges": [[{"subnet": "10.1.0.0/24"}]]}))
            .steps(vec![step("ADD").unset("CNI_NETNS").fails(4)]),
    ]
}

fn malformed() -> Vec<Case> {
    let add = || step("ADD").fails(4);
    vec![
        call("env-bad-container", add().env("CNI_CONTAINERID", "a/b")),
        call("env-container-starts-with-a-dash", add().env("CNI_CONTAINERID", "-a")),
        call(
            "env-bad-container-beats-missing",
            add().env("CNI_CONTAINERID", "a b").unset("CNI_NETNS"),
        ),
        call("env-ifname-of-16-bytes", add().env("CNI_IFNAME", "abcdefghijklmnop")),
        call("env-ifname-dots", add().env("CNI_IFNAME", "..")),
        call("env-ifname-slash", add().env("CNI_IFNAME", "a/b")),
        call("env-ifname-colon", add().env("CNI_IFNAME", "a:b")),
        call("env-ifname-space", add().env("CNI_IFNAME", "a b")),
        call("env-unknown-command", step("FOO").fails(4)),
        call("env-lower-case-command", step("add").fails(4)),
        call("env-unknown-command-bad-stdin", step("FOO").stdin("rubbish").fails(6)),
        call("env-introduction", step("").unset("CNI_COMMAND")),
    ]
}

fn namespaces() -> Vec<Case> {
    vec![
        call("netns-vanished", step("ADD").env("CNI_NETNS", "/run/netns/vanished").fails(8)),
        call("netns-is-a-file", step("ADD").env("CNI_NETNS", "/etc/passwd").fails(8)),
        call("netns-is-a-directory", step("ADD").env("CNI_NETNS", "/tmp").fails(8)),
        call("netns-is-the-node-in-add", step("ADD").env("CNI_NETNS", "$NODE").fails(8)),
        call("netns-is-the-node", step("DEL").env("CNI_NETNS", "$NODE").fails(8)),
        call(
            "netns-is-a-file-in-del",
            step("DEL")
                .env("CNI_NETNS", "/etc/passwd")
                .expect(crate::case::Expect::OnlyPodwire("del-to-the-fullest")),
        ),
        call("netns-vanished-in-del", step("DEL").env("CNI_NETNS", "/run/netns/vanished")),
    ]
}
