//! firewall, behind a plugin whose result is made up.

use serde_json::{Value, json};

use crate::case::{Case, Expect, Step, merge, step};

/// What a bridge would have answered for a container.
fn result(address: &str) -> Value {
    let addresses = address.split(' ').map(|it| json!({"address": it, "interface": 1}));
    json!({"cniVersion": "1.0.0", "interfaces": [{"name": "br0"}, {"name": "eth0", "sandbox": "$POD"}],
        "ips": addresses.collect::<Vec<_>>()})
}

const V4: &str = "10.1.0.2/24";
const V6: &str = "fd00:1::2/64";
const DUAL: &str = "10.1.0.2/24 fd00:1::2/64";
/// The node's programs have been asked about what is forwarded.
const USES_IPTABLES: &str = "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP";

/// A container of both families, by iptables.
fn firewall(name: &str, keys: &Value) -> Case {
    let mut conf = json!({"backend": "iptables", "prevResult": result(DUAL)});
    merge(&mut conf, keys);
    Case::new(&format!("firewall/{name}"), "firewall", conf)
}

pub(super) fn cases() -> Vec<Case> {
    [
        addresses(),
        keys(),
        refusals(),
        backends(),
        versions(),
        containers(),
        policies(),
        deletions(),
        checks(),
    ]
    .concat()
}

fn addresses() -> Vec<Case> {
    let of = |name: &str, address: &str| firewall(name, &json!({"prevResult": result(address)}));
    let foreign = json!({"cniVersion": "1.0.0", "interfaces": [{"name": "br0"}, {"name": "net1", "sandbox": "/n"}],
        "ips": [{"address": "10.9.0.9/24", "interface": 1}, {"address": "10.1.0.1/24", "interface": 0},
                {"address": "10.1.0.2/24"}, {"address": "fd00:1::2/64"}]});
    vec![
        of("v4", V4),
        of("v6", V6),
        of("dual", DUAL),
        of("several", "10.1.0.2/24 10.1.0.3/24 fd00:1::2/64 fd00:1::3/64"),
        of("host-prefixes", "10.1.0.2/32 fd00:1::2/128"),
        firewall("others-addresses", &json!({"prevResult": foreign})),
        firewall("no-addresses", &json!({"prevResult": {"cniVersion": "1.0.0", "ips": []}})),
        of("among-others", DUAL).on_node(
            "iptables -A FORWARD -s 192.0.2.0/24 -j DROP; iptables -N DOCKER-USER; iptables -I FORWARD -j DOCKER-USER
             ip6tables -A FORWARD -j REJECT",
        ),
        of("where-others-made-what-is-shared", DUAL)
            .on_node("iptables -N CNI-FORWARD; iptables -N CNI-ADMIN; ip6tables -N CNI-ADMIN"),
        of("where-the-jump-is-gone", DUAL)
            .on_node("iptables -N CNI-FORWARD; iptables -A CNI-FORWARD -s 10.1.0.9/32 -j ACCEPT"),
    ]
}

fn keys() -> Vec<Case> {
    vec![
        firewall("admin-chain", &json!({"iptablesAdminChainName": "MY-RULES"})),
        firewall("admin-chain-of-the-node", &json!({"iptablesAdminChainName": "MY-RULES"}))
            .on_node("iptables -N MY-RULES; iptables -A MY-RULES -s 10.1.0.0/24 -j DROP"),
        firewall(
            "empty-keys",
            &json!({"iptablesAdminChainName": "", "firewalldZone": "", "ingressPolicy": ""}),
        ),
        firewall(
            "null-keys",
            &json!({"iptablesAdminChainName": null, "firewalldZone": null, "ingressPolicy": null}),
        ),
        firewall("zone-does-not-matter", &json!({"firewalldZone": "public"})),
    ]
}

fn refusals() -> Vec<Case> {
    vec![
        firewall("result-missing", &json!({"prevResult": null})).fails(7),
        firewall("policy-is-number", &json!({"ingressPolicy": 1})).fails(6),
        firewall("policy-unknown", &json!({"ingressPolicy": "closed"})).fails(7),
        firewall(
            "policy-without-bridge",
            &json!({"ingressPolicy": "isolated",
            "prevResult": {"cniVersion": "1.0.0", "interfaces": [], "ips": [{"address": V4}]}}),
        )
        .fails(7),
        firewall("backend-unknown", &json!({"backend": "pf"}))
            .refused(7, "firewall-unknown-backend"),
        firewall("backend-is-number", &json!({"backend": 4})).fails(6),
        firewall(
            "admin-chain-too-long",
            &json!({"iptablesAdminChainName": "A-NAME-THAT-IS-LONGER-THAN-28-CHARACTERS"}),
        )
        .fails(7),
        firewall("admin-chain-built-in", &json!({"iptablesAdminChainName": "FORWARD"})).fails(7),
        admin_chain_is_a_verdict("v4", V4),
        admin_chain_is_a_verdict("v6", V6),
        firewall("admin-chain-is-the-plugins", &json!({"iptablesAdminChainName": "CNI-FORWARD"}))
            .fails(7),
        firewall("iptables-missing", &json!({})).env("PATH", "/nonexistent").fails(103),
        firewall("firewalld-missing", &json!({"backend": "firewalld"})).fails(5),
    ]
}

/// The program refuses it, not the plugin. Of one family: of two, the reference takes now one first,
/// now the other.
fn admin_chain_is_a_verdict(family: &str, address: &str) -> Case {
    let name = format!("admin-chain-is-a-verdict-{family}");
    firewall(&name, &json!({"iptablesAdminChainName": "ACCEPT", "prevResult": result(address)}))
        .fails(7)
}

fn backends() -> Vec<Case> {
    let unset = |name: &str| firewall(&format!("backend-unset{name}"), &json!({"backend": null}));
    vec![
        unset("").on_node(USES_IPTABLES),
        unset("-empty").with(json!({"backend": ""})).on_node(USES_IPTABLES),
        unset("-among-six-alone").on_node("ip6tables -P FORWARD DROP"),
        unset("-where-nobody-filters"),
        unset("-without-programs").env("PATH", "/nonexistent").better("firewall-without-programs"),
        // The reference knows of no such backend.
        firewall("nftables-where-iptables-drops", &json!({"backend": "nftables"}))
            .on_node(USES_IPTABLES),
        firewall("nftables-where-nobody-drops", &json!({"backend": "nftables"})),
        firewall("nftables-policy", &json!({"backend": "nftables", "ingressPolicy": "isolated"})),
    ]
}

/// The result of the plugin before has the shape of its version.
fn versions() -> Vec<Case> {
    let of = |version: &str| {
        let mut result = match version {
            "0.1.0" | "0.2.0" => json!({"ip4": {"ip": V4}, "ip6": {"ip": V6}}),
            "0.3.0" | "0.3.1" | "0.4.0" => {
                json!({"interfaces": [{"name": "br0"}], "ips": [{"version": "4", "address": V4}]})
            }
            _ => json!({"interfaces": [{"name": "br0"}], "ips": [{"address": V4}]}),
        };
        result["cniVersion"] = json!(version);
        firewall(&format!("version-{version}"), &json!({"prevResult": result})).version(version)
    };
    let known = ["0.4.0", "1.0.0", "1.1.0"].map(of);
    // The reference's firewall speaks no older ones.
    let older = ["0.1.0", "0.2.0", "0.3.0", "0.3.1"]
        .map(|version| of(version).better("firewall-speaks-every-version"));
    known.into_iter().chain(older).collect()
}

/// The second container, at another address.
fn second(step: Step) -> Step {
    step.pod(1).patch(json!({"prevResult": result("10.1.0.3/24")}))
}

fn containers() -> Vec<Case> {
    let named = |name: &str| firewall(name, &json!({"prevResult": result(V4)}));
    vec![
        named("two-containers").steps(vec![
            step("ADD"),
            second(step("ADD")),
            step("CHECK"),
            second(step("CHECK")),
            step("DEL"),
            second(step("CHECK")),
            second(step("DEL")),
        ]),
        named("added-twice").steps(vec![step("ADD"), step("ADD"), step("CHECK"), step("DEL")]),
        named("added-again-with-another-address").steps(vec![
            step("ADD"),
            step("ADD").patch(json!({"prevResult": result("10.1.0.7/24")})),
            step("CHECK").patch(json!({"prevResult": result("10.1.0.7/24")})),
            step("DEL").patch(json!({"prevResult": result("10.1.0.7/24")})),
        ]),
        // The first one's DEL comes when its address is another's.
        named("one-address-after-the-other").steps(vec![
            step("ADD"),
            step("ADD").pod(1),
            step("DEL"),
            step("CHECK").pod(1).expect(Expect::OnlyPodwire("firewall-whose-an-address-is")),
            step("DEL").pod(1),
        ]),
    ]
}

fn policies() -> Vec<Case> {
    let with = |name: &str, policy: &str| {
        firewall(&format!("policy-{name}"), &json!({"ingressPolicy": policy}))
    };
    let on = |bridge: &str, policy: &str| {
        let mut result = result("10.2.0.2/24");
        result["interfaces"][0]["name"] = json!(bridge);
        json!({"prevResult": result, "ingressPolicy": policy})
    };
    vec![
        with("open", "open"),
        with("same-bridge", "same-bridge"),
        with("isolated", "isolated"),
        with("v4", "isolated").with(json!({"prevResult": result(V4)})),
        with("added-twice", "isolated").steps(vec![step("ADD"), step("ADD"), step("CHECK")]),
        with("two-bridges", "same-bridge").steps(vec![
            step("ADD"),
            step("ADD").pod(1).patch(on("br1", "same-bridge")),
            step("CHECK"),
            step("CHECK").pod(1).patch(on("br1", "same-bridge")),
            step("DEL"),
            step("DEL").pod(1).patch(on("br1", "same-bridge")),
        ]),
        with("of-each-kind", "same-bridge").steps(vec![
            step("ADD"),
            step("ADD").pod(1).patch(on("br1", "isolated")),
            step("DEL").pod(1).patch(on("br1", "isolated")),
            step("DEL"),
        ]),
        with("among-others", "isolated").on_node(
            "iptables -N DOCKER-USER; iptables -I FORWARD -j DOCKER-USER; ip6tables -A FORWARD -j REJECT",
        ),
    ]
}

fn deletions() -> Vec<Case> {
    let ends = |name: &str, del: Step| {
        firewall(&format!("del-{name}"), &json!({})).steps(vec![step("ADD"), del.clone(), del])
    };
    vec![
        ends("without-netns", step("DEL").unset("CNI_NETNS")),
        ends("vanished-netns", step("DEL").env("CNI_NETNS", "/run/netns/vanished")),
        ends("without-result", step("DEL").patch(json!({"prevResult": null}))),
        ends("with-less", step("DEL").patch(json!({"prevResult": result(V4)}))),
        ends("by-another-backend", step("DEL").patch(json!({"backend": "nftables"}))),
        ends("by-an-unknown-backend", step("DEL").patch(json!({"backend": "pf"}))),
        ends("rules-are-gone", step("DEL").before("iptables -F CNI-FORWARD")),
        ends(
            "all-is-gone",
            step("DEL").before("iptables -F; iptables -X; ip6tables -F; ip6tables -X"),
        ),
        firewall("del-never-added", &json!({})).steps(vec![step("DEL"), step("DEL")]),
        firewall("gc-one-stale", &json!({"prevResult": result(V4)})).steps(vec![
            step("ADD"),
            second(step("ADD")),
            step("GC").patch(json!({"cniVersion": "1.1.0",
                "cni.dev/valid-attachments": [{"containerID": "cid1", "ifname": "eth0"}]})),
            step("CHECK"),
            step("DEL"),
        ]),
        firewall("gc-all-stale", &json!({})).steps(vec![
            step("ADD"),
            step("GC").patch(json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": []})),
            step("DEL"),
        ]),
        firewall("gc-of-another-network", &json!({})).steps(vec![
            step("ADD"),
            step("GC").patch(
                json!({"cniVersion": "1.1.0", "name": "net2", "cni.dev/valid-attachments": []}),
            ),
            step("CHECK"),
            step("DEL"),
        ]),
    ]
}

fn checks() -> Vec<Case> {
    let changed = |name: &str, line: &'static str| {
        firewall(&format!("check-{name}"), &json!({})).steps(vec![
            step("ADD"),
            step("CHECK").before(line).fails(102),
            step("DEL"),
        ])
    };
    let only_ours = |name: &str, line: &'static str, policy: &str| {
        firewall(&format!("check-{name}"), &json!({"ingressPolicy": policy})).steps(vec![
            step("ADD"),
            step("CHECK")
                .before(line)
                .expect(Expect::OnlyReference(102, "firewall-check-of-the-way")),
            step("DEL"),
        ])
    };
    let status = |case: Case, expect: Expect| {
        case.with(json!({"cniVersion": "1.1.0"})).steps(vec![step("STATUS").expect(expect)])
    };
    vec![
        changed("rules-are-gone", "iptables -F CNI-FORWARD"),
        changed("v6-rules-are-gone", "ip6tables -F CNI-FORWARD"),
        changed("one-rule-is-gone", "iptables -D CNI-FORWARD -s 10.1.0.2 -j ACCEPT"),
        changed("jump-is-gone", "iptables -F FORWARD"),
        changed("chains-are-gone", "iptables -F; iptables -X"),
        only_ours("isolation-is-gone", "iptables -F CNI-ISOLATION-STAGE-1", "isolated"),
        only_ours("isolation-is-not-asked", "iptables -D FORWARD 1", "same-bridge"),
        firewall("check-without-result", &json!({})).steps(vec![
            step("ADD"),
            step("CHECK").patch(json!({"prevResult": null})).fails(7),
            step("DEL"),
        ]),
        firewall("check-another-address", &json!({})).steps(vec![
            step("ADD"),
            step("CHECK").patch(json!({"prevResult": result("10.1.0.9/24")})).fails(102),
            step("DEL"),
        ]),
        status(firewall("status", &json!({})), Expect::Same),
        status(firewall("status-nftables", &json!({"backend": "nftables"})), Expect::Same),
        firewall("status-without-iptables", &json!({"cniVersion": "1.1.0"})).steps(vec![
            step("STATUS")
                .env("PATH", "/nonexistent")
                .expect(Expect::OnlyReference(50, "firewall-status")),
        ]),
    ]
}
