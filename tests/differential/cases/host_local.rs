//! host-local alone: ranges, the order of addresses, requested addresses, files.

use serde_json::{Value, json};

use super::host_local;
use crate::case::{Case, Step, step};

pub(super) fn cases() -> Vec<Case> {
    [ranges(), order(), requests(), files(), extras()].concat()
}

fn subnet(keys: Value) -> Value {
    let mut range = json!({"subnet": "10.1.0.0/24"});
    crate::case::merge(&mut range, &keys);
    json!({"ranges": [[range]]})
}

fn ranges() -> Vec<Case> {
    vec![
        host_local("legacy-subnet", json!({"subnet": "10.1.0.0/24"})),
        host_local("legacy-all-keys", json!({"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.50",
            "rangeEnd": "10.1.0.60", "gateway": "10.1.0.254"})),
        host_local("legacy-and-ranges", json!({"subnet": "10.2.0.0/24", "ranges": [[{"subnet": "10.1.0.0/24"}]]})),
        host_local("range", subnet(json!({}))),
        host_local("range-start-and-end", subnet(json!({"rangeStart": "10.1.0.50", "rangeEnd": "10.1.0.60"}))),
        host_local("gateway-at-the-end", subnet(json!({"gateway": "10.1.0.254"}))),
        host_local("gateway-elsewhere", subnet(json!({"gateway": "192.0.2.1"}))),
        host_local("gateway-is-the-start", subnet(json!({"rangeStart": "10.1.0.1", "gateway": "10.1.0.1"}))),
        host_local("v6", json!({"ranges": [[{"subnet": "fd00:1::/64"}]]})),
        host_local("v6-spelled-long", json!({"ranges": [[{"subnet": "FD00:0001:0:0::/64",
            "rangeStart": "fd00:0001:0000::00A0", "gateway": "fd00:1::00FE"}]]})),
        host_local("v6-small", json!({"ranges": [[{"subnet": "fd00:1::/126"}]]})),
        host_local("v4-small", json!({"ranges": [[{"subnet": "10.1.0.0/30"}]]})),
        host_local("v4-mapped", json!({"ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "::ffff:10.1.0.40"}]]})),
        host_local("dual", json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]})),
        host_local("two-sets", json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]})),
        host_local("pool-of-two", json!({"ranges": [[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9",
            "rangeEnd": "10.1.0.9"}, {"subnet": "10.2.0.0/24"}]]})).steps(three_pods()),
        host_local("runtime-ranges", json!({"ranges": [[{"subnet": "10.1.0.0/24"}]]}))
            .with(json!({"runtimeConfig": {"ipRanges": [[{"subnet": "10.3.0.0/24"}]]}})),
        host_local("only-runtime-ranges", json!({}))
            .with(json!({"runtimeConfig": {"ipRanges": [[{"subnet": "10.3.0.0/24"}], [{"subnet": "fd00:3::/64"}]]}})),
        host_local("empty-runtime-config", subnet(json!({}))).with(json!({"runtimeConfig": {}})),
    ]
}

fn three_pods() -> Vec<Step> {
    let of = |command, pod| step(command).pod(pod);
    vec![
        of("ADD", 0),
        of("ADD", 1),
        of("ADD", 2),
        of("DEL", 1),
        of("CHECK", 0),
        of("DEL", 0),
        of("DEL", 2),
    ]
}

fn order() -> Vec<Case> {
    let of = |command, pod| step(command).pod(pod);
    vec![
        host_local("three-pods", subnet(json!({}))).steps(three_pods()),
        host_local("released-is-not-next", subnet(json!({}))).steps(vec![
            of("ADD", 0),
            of("DEL", 0),
            of("ADD", 0),
            of("DEL", 0),
        ]),
        host_local(
            "wraps-around",
            subnet(json!({"rangeStart": "10.1.0.5", "rangeEnd": "10.1.0.6"})),
        )
        .steps(vec![
            of("ADD", 0),
            of("ADD", 1),
            of("DEL", 0),
            of("ADD", 2),
            of("DEL", 1),
            of("DEL", 2),
        ]),
        host_local("exhausted", subnet(json!({"rangeStart": "10.1.0.5", "rangeEnd": "10.1.0.6"})))
            .steps(vec![
                of("ADD", 0),
                of("ADD", 1),
                of("ADD", 2).fails(11),
                of("DEL", 2),
                of("DEL", 0),
                of("DEL", 1),
            ]),
        host_local(
            "second-set-exhausted",
            json!({"ranges": [[{"subnet": "10.1.0.0/24"}],
            [{"subnet": "10.2.0.0/30", "rangeEnd": "10.2.0.2"}]]}),
        )
        .steps(vec![of("ADD", 0), of("ADD", 1).fails(11), of("DEL", 1), of("DEL", 0)]),
        host_local("last-reserved-is-outside", subnet(json!({})))
            .on_node("mkdir -p $DATA/net1; printf 10.9.9.9 > $DATA/net1/last_reserved_ip.0"),
        host_local("last-reserved-is-rubbish", subnet(json!({})))
            .on_node("mkdir -p $DATA/net1; printf rubbish > $DATA/net1/last_reserved_ip.0"),
        host_local("last-reserved-is-the-end", subnet(json!({})))
            .on_node("mkdir -p $DATA/net1; printf 10.1.0.254 > $DATA/net1/last_reserved_ip.0"),
        host_local("last-reserved-within", subnet(json!({})))
            .on_node("mkdir -p $DATA/net1; printf 10.1.0.99 > $DATA/net1/last_reserved_ip.0"),
        host_local("twice-for-one-interface", subnet(json!({}))).steps(vec![
            step("ADD"),
            step("ADD").fails(101),
            step("DEL"),
            step("DEL"),
        ]),
        host_local("two-interfaces", subnet(json!({}))).steps(vec![
            step("ADD"),
            step("ADD").env("CNI_IFNAME", "net1"),
            step("DEL"),
            step("CHECK").env("CNI_IFNAME", "net1"),
            step("DEL").env("CNI_IFNAME", "net1"),
        ]),
    ]
}

fn requests() -> Vec<Case> {
    let ips = |list: Value| json!({"runtimeConfig": {"ips": list}});
    let args = |list: Value| json!({"args": {"cni": {"ips": list}}});
    let plain = |name: &str| host_local(name, subnet(json!({})));
    let both = |name: &str| {
        host_local(
            name,
            json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]}),
        )
    };
    vec![
        plain("requested").with(ips(json!(["10.1.0.77"]))),
        plain("requested-with-prefix").with(ips(json!(["10.1.0.77/16"]))),
        plain("requested-by-args").with(args(json!(["10.1.0.78"]))),
        plain("requested-by-cni-args").env("CNI_ARGS", "IP=10.1.0.79"),
        plain("requested-by-cni-args-with-prefix")
            .env("CNI_ARGS", "IgnoreUnknown=1;IP=10.1.0.79/24;K8S_POD_NAME=x"),
        both("requested-of-each-family").with(ips(json!(["fd00:1::77", "10.1.0.77"]))),
        both("requested-of-one-family").with(ips(json!(["fd00:1::77"]))),
        both("requested-by-two-ways")
            .with(ips(json!(["fd00:1::77"])))
            .env("CNI_ARGS", "IP=10.1.0.79"),
        plain("requested-twice-taken").with(ips(json!(["10.1.0.77"]))).steps(vec![
            step("ADD"),
            step("ADD").pod(1).fails(11),
            step("DEL").pod(1),
            step("DEL"),
        ]),
        plain("requested-then-next").steps(vec![
            step("ADD").patch(ips(json!(["10.1.0.77"]))),
            step("ADD").pod(1),
            step("DEL"),
            step("DEL").pod(1),
        ]),
        plain("requested-gateway").with(ips(json!(["10.1.0.1"]))).fails(7),
        plain("requested-outside").with(ips(json!(["192.0.2.7"]))).fails(7),
        plain("requested-too-many").with(ips(json!(["10.1.0.77", "10.9.0.78"]))).fails(7),
        plain("requested-rubbish").with(ips(json!(["rubbish"]))).fails(7),
        plain("requested-rubbish-by-cni-args").fails(4).env("CNI_ARGS", "IP=rubbish"),
        plain("requested-broadcast").with(ips(json!(["10.1.0.255"]))).fails(7),
    ]
}

fn files() -> Vec<Case> {
    let plain = |name: &str| host_local(name, subnet(json!({})));
    vec![
        plain("legacy-lease")
            .on_node("mkdir -p $DATA/net1; printf cid1 > $DATA/net1/10.1.0.9")
            .steps(vec![step("CHECK"), step("DEL"), step("CHECK").fails(102)]),
        plain("lease-with-spaces")
            .on_node("mkdir -p $DATA/net1; printf ' cid1\\r\\neth0\\n' > $DATA/net1/10.1.0.9")
            .steps(vec![step("CHECK"), step("DEL")]),
        plain("lease-of-others-stays")
            .on_node("mkdir -p $DATA/net1; printf 'other\\r\\neth0' > $DATA/net1/10.1.0.2"),
        plain("unknown-files-stay")
            .on_node("mkdir -p $DATA/net1; printf hello > $DATA/net1/README"),
        plain("data-dir-is-made")
            .with(json!({"ipam": {"type": "host-local", "dataDir": "$DATA/deep/er",
            "ranges": [[{"subnet": "10.1.0.0/24"}]]}})),
        plain("data-dir-default").with(json!({"ipam": {"type": "host-local", "dataDir": "",
            "ranges": [[{"subnet": "10.1.0.0/24"}]]}})),
        plain("data-dir-is-a-file").on_node("rmdir $DATA; touch $DATA").fails(5),
        plain("network-name-with-dots").with(json!({"name": "a.b_c-d"})),
    ]
}

fn extras() -> Vec<Case> {
    let with = |keys: Value| {
        let mut ipam = subnet(json!({}));
        crate::case::merge(&mut ipam, &keys);
        ipam
    };
    let resolv = "printf '# c\\n; d\\nnameserver 10.1.0.1\\nnameserver fd00::1\\ndomain a.example\\nsearch b.example c.example\\n\
        search d.example\\noptions ndots:2 rotate\\noptions timeout:1\\nsortlist 1.2.3.4\\n' > $HOME/resolv.conf";
    vec![
        host_local(
            "routes",
            with(
                json!({"routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.1.0.9"}]}),
            ),
        ),
        host_local(
            "routes-all-keys",
            with(json!({"routes": [{"dst": "10.9.0.0/16", "gw": "10.1.0.9", "mtu": 1300,
            "advmss": 1200, "priority": 5, "table": 500, "scope": 253}]})),
        ),
        host_local("resolv-conf", with(json!({"resolvConf": "$HOME/resolv.conf"}))).on_node(resolv),
        host_local("resolv-conf-0.4.0", with(json!({"resolvConf": "$HOME/resolv.conf"})))
            .on_node(resolv)
            .version("0.4.0"),
        host_local("resolv-conf-missing", with(json!({"resolvConf": "$HOME/nosuch"}))).fails(5),
        host_local("resolv-conf-empty", with(json!({"resolvConf": ""}))),
    ]
}
