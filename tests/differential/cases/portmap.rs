//! portmap, behind a plugin whose result is made up.

use serde_json::{Value, json};

use crate::case::{Case, Expect, Step, merge, step};

/// What a bridge would have answered for a container.
fn result(address: &str) -> Value {
    let addresses = address.split(' ').map(|it| json!({"address": it, "interface": 1}));
    json!({"cniVersion": "1.0.0", "interfaces": [{"name": "br0"}, {"name": "eth0", "sandbox": "$POD"}],
        "ips": addresses.collect::<Vec<_>>()})
}

const V4: &str = "10.1.0.2/24";
const DUAL: &str = "10.1.0.2/24 fd00:1::2/64";

fn mapping(protocol: &str, host_port: u32, container_port: u32) -> Value {
    json!({"hostPort": host_port, "containerPort": container_port, "protocol": protocol})
}

fn tcp() -> Value {
    json!([mapping("tcp", 8080, 80)])
}

fn published(mappings: &Value) -> Value {
    json!({"portMappings": mappings})
}

/// A container of both families with these ports, by iptables.
fn portmap(name: &str, mappings: &Value, keys: &Value) -> Case {
    let mut conf = json!({"backend": "iptables", "prevResult": result(DUAL), "runtimeConfig": published(mappings)});
    merge(&mut conf, keys);
    Case::new(&format!("portmap/{name}"), "portmap", conf)
}

fn by_nftables(name: &str, mappings: &Value, keys: &Value) -> Case {
    portmap(&format!("nftables-{name}"), mappings, &json!({"backend": "nftables"}))
        .with(keys.clone())
}

pub(super) fn cases() -> Vec<Case> {
    [
        mappings(),
        addresses(),
        masquerading(),
        conditions(),
        refusals(),
        backends(),
        versions(),
        containers(),
        deletions(),
        checks(),
        nftables(),
    ]
    .concat()
}

fn mappings() -> Vec<Case> {
    let none = json!({});
    let many = |count: u32, protocol: &str| {
        (0..count).map(|it| mapping(protocol, 9000 + it, 80 + it)).collect()
    };
    let mixed: Vec<Value> = [many(31, "tcp"), many(16, "udp"), many(1, "sctp")]
        .into_iter()
        .collect::<Vec<Vec<Value>>>()
        .concat();
    vec![
        portmap("tcp", &tcp(), &none),
        portmap("udp", &json!([mapping("udp", 53, 5353)]), &none),
        portmap("sctp", &json!([mapping("sctp", 3868, 3868)]), &none),
        portmap("upper-case", &json!([mapping("TCP", 8080, 80)]), &none),
        portmap(
            "several",
            &json!([mapping("udp", 53, 53), mapping("tcp", 53, 53), mapping("tcp", 80, 8080)]),
            &none,
        ),
        portmap(
            "same-container-port",
            &json!([mapping("tcp", 81, 80), mapping("tcp", 82, 80)]),
            &none,
        ),
        portmap("fifteen", &json!(many(15, "tcp")), &none),
        portmap("sixteen", &json!(many(16, "tcp")), &none),
        portmap("many-of-all", &json!(mixed), &none),
        portmap("largest", &json!([mapping("tcp", 65535, 65535)]), &none),
        portmap("none", &json!([]), &none),
        portmap("nothing-said", &none, &json!({"runtimeConfig": null})),
        portmap("no-addresses", &tcp(), &json!({"prevResult": {"cniVersion": "1.0.0", "ips": []}})),
    ]
}

fn addresses() -> Vec<Case> {
    let at = |address: &str| {
        let mut it = mapping("tcp", 8080, 80);
        it["hostIP"] = json!(address);
        json!([it])
    };
    let none = json!({});
    let both = json!([at("192.0.2.1")[0], mapping("tcp", 9090, 90), at("2001:db8::1")[0]]);
    let foreign = json!({"cniVersion": "1.0.0", "interfaces": [{"name": "br0"}, {"name": "net1", "sandbox": "/n"}],
        "ips": [{"address": "10.9.0.9/24", "interface": 1}, {"address": "10.1.0.1/24", "interface": 0},
                {"address": "10.1.0.2/24", "interface": 7}, {"address": "fd00:1::2/64"}]});
    vec![
        portmap("v4", &tcp(), &json!({"prevResult": result(V4)})),
        portmap("v6", &tcp(), &json!({"prevResult": result("fd00:1::2/64")})),
        portmap(
            "several-addresses",
            &tcp(),
            &json!({"prevResult": result("10.1.0.2/24 10.1.0.3/24 fd00:1::2/64")}),
        ),
        portmap("others-addresses", &tcp(), &json!({"prevResult": foreign})),
        portmap("host-prefix", &tcp(), &json!({"prevResult": result("10.1.0.2/32 fd00:1::2/128")})),
        portmap("host-ip-v4", &at("192.0.2.1"), &none),
        portmap("host-ip-v6", &at("2001:db8::1"), &none),
        portmap("host-ip-loopback", &at("127.0.0.1"), &none),
        portmap("host-ip-any-v4", &at("0.0.0.0"), &none),
        portmap("host-ip-any-v6", &at("::"), &none),
        portmap("host-ip-empty", &at(""), &none),
        portmap("host-ips", &both, &none),
        portmap(
            "host-ip-of-the-other-family",
            &at("2001:db8::1"),
            &json!({"prevResult": result(V4)}),
        ),
        portmap("host-ip-is-none", &at("localhost"), &json!({"prevResult": result(V4)}))
            .refused(7, "portmap-host-ip"),
    ]
}

fn masquerading() -> Vec<Case> {
    let keyed = |name: &str, keys: Value| portmap(name, &tcp(), &keys);
    vec![
        keyed("snat-off", json!({"snat": false})),
        keyed("snat-null", json!({"snat": null})),
        keyed("masq-all", json!({"masqAll": true})),
        keyed("masq-all-without-snat", json!({"masqAll": true, "snat": false})),
        keyed("mark-bit-0", json!({"markMasqBit": 0})),
        keyed("mark-bit-31", json!({"markMasqBit": 31})),
        keyed("mark-bit-32", json!({"markMasqBit": 32})).fails(7),
        keyed("mark-bit-negative", json!({"markMasqBit": -1})).fails(7),
        keyed("mark-chain", json!({"externalSetMarkChain": "MY-MARK"}))
            .on_node("iptables -t nat -N MY-MARK; ip6tables -t nat -N MY-MARK"),
        keyed("mark-chain-missing", json!({"externalSetMarkChain": "MY-MARK"})).fails(103),
        keyed("mark-chain-and-bit", json!({"externalSetMarkChain": "MY-MARK", "markMasqBit": 3}))
            .fails(7),
        // The kernel lets packets from its loopback's addresses go there.
        keyed("route-localnet", json!({})).on_node(
            "ip link add br0 type bridge; ip addr add 10.1.0.1/24 dev br0; ip link set br0 up",
        ),
        keyed("no-route-localnet-without-snat", json!({"snat": false})).on_node(
            "ip link add br0 type bridge; ip addr add 10.1.0.1/24 dev br0; ip link set br0 up",
        ),
        keyed("masq-among-others", json!({})).on_node(
            "iptables -t nat -N KUBE-SERVICES; iptables -t nat -A PREROUTING -j KUBE-SERVICES
             iptables -t nat -A OUTPUT -j KUBE-SERVICES",
        ),
    ]
}

fn conditions() -> Vec<Case> {
    let keyed = |name: &str, keys: Value| portmap(&format!("conditions-{name}"), &tcp(), &keys);
    vec![
        keyed("v4", json!({"conditionsV4": ["!", "-s", "192.0.2.0/24"]})),
        keyed("v6", json!({"conditionsV6": ["!", "-s", "2001:db8::/32", "-i", "up0"]})),
        keyed(
            "both",
            json!({"conditionsV4": ["-d", "192.0.2.1"], "conditionsV6": ["-d", "2001:db8::1"]}),
        ),
        keyed(
            "matches",
            json!({"conditionsV4": ["-m", "comment", "--comment", "a \"b\" c", "-m", "mark", "--mark", "1"]}),
        ),
        keyed("empty", json!({"conditionsV4": [], "conditionsV6": null})),
        keyed("unreadable", json!({"conditionsV4": ["-d", "nonsense/99"]})).fails(103),
        keyed("of-nft", json!({"conditionsV4": ["ip", "daddr", "192.0.2.1"]})).fails(7),
        keyed(
            "check-another",
            json!({"conditionsV4": ["-d", "192.0.2.1"], "prevResult": result(V4)}),
        )
        .steps(vec![
            step("ADD"),
            step("CHECK").patch(json!({"conditionsV4": ["-d", "192.0.2.2"]})).fails(102),
            step("DEL"),
        ]),
    ]
}

fn refusals() -> Vec<Case> {
    let with = |name: &str, key: &str, value: Value| {
        let mut it = mapping("tcp", 8080, 80);
        it[key] = value;
        portmap(name, &json!([it]), &json!({}))
    };
    vec![
        with("host-port-0", "hostPort", json!(0)).fails(7),
        with("host-port-negative", "hostPort", json!(-1)).fails(7),
        with("host-port-too-large", "hostPort", json!(65536)).fails(7),
        with("host-port-is-text", "hostPort", json!("8080")).fails(6),
        with("container-port-0", "containerPort", json!(0)).fails(7),
        with("container-port-missing", "containerPort", Value::Null).fails(7),
        with("container-port-too-large", "containerPort", json!(70000)).fails(7),
        with("protocol-unknown", "protocol", json!("nonsense")).fails(7),
        with("protocol-missing", "protocol", Value::Null).fails(7),
        with("protocol-without-ports", "protocol", json!("icmp")).fails(7),
        portmap("result-missing", &tcp(), &json!({"prevResult": null})).fails(7),
        portmap("result-missing-without-mappings", &json!([]), &json!({"prevResult": null}))
            .fails(7),
        portmap("mappings-are-no-list", &json!("8080"), &json!({})).fails(6),
        portmap("snat-is-text", &tcp(), &json!({"snat": "yes"})).fails(6),
        portmap("backend-unknown", &tcp(), &json!({"backend": "pf"})).fails(7),
        portmap("iptables-missing", &tcp(), &json!({})).env("PATH", "/nonexistent").fails(103),
        portmap("two-targets", &json!([mapping("tcp", 80, 1), mapping("tcp", 80, 2)]), &json!({}))
            .refused(7, "portmap-two-targets"),
    ]
}

fn backends() -> Vec<Case> {
    let unset =
        |name: &str| portmap(&format!("backend-unset{name}"), &tcp(), &json!({"backend": null}));
    vec![
        unset(""),
        unset("-among-iptables").on_node("iptables -t nat -N CNI-HOSTPORT-DNAT"),
        unset("-among-six").on_node("ip6tables -t nat -N CNI-DN-0123456789abcdef01234"),
        unset("-with-conditions").with(json!({"conditionsV4": ["-d", "192.0.2.1"]})),
        unset("-with-mark-chain")
            .with(json!({"externalSetMarkChain": "MY-MARK"}))
            .on_node("iptables -t nat -N MY-MARK; ip6tables -t nat -N MY-MARK"),
        unset("-without-programs").env("PATH", "/nonexistent").better("portmap-without-programs"),
    ]
}

/// The result of the plugin before has the shape of its version.
fn versions() -> Vec<Case> {
    let of = |version: &str| {
        let ips = match version {
            "0.1.0" | "0.2.0" => json!({"ip4": {"ip": V4}, "ip6": {"ip": "fd00:1::2/64"}}),
            "0.3.0" | "0.3.1" | "0.4.0" => {
                json!({"interfaces": [{"name": "eth0", "sandbox": "$POD"}],
                "ips": [{"version": "4", "address": V4, "interface": 0}]})
            }
            _ => {
                json!({"interfaces": [{"name": "eth0", "sandbox": "$POD"}], "ips": [{"address": V4, "interface": 0}]})
            }
        };
        let mut result = ips;
        result["cniVersion"] = json!(version);
        portmap(&format!("version-{version}"), &tcp(), &json!({"prevResult": result}))
            .version(version)
    };
    ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"].map(of).into()
}

/// The second container, at another address.
fn second(step: Step) -> Step {
    step.pod(1).patch(json!({"prevResult": result("10.1.0.3/24"), "runtimeConfig": published(&json!([mapping("tcp", 8081, 80)]))}))
}

/// Two containers want one port, and the first is at its address: a static neighbour, of whom nobody asks whether it is.
fn held(name: &str, why: &'static str, keys: &Value) -> Case {
    let mut patch = json!({"prevResult": result("10.1.0.3/24")});
    merge(&mut patch, keys);
    let last = step("DEL").pod(1).patch(patch.clone());
    portmap(name, &tcp(), &json!({"prevResult": result(V4)}))
        .on_node("ip link add br0 type bridge; ip link set br0 up; ip addr add 10.1.0.1/24 dev br0")
        .on_node("ip neigh add 10.1.0.2 lladdr 02:00:00:00:00:02 dev br0 nud permanent")
        .steps(vec![
            step("ADD"),
            step("ADD").pod(1).patch(patch).expect(Expect::OnlyReference(7, why)),
            step("CHECK"),
            last,
            step("DEL"),
        ])
}

fn containers() -> Vec<Case> {
    let named = |name: &str| portmap(name, &tcp(), &json!({"prevResult": result(V4)}));
    let long = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc\
                cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc\
                cccccccccccccccccccccccccccccccccccccccccccccccccc";
    let same_address = json!({"prevResult": result(V4), "runtimeConfig": published(&json!([mapping("udp", 8081, 80)]))});
    vec![
        named("long-container-id").env("CNI_CONTAINERID", long),
        named("container-id-of-a-runtime").env(
            "CNI_CONTAINERID",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ),
        named("long-network").with(json!({"name": "a-rather.long_name-for-a-network-0123456789"})),
        named("added-twice").steps(vec![step("ADD"), step("ADD"), step("CHECK"), step("DEL")]),
        named("two-containers").steps(vec![
            step("ADD"),
            second(step("ADD")),
            step("CHECK"),
            second(step("CHECK")),
            step("DEL"),
            second(step("CHECK")),
            second(step("DEL")),
        ]),
        named("one-address-after-the-other").steps(vec![
            step("ADD"),
            step("ADD").pod(1).patch(same_address.clone()),
            step("DEL"),
            step("CHECK").pod(1).patch(same_address.clone()),
            step("DEL").pod(1).patch(same_address),
        ]),
        // Nobody is at the first one's address: the reference would have both, and the dead one first.
        named("port-of-a-dead-container").steps(vec![
            step("ADD"),
            second(step("ADD")).patch(json!({"prevResult": result("10.1.0.3/24")})),
            step("DEL").pod(1),
            step("DEL"),
        ]),
        named("added-again-with-another-port").steps(vec![
            step("ADD"),
            step("ADD")
                .patch(json!({"runtimeConfig": published(&json!([mapping("udp", 53, 53)]))})),
            step("DEL"),
        ]),
        held("port-of-who-is-there", "portmap-port-of-who-is-there", &json!({})),
        held(
            "conditions-that-exclude-each-other",
            "portmap-conditions-of-two",
            &json!({"conditionsV4": ["!", "-i", "up0"]}),
        )
        .with(json!({"conditionsV4": ["-i", "up0"]})),
    ]
}

fn deletions() -> Vec<Case> {
    let ends = |name: &str, del: Step| {
        portmap(&format!("del-{name}"), &tcp(), &json!({})).steps(vec![
            step("ADD"),
            del.clone(),
            del,
        ])
    };
    vec![
        ends("without-netns", step("DEL").unset("CNI_NETNS")),
        ends("vanished-netns", step("DEL").env("CNI_NETNS", "/run/netns/vanished")),
        ends("without-result", step("DEL").patch(json!({"prevResult": null}))),
        ends("without-mappings", step("DEL").patch(json!({"runtimeConfig": null}))),
        ends("by-the-other-backend", step("DEL").patch(json!({"backend": "nftables"}))),
        ends("chain-is-gone", step("DEL").before("iptables -t nat -F; iptables -t nat -X")),
        ends("jump-is-gone", step("DEL").before("iptables -t nat -F CNI-HOSTPORT-DNAT")),
        ends("other-ports", step("DEL").patch(json!({"runtimeConfig": published(&json!([mapping("udp", 1, 2)]))}))),
        portmap("del-never-added", &tcp(), &json!({})).steps(vec![step("DEL"), step("DEL")]),
        portmap("del-old-snat-chain", &tcp(), &json!({})).steps(vec![
            step("ADD"),
            step("DEL").before(
                "iptables -t nat -N CNI-HOSTPORT-SNAT; iptables -t nat -N CNI-SN-e8f6f419596f7f47b3468
                 iptables -t nat -A CNI-HOSTPORT-SNAT -s 127.0.0.1/32 -j CNI-SN-e8f6f419596f7f47b3468
                 iptables -t nat -A CNI-SN-e8f6f419596f7f47b3468 -p tcp -s 127.0.0.1 -d 10.1.0.2 -j MASQUERADE",
            ),
        ]),
        portmap("gc-one-stale", &tcp(), &json!({"prevResult": result(V4)})).steps(vec![
            step("ADD"),
            second(step("ADD")),
            step("GC").patch(json!({"cniVersion": "1.1.0",
                "cni.dev/valid-attachments": [{"containerID": "cid1", "ifname": "eth0"}]})),
            second(step("DEL")),
            step("DEL"),
        ]),
        portmap("gc-all-stale", &tcp(), &json!({})).steps(vec![
            step("ADD"),
            step("GC").patch(json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": []})),
            step("DEL"),
        ]),
    ]
}

fn checks() -> Vec<Case> {
    let changed = |name: &str, line: &'static str| {
        portmap(&format!("check-{name}"), &tcp(), &json!({})).steps(vec![
            step("ADD"),
            step("CHECK").before(line).fails(102),
            step("DEL"),
        ])
    };
    let status = |case: Case, expect: Expect| {
        case.with(json!({"cniVersion": "1.1.0"})).steps(vec![step("STATUS").expect(expect)])
    };
    vec![
        changed("jump-is-gone", "iptables -t nat -F CNI-HOSTPORT-DNAT"),
        changed("v6-jump-is-gone", "ip6tables -t nat -F CNI-HOSTPORT-DNAT"),
        changed("rules-are-gone", "iptables -t nat -F CNI-DN-e8f6f419596f7f47b3468"),
        changed("chains-are-gone", "iptables -t nat -F; iptables -t nat -X"),
        portmap("check-other-ports", &tcp(), &json!({})).steps(vec![
            step("ADD"),
            step("CHECK")
                .patch(json!({"runtimeConfig": published(&json!([mapping("tcp", 1, 2)]))}))
                .fails(102),
            step("DEL"),
        ]),
        portmap("check-without-result", &tcp(), &json!({})).steps(vec![
            step("ADD"),
            step("CHECK").patch(json!({"prevResult": null})).fails(7),
            step("DEL"),
        ]),
        portmap("check-without-mappings", &tcp(), &json!({})).steps(vec![
            step("ADD"),
            step("CHECK").patch(json!({"runtimeConfig": null})),
            step("DEL"),
        ]),
        // Nothing leads to the chain any more: the reference looks at the chain alone.
        portmap("check-hook-is-gone", &tcp(), &json!({})).steps(vec![
            step("ADD"),
            step("CHECK")
                .before("iptables -t nat -F PREROUTING")
                .expect(Expect::OnlyReference(102, "portmap-check-of-the-way")),
            step("DEL"),
        ]),
        status(portmap("status", &tcp(), &json!({})), Expect::Same),
        status(
            portmap("status-without-iptables", &tcp(), &json!({})).env("PATH", "/nonexistent"),
            Expect::Same,
        )
        .steps(vec![
            step("STATUS")
                .env("PATH", "/nonexistent")
                .expect(Expect::OnlyReference(50, "portmap-status")),
        ]),
        status(by_nftables("status", &tcp(), &json!({})), Expect::Same),
    ]
}

fn nftables() -> Vec<Case> {
    let none = json!({});
    let at = |address: &str| {
        let mut it = mapping("tcp", 8080, 80);
        it["hostIP"] = json!(address);
        json!([it])
    };
    let many: Vec<Value> = (0..40).map(|it| mapping("tcp", 9000 + it, 80 + it)).collect();
    vec![
        by_nftables("tcp", &tcp(), &none),
        by_nftables("v4", &json!([mapping("udp", 53, 53)]), &json!({"prevResult": result(V4)})),
        by_nftables(
            "v6",
            &json!([mapping("sctp", 53, 53)]),
            &json!({"prevResult": result("fd00:1::2/64")}),
        ),
        by_nftables("many", &json!(many), &none),
        by_nftables("host-ip", &at("192.0.2.1"), &none),
        by_nftables("host-ip-v6", &at("2001:db8::1"), &none),
        by_nftables("host-ip-any", &at("0.0.0.0"), &none),
        by_nftables("snat-off", &tcp(), &json!({"snat": false})),
        by_nftables("masq-all", &tcp(), &json!({"masqAll": true})),
        by_nftables("route-localnet", &tcp(), &none).on_node(
            "ip link add br0 type bridge; ip addr add 10.1.0.1/24 dev br0; ip link set br0 up",
        ),
        by_nftables(
            "conditions",
            &tcp(),
            &json!({"conditionsV4": ["ip daddr != 192.0.2.1"],
            "conditionsV6": ["iifname", "up0"]}),
        ),
        by_nftables(
            "conditions-of-iptables",
            &tcp(),
            &json!({"conditionsV4": ["-d", "192.0.2.1"]}),
        )
        .fails(7),
        by_nftables(
            "conditions-of-others",
            &tcp(),
            &json!({"conditionsV4": ["ip daddr { 192.0.2.1, 192.0.2.2 }"]}),
        )
        .refused(7, "portmap-conditions-of-nft"),
        by_nftables("mark-chain", &tcp(), &json!({"externalSetMarkChain": "MY-MARK"})).fails(7),
        by_nftables("none", &json!([]), &none),
        by_nftables("without-programs", &tcp(), &none)
            .env("PATH", "/nonexistent")
            .better("portmap-without-programs"),
        by_nftables("among-others", &tcp(), &none).on_node(
            "nft add table inet mine; nft add chain inet mine c; nft add rule inet mine c counter",
        ),
        by_nftables("two-containers", &tcp(), &json!({"prevResult": result(V4)})).steps(vec![
            step("ADD"),
            second(step("ADD")),
            step("DEL"),
            second(step("CHECK")),
            second(step("DEL")),
        ]),
        by_nftables("check-after-a-flush", &tcp(), &none).steps(vec![
            step("ADD"),
            step("CHECK").before("nft flush ruleset").fails(102),
            step("DEL"),
        ]),
        by_nftables("del-by-the-other-backend", &tcp(), &none)
            .steps(vec![step("ADD"), step("DEL").patch(json!({"backend": "iptables"}))]),
        by_nftables("del-without-mappings", &tcp(), &none)
            .steps(vec![step("ADD"), step("DEL").patch(json!({"runtimeConfig": null}))]),
        by_nftables("del-other-ports", &tcp(), &none).steps(vec![
            step("ADD"),
            step("DEL").patch(json!({"runtimeConfig": published(&json!([mapping("udp", 1, 2)]))})),
        ]),
        by_nftables("added-again-with-another-port", &tcp(), &none).steps(vec![
            step("ADD"),
            step("ADD")
                .patch(json!({"runtimeConfig": published(&json!([mapping("udp", 53, 53)]))})),
            step("DEL"),
        ]),
    ]
}
