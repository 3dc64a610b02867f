//! bridge: the keys of the link, the port and the container's interface.

use serde_json::json;

use super::{bridge, bridge_l2, dual, v4, v6};
use crate::case::{Case, step};

pub(super) fn cases() -> Vec<Case> {
    [gateways(), links(), macs(), vlans(), pods()].concat()
}

fn gateways() -> Vec<Case> {
    vec![
        bridge("plain", json!({})),
        bridge("default-name", json!({"bridge": null})),
        bridge("is-gateway", json!({"isGateway": true})),
        bridge("is-default-gateway", json!({"isDefaultGateway": true})),
        bridge("v6", json!({"ipam": v6()})),
        bridge("v6-gateway", json!({"ipam": v6(), "isGateway": true})),
        bridge("v6-default-gateway", json!({"ipam": v6(), "isDefaultGateway": true})),
        bridge("dual", json!({"ipam": dual()})),
        bridge("dual-gateway", json!({"ipam": dual(), "isGateway": true})),
        bridge("dual-default-gateway", json!({"ipam": dual(), "isDefaultGateway": true})),
        bridge("v6-where-ipv6-is-off", json!({"ipam": v6(), "isGateway": true}))
            .in_pod("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6"),
        bridge("v4-where-ipv6-is-off", json!({"isGateway": true}))
            .in_pod("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6"),
        bridge("forwarding-is-on-already", json!({"ipam": dual(), "isGateway": true})).on_node(
            "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
        ),
    ]
}

fn links() -> Vec<Case> {
    vec![
        bridge("mtu", json!({"mtu": 1400})),
        bridge("mtu-jumbo", json!({"mtu": 9000})),
        bridge("mtu-zero", json!({"mtu": 0})),
        bridge("mtu-below-ipv6", json!({"mtu": 1000})),
        bridge("mtu-too-small", json!({"mtu": 20})).fails(100),
        bridge("mtu-negative", json!({"mtu": -1})),
        bridge("name-empty", json!({"bridge": ""})).fails(7),
        bridge(
            "add-after-another-version",
            json!({"prevResult": {"cniVersion": "0.4.0", "ips": []}}),
        ),
        bridge("hairpin", json!({"hairpinMode": true})),
        bridge("promisc", json!({"promiscMode": true})),
        bridge("hairpin-and-promisc", json!({"hairpinMode": true, "promiscMode": true})).fails(7),
        bridge("port-isolation", json!({"portIsolation": true})),
        bridge("enabledad", json!({"enabledad": true})),
        bridge("enabledad-dual", json!({"enabledad": true, "ipam": dual(), "isGateway": true})),
        bridge_l2("l2", json!({})).better_check("bridge-l2-check"),
        bridge_l2("l2-empty-ipam", json!({"ipam": {}})).better_check("bridge-l2-check"),
        bridge_l2("l2-port-options", json!({"portIsolation": true, "hairpinMode": true}))
            .better_check("bridge-l2-check"),
        bridge_l2("l2-mac", json!({"runtimeConfig": {"mac": "02:11:22:00:00:05"}}))
            .better_check("bridge-l2-check"),
        bridge_l2("l2-no-container-interface", json!({"disableContainerInterface": true}))
            .better_check("bridge-l2-check"),
        bridge("no-container-interface-with-ipam", json!({"disableContainerInterface": true}))
            .fails(7),
        bridge("exists", json!({"isGateway": true}))
            .on_node("ip link add br0 mtu 1300 address 02:11:22:00:00:01 type bridge"),
        bridge("exists-and-is-up", json!({"mtu": 1400}))
            .on_node("ip link add br0 up type bridge; ip addr add 10.1.0.1/24 dev br0"),
    ]
}

fn macs() -> Vec<Case> {
    let runtime = json!({"runtimeConfig": {"mac": "02:11:22:00:00:05"}});
    let args = json!({"args": {"cni": {"mac": "02:11:22:00:00:06"}}});
    vec![
        bridge("mac-runtime-config", runtime.clone()),
        bridge("mac-args-cni", args.clone()),
        bridge("mac-cni-args", json!({})).env("CNI_ARGS", "IgnoreUnknown=1;MAC=02:11:22:00:00:07"),
        bridge("mac-runtime-config-wins", runtime)
            .with(args.clone())
            .env("CNI_ARGS", "IgnoreUnknown=1;MAC=02:11:22:00:00:07"),
        bridge("mac-args-cni-wins", args).env("CNI_ARGS", "IgnoreUnknown=1;MAC=02:11:22:00:00:07"),
        bridge("mac-in-capitals", json!({"runtimeConfig": {"mac": "02:11:22:00:00:AB"}})),
        bridge("mac-bad", json!({"runtimeConfig": {"mac": "zz"}})).fails(7),
        bridge("mac-too-short", json!({"args": {"cni": {"mac": "02:11:22"}}})).fails(7),
        bridge("mac-bad-in-cni-args", json!({})).fails(4).env("CNI_ARGS", "IgnoreUnknown=1;MAC=zz"),
    ]
}

fn vlans() -> Vec<Case> {
    let trunk = |trunk| json!({"vlanTrunk": [trunk]});
    vec![
        bridge("vlan-zero", json!({"vlan": 0, "preserveDefaultVlan": true})),
        bridge("vlan", json!({"vlan": 100})).fails(2),
        bridge("vlan-too-large", json!({"vlan": 5000})).fails(7),
        bridge("vlan-negative", json!({"vlan": -1})).fails(7),
        bridge("vlan-trunk", trunk(json!({"minID": 10, "maxID": 20, "id": 42}))).fails(2),
        bridge("vlan-trunk-id-too-large", trunk(json!({"id": 5000}))).fails(7),
        bridge("vlan-trunk-id-negative", trunk(json!({"id": -1}))).fails(7),
        bridge("vlan-trunk-no-min", trunk(json!({"maxID": 20}))).fails(7),
        bridge("vlan-trunk-no-max", trunk(json!({"minID": 20}))).fails(7),
        bridge("vlan-trunk-reversed", trunk(json!({"minID": 20, "maxID": 10}))).fails(7),
        bridge("vlan-trunk-min-zero", trunk(json!({"minID": 0, "maxID": 10}))).fails(7),
        bridge("vlan-trunk-max-too-large", trunk(json!({"minID": 1, "maxID": 5000}))).fails(7),
        bridge("macspoofchk", json!({"macspoofchk": true})),
        bridge("macspoofchk-mac", json!({"macspoofchk": true, "runtimeConfig": {"mac": "02:00:00:00:00:99"}})),
        bridge("macspoofchk-among-others", json!({"macspoofchk": true}))
            .on_node("nft add table bridge nat; nft add chain bridge nat mine; nft add rule bridge nat mine counter"),
        bridge("macspoofchk-off", json!({"macspoofchk": false})),
    ]
}

fn pods() -> Vec<Case> {
    let of = |command, pod| step(command).pod(pod);
    let all = || {
        vec![
            of("ADD", 0),
            of("ADD", 1),
            of("CHECK", 0),
            of("CHECK", 1),
            of("DEL", 0),
            of("CHECK", 1),
            of("DEL", 1),
        ]
    };
    let net1 = |s: crate::case::Step| s.env("CNI_IFNAME", "net1");
    vec![
        bridge("two-pods", json!({"isDefaultGateway": true, "ipam": dual()})).steps(all()),
        bridge(
            "two-pods-ip-masq",
            json!({"isGateway": true, "ipMasq": true, "ipMasqBackend": "iptables"}),
        )
        .steps(all()),
        bridge("two-interfaces", json!({"isGateway": true})).steps(vec![
            step("ADD"),
            net1(step("ADD")),
            step("DEL"),
            net1(step("DEL")),
        ]),
        bridge("ifname", json!({"ipam": v4()})).env("CNI_IFNAME", "net1"),
        bridge("ifname-of-15-bytes", json!({})).env("CNI_IFNAME", "abcdefghijklmno"),
        bridge("ifname-with-a-dot", json!({"ipam": dual()})).env("CNI_IFNAME", "eth0.7"),
        bridge("ifname-exists", json!({})).in_pod("ip link add eth0 type bridge").fails(101),
        bridge("same-container-twice", json!({})).steps(vec![
            step("ADD"),
            step("ADD").fails(101),
            step("DEL"),
            step("DEL"),
        ]),
    ]
}
