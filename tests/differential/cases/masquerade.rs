//! ipMasq of bridge and ptp.

use serde_json::{Value, json};

use super::{bridge, dual, ptp, v6};
use crate::case::{Case, Expect, Step, step};

/// What a bridge with masquerade has.
fn masq(keys: Value) -> Value {
    let mut conf = json!({"isGateway": true, "ipMasq": true, "ipMasqBackend": "iptables"});
    crate::case::merge(&mut conf, &keys);
    conf
}

/// By nf_tables.
fn nft(keys: Value) -> Value {
    let mut conf = json!({"ipMasqBackend": "nftables"});
    crate::case::merge(&mut conf, &keys);
    conf
}

pub(super) fn cases() -> Vec<Case> {
    [backends(), rules_in_the_way(), deletions()].concat()
}

fn backends() -> Vec<Case> {
    vec![
        bridge("masq", masq(json!({}))),
        bridge("masq-v6", masq(json!({"ipam": v6()}))),
        bridge("masq-dual", masq(json!({"ipam": dual()}))),
        bridge("masq-without-gateway", json!({"ipMasq": true, "ipMasqBackend": "iptables"})),
        // As the node has it.
        bridge("masq-backend-unset", masq(json!({"ipMasqBackend": null, "ipam": dual()}))),
        bridge("masq-backend-unset-among-iptables", masq(json!({"ipMasqBackend": null})))
            .on_node("iptables -t nat -N CNI-0123456789abcdef01234567"),
        bridge("masq-backend-unset-among-six", masq(json!({"ipMasqBackend": null})))
            .on_node("ip6tables -t nat -N CNI-0123456789abcdef01234567"),
        bridge("masq-backend-nftables", masq(nft(json!({})))),
        bridge("masq-backend-nftables-dual", masq(nft(json!({"ipam": dual()})))),
        bridge("masq-backend-unknown", masq(json!({"ipMasqBackend": "pf"}))).fails(7),
        bridge("masq-off", json!({"isGateway": true, "ipMasq": false})),
        bridge(
            "masq-long-names",
            masq(json!({"name": "a-rather.long_name-for-a-network-0123456789"})),
        )
        .env("CNI_CONTAINERID", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ptp("masq", masq(json!({"isGateway": null}))),
        ptp("masq-dual", masq(json!({"isGateway": null, "ipam": dual()}))),
        ptp("masq-backend-nftables", masq(nft(json!({"isGateway": null, "ipam": dual()})))),
        ptp("masq-backend-unknown", json!({"ipMasq": true, "ipMasqBackend": "pf"})).fails(7),
        bridge("masq-iptables-without-it", masq(json!({}))).fails(103).env("PATH", "/nonexistent"),
        bridge("masq-without-programs", masq(json!({"ipMasqBackend": null})))
            .better("masquerades-without-programs")
            .env("PATH", "/nonexistent"),
        bridge("no-masq-without-iptables", json!({"isGateway": true})).env("PATH", "/nonexistent"),
    ]
}

fn rules_in_the_way() -> Vec<Case> {
    vec![
        bridge("masq-among-others", masq(json!({})))
            .on_node("iptables -t nat -A POSTROUTING -s 192.0.2.0/24 -j MASQUERADE; iptables -A FORWARD -j ACCEPT"),
        bridge("masq-nftables-among-others", masq(nft(json!({}))))
            .on_node("nft add table inet mine; nft add chain inet mine c; nft add rule inet mine c counter"),
        bridge("masq-nftables-two-interfaces", masq(nft(json!({"ipam": dual()})))).steps(vec![
            step("ADD"),
            net1(step("ADD")),
            step("DEL"),
            net1(step("DEL")),
        ]),
        bridge("masq-stale-chain", masq(json!({}))).on_node(STALE_CHAIN),
        bridge("masq-legacy-rule", masq(json!({}))).steps(vec![
            step("ADD"),
            step("DEL").before(LEGACY_RULE),
        ]),
        bridge("masq-chain-is-gone", masq(json!({}))).steps(vec![
            step("ADD"),
            step("DEL").before("iptables -t nat -F; iptables -t nat -X"),
        ]),
        bridge("masq-jump-is-gone", masq(json!({}))).steps(vec![
            step("ADD"),
            step("DEL").before("iptables -t nat -F POSTROUTING"),
        ]),
        bridge("masq-two-interfaces", masq(json!({"ipam": dual()}))).steps(vec![
            step("ADD"),
            net1(step("ADD")),
            step("DEL").expect(Expect::OnlyPodwire("shared-masquerade-chain")),
            net1(step("DEL")),
        ]),
    ]
}

/// The chain of network `net1` and container `cid1`, left by an earlier life with an old rule.
const STALE_CHAIN: &str = "iptables -t nat -N CNI-e8f6f419596f7f47b3468487; \
    iptables -t nat -A CNI-e8f6f419596f7f47b3468487 -d 10.77.0.0/24 -j ACCEPT";

/// The jump as releases before 0.8 wrote it: with the prefix of the subnet.
const LEGACY_RULE: &str = "iptables -t nat -A POSTROUTING -s 10.1.0.2/24 \
    -m comment --comment 'name: \"net1\" id: \"cid1\"' -j CNI-e8f6f419596f7f47b3468487";

fn net1(step: Step) -> Step {
    step.env("CNI_IFNAME", "net1")
}

fn deletions() -> Vec<Case> {
    let gone = "/run/netns/vanished";
    let ends = |del: Step| vec![step("ADD"), del.clone(), del];
    vec![
        bridge("masq-del-without-netns", masq(json!({"ipam": dual()}))).steps(ends(step("DEL").unset("CNI_NETNS"))),
        bridge("masq-del-empty-netns", masq(json!({}))).steps(ends(step("DEL").env("CNI_NETNS", ""))),
        bridge("masq-del-vanished-netns", masq(json!({"ipam": dual()})))
            .steps(ends(step("DEL").env("CNI_NETNS", gone))),
        bridge("masq-del-link-is-gone", masq(json!({}))).steps(vec![
            step("ADD"),
            step("DEL").before("ip -o link | sed -n 's/.* \\(veth[0-9a-f]*\\)@.*/\\1/p' | xargs -r -n1 ip link del"),
        ]),
        bridge("masq-nftables-del-without-netns", masq(nft(json!({"ipam": dual()}))))
            .steps(ends(step("DEL").unset("CNI_NETNS"))),
        ptp("masq-nftables-del-vanished-netns", json!({"ipMasq": true, "ipMasqBackend": "nftables"}))
            .steps(ends(step("DEL").env("CNI_NETNS", gone))),
        ptp("masq-del-without-netns", masq(json!({"isGateway": null, "ipam": dual()})))
            .steps(ends(step("DEL").unset("CNI_NETNS"))),
        ptp("masq-del-vanished-netns", masq(json!({"isGateway": null}))).steps(ends(step("DEL").env("CNI_NETNS", gone))),
    ]
}
