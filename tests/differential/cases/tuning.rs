//! tuning: kernel parameters, and what is set of the interface.

use serde_json::{Value, json};

use super::{dual, tuning, v4};
use crate::case::{Case, Expect, Step, step};

pub(super) fn cases() -> Vec<Case> {
    [
        links(),
        macs(),
        sysctls(),
        allow_lists(),
        deletions(),
        checks(),
        verbs(),
        versions(),
        errors(),
    ]
    .concat()
}

fn links() -> Vec<Case> {
    let all = json!({"mac": "02:11:22:00:00:07", "promisc": true, "mtu": 1400, "allmulti": true,
        "txQLen": 5, "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}});
    let ptp = json!({"type": "ptp", "ipam": dual()});
    vec![
        tuning("mtu", json!({"mtu": 1400})),
        tuning("mtu-zero", json!({"mtu": 0})),
        // IPv6 that the kernel took off the link comes back with the parameters of a new one.
        tuning("mtu-small-without-v6", json!({"mtu": 600})).steps(vec![step("ADD"), step("CHECK")]),
        tuning("promisc", json!({"promisc": true})),
        tuning("promisc-is-on-already", json!({"promisc": true}))
            .in_pod("ip link set eth0 promisc on"),
        tuning("promisc-false", json!({"promisc": false})),
        tuning("allmulti-on", json!({"allmulti": true})),
        tuning("allmulti-off", json!({"allmulti": false}))
            .in_pod("ip link set eth0 allmulticast on"),
        tuning("queue", json!({"txQLen": 5})),
        tuning("queue-zero", json!({"txQLen": 0})),
        tuning("nothing", json!({})),
        tuning("all", all.clone()),
        tuning("all-on-ptp", all.clone()).on(ptp),
        tuning("all-of-two-pods", all.clone()).steps(vec![
            step("ADD"),
            step("ADD").pod(1),
            step("CHECK"),
            step("DEL"),
            step("CHECK").pod(1),
            step("DEL").pod(1),
        ]),
        tuning(
            "arguments-go-first",
            json!({"promisc": true, "mtu": 1400, "allmulti": true, "txQLen": 5, "sysctl": {},
                "args": {"cni": {"promisc": false, "mtu": 1300, "allmulti": false, "txQLen": 6}}}),
        ),
        tuning("data-dir", all).with(json!({"dataDir": "$HOME/data/tuning"})),
        tuning("keys-of-any-case", json!({"MTU": 1400, "TXQLEN": 5, "AllMulti": true})),
    ]
}

fn macs() -> Vec<Case> {
    let mac = |n: u8| json!(format!("02:11:22:00:00:0{n}"));
    let of_args = json!({"cni": {"mac": mac(3)}});
    let of_runtime = json!({"mac": mac(2)});
    vec![
        tuning("mac", json!({"mac": mac(1)})),
        tuning("mac-of-the-runtime", json!({"mac": mac(1), "runtimeConfig": of_runtime}))
            .env("CNI_ARGS", "MAC=02:11:22:00:00:04"),
        tuning("mac-of-the-environment", json!({"mac": mac(1)}))
            .env("CNI_ARGS", "IgnoreUnknown=1;MAC=02:11:22:00:00:04;FOO=x"),
        tuning(
            "mac-of-arguments",
            json!({"mac": mac(1), "runtimeConfig": of_runtime, "args": of_args}),
        )
        .env("CNI_ARGS", "MAC=02:11:22:00:00:04"),
        tuning("mac-empty-argument", json!({"mac": mac(1), "args": {"cni": {"mac": ""}}})),
        tuning("mac-spelt-otherwise", json!({"mac": "02-11-22-00-00-AA"}))
            .better_check("tuning-mac-as-the-kernel-has-it"),
        tuning("mac-multicast", json!({"mac": "01:11:22:00:00:01"})).fails(100),
        tuning("mac-rubbish", json!({"mac": "rubbish"})).fails(7),
        tuning("mac-rubbish-in-the-environment", json!({})).env("CNI_ARGS", "MAC=rubbish").fails(4),
    ]
}

fn sysctls() -> Vec<Case> {
    let set = |name: &str, sysctl: Value| tuning(name, json!({"sysctl": sysctl}));
    let of_args = json!({"cni": {"sysctl": {"net.core.somaxconn": "300"}}});
    vec![
        set("sysctl", json!({"net.core.somaxconn": "200", "net.ipv4.ip_default_ttl": "33"})),
        set("sysctl-ifname", json!({"net.ipv4.conf.IFNAME.arp_filter": "1"})),
        set("sysctl-slashes", json!({"net/ipv6/conf/IFNAME/hop_limit": "33"})),
        set("sysctl-null", json!({"net.core.somaxconn": null}))
            .better_check("tuning-check-of-parameters"),
        set("sysctl-of-several-numbers", json!({"net.ipv4.ip_local_port_range": "20000 30000"}))
            .better_check("tuning-check-of-parameters"),
        set("sysctl-of-another-base", json!({"net.core.somaxconn": "0x100"}))
            .better_check("tuning-check-of-parameters"),
        set("sysctl-of-arguments", json!({"net.core.somaxconn": "200"}))
            .with(json!({"args": of_args})),
        tuning("sysctl-of-arguments-alone", json!({"args": of_args}))
            .better("tuning-arguments-alone"),
        set("sysctl-outside-of-the-network", json!({"kernel.hostname": "x"})).fails(7),
        set("sysctl-absent", json!({"net.nothing": "1"})).fails(100),
        set("sysctl-bad-value", json!({"net.core.somaxconn": "many"})).fails(100),
        set("sysctl-no-text", json!({"net.core.somaxconn": 200})).fails(6),
        tuning("sysctl-twice", json!({})).steps(vec![
            step("ADD")
                .stdin(
                    r#"{"cniVersion":"1.0.0","name":"net1","type":"tuning","prevResult":{"cniVersion":"1.0.0"},
                        "sysctl":{"net.core.somaxconn":"200","net.core.somaxconn":"300"}}"#,
                )
                .fails(7),
        ]),
    ]
}

fn allow_lists() -> Vec<Case> {
    let sysctl = || json!({"sysctl": {"net.core.somaxconn": "200"}});
    let of_args = json!({"cni": {"sysctl": {"net.ipv4.ip_default_ttl": "33"}}});
    vec![
        tuning("allowed", sysctl()).allow_list("^net\\.core\\.somaxconn$\n"),
        tuning("allowed-by-a-part", sysctl()).allow_list("\n  net.ipv6\n  somax\n"),
        tuning("not-allowed", sysctl()).allow_list("^net.ipv4.conf.IFNAME.[a-z_]*$\n").fails(7),
        tuning("nothing-allowed", sysctl()).allow_list("").fails(7),
        tuning("not-allowed-of-arguments", sysctl())
            .with(json!({"args": of_args}))
            .allow_list("^net.core")
            .fails(7),
        tuning("allow-list-is-wrong", sysctl()).allow_list("(\n").fails(7),
        tuning("allow-list-that-only-go-reads", sysctl())
            .allow_list("\\Qnet.core.somaxconn\\E\n")
            .refused(7, "tuning-allow-list-that-only-go-reads"),
        tuning("allow-list-with-classes", sysctl()).allow_list("^net[.]core[.][[:alpha:]]{9}\\b\n"),
        tuning("allow-list-is-of-parameters-alone", json!({"mtu": 1400})).allow_list(""),
    ]
}

fn deletions() -> Vec<Case> {
    let mtu = |name: &str, steps: Vec<Step>| tuning(name, json!({"mtu": 1400})).steps(steps);
    let without = || step("DEL").unset("CNI_NETNS");
    let vanished = || step("DEL").env("CNI_NETNS", "/run/netns/vanished");
    vec![
        mtu("del-without-netns", vec![step("ADD"), without(), without()]),
        mtu("del-vanished-netns", vec![step("ADD"), vanished(), vanished()]),
        mtu("del-never-added", vec![step("DEL")]),
        mtu(
            "del-of-another-container",
            vec![
                step("ADD"),
                step("DEL").env("CNI_CONTAINERID", "other"),
                step("CHECK"),
                step("DEL"),
            ],
        ),
        mtu("del-without-keys", vec![step("ADD"), step("DEL").patch(json!({"mtu": null}))]),
        mtu(
            "del-link-is-gone",
            vec![step("ADD"), step("DEL").before("nsenter --net=$POD ip link del eth0")],
        ),
        mtu(
            "del-damaged-file",
            vec![step("ADD"), step("DEL").before("echo { > $HOME/run/cni/tuning/cid1_eth0.json")],
        ),
        mtu("add-twice", vec![step("ADD"), step("ADD"), step("DEL")]),
        mtu(
            "two-in-a-list",
            vec![
                step("ADD"),
                step("ADD").patch(json!({"mtu": null, "txQLen": 5})),
                step("DEL").patch(json!({"mtu": null, "txQLen": 5})),
                step("DEL"),
            ],
        ),
        mtu(
            "del-bad-arguments",
            vec![
                step("ADD"),
                step("DEL")
                    .env("CNI_ARGS", "FOO=1")
                    .expect(Expect::OnlyPodwire("del-to-the-fullest")),
            ],
        ),
    ]
}

/// ADD, a change by somebody else, and a CHECK that must see it.
fn changed(name: &str, keys: Value, line: &'static str) -> Case {
    tuning(name, keys).steps(vec![step("ADD"), step("CHECK").before(line).fails(102), step("DEL")])
}

fn checks() -> Vec<Case> {
    vec![
        changed("check-mtu", json!({"mtu": 1400}), "nsenter --net=$POD ip link set eth0 mtu 1450"),
        changed(
            "check-mac",
            json!({"mac": "02:11:22:00:00:01"}),
            "nsenter --net=$POD ip link set eth0 address 02:11:22:00:00:09",
        ),
        changed(
            "check-promisc",
            json!({"promisc": true}),
            "nsenter --net=$POD ip link set eth0 promisc off",
        ),
        changed(
            "check-allmulti",
            json!({"allmulti": true}),
            "nsenter --net=$POD ip link set eth0 allmulticast off",
        ),
        changed(
            "check-queue",
            json!({"txQLen": 5}),
            "nsenter --net=$POD ip link set eth0 txqlen 6",
        ),
        changed(
            "check-sysctl",
            json!({"sysctl": {"net.core.somaxconn": "200"}}),
            "nsenter --net=$POD sh -c 'echo 201 > /proc/sys/net/core/somaxconn'",
        ),
        changed("check-link", json!({"mtu": 1400}), "nsenter --net=$POD ip link del eth0"),
        tuning("check-promisc-of-others", json!({"mtu": 1400})).steps(vec![
            step("ADD"),
            step("CHECK")
                .before("nsenter --net=$POD ip link set eth0 promisc on")
                .expect(Expect::OnlyPodwire("tuning-check-of-promiscuous-mode")),
            step("DEL"),
        ]),
        tuning("check-without-result", json!({"mtu": 1400})).steps(vec![
            step("ADD"),
            step("CHECK").patch(json!({"prevResult": null})).fails(7),
            step("DEL"),
        ]),
        tuning("check-vanished-netns", json!({"mtu": 1400})).steps(vec![
            step("ADD"),
            step("CHECK").env("CNI_NETNS", "/run/netns/vanished").fails(8),
            step("DEL"),
        ]),
    ]
}

fn verbs() -> Vec<Case> {
    let gc = |name: &str, keep: Value, before: Option<&'static str>| {
        let list = json!({"cni.dev/valid-attachments": keep});
        let gc = step("GC").patch(list).unset("CNI_CONTAINERID").unset("CNI_IFNAME");
        tuning(name, json!({"mtu": 1400})).version("1.1.0").steps(vec![
            step("ADD"),
            Step { before, ..gc },
            step("DEL"),
        ])
    };
    let gone = Some("nsenter --net=$POD ip link del eth0");
    let status = |name: &str, keys: Value, expect: Expect| {
        tuning(name, keys).version("1.1.0").steps(vec![step("STATUS").expect(expect)])
    };
    let mtu = || json!({"mtu": 1400, "sysctl": {"net.core.somaxconn": "200"}});
    vec![
        gc("gc-valid", json!([{"containerID": "cid1", "ifname": "eth0"}]), gone),
        gc("gc-still-there", json!([]), None),
        gc("gc-stale", json!([{"containerID": "cid2", "ifname": "eth0"}]), gone),
        tuning("gc-of-another-network", json!({"mtu": 1400})).version("1.1.0").steps(vec![
            step("ADD"),
            step("GC")
                .patch(json!({"name": "net2", "cni.dev/valid-attachments": []}))
                .before("nsenter --net=$POD ip link del eth0"),
            step("DEL"),
        ]),
        status("status", mtu(), Expect::Same),
        status("status-not-allowed", mtu(), Expect::OnlyReference(50, "tuning-status"))
            .allow_list("nothing"),
        status("status-data-dir", mtu(), Expect::OnlyReference(50, "tuning-status"))
            .with(json!({"dataDir": "/proc/x"})),
    ]
}

fn versions() -> Vec<Case> {
    let versions = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
    let keys = || json!({"mac": "02:11:22:00:00:01", "mtu": 1400});
    versions
        .into_iter()
        .map(|version| {
            tuning(&format!("version-{version}"), keys())
                .on(json!({"type": "bridge", "isDefaultGateway": true, "ipam": v4()}))
                .version(version)
        })
        .collect()
}

fn errors() -> Vec<Case> {
    let dual_bridge = json!({"type": "bridge", "ipam": dual()});
    vec![
        tuning("without-result", json!({"mtu": 1400}))
            .steps(vec![step("ADD").patch(json!({"prevResult": null})).fails(7), step("DEL")]),
        tuning("result-of-another-family", json!({"mtu": 1400})).steps(vec![
            step("ADD").patch(json!({"prevResult": {"cniVersion": "0.4.0"}})).fails(7),
        ]),
        tuning("mtu-negative", json!({"mtu": -5})).fails(7),
        tuning("mtu-no-number", json!({"mtu": "1400"})).fails(6),
        tuning("mtu-too-large", json!({"mtu": 70_000})).fails(100),
        tuning("mtu-too-small-for-v6", json!({"mtu": 1279}))
            .on(dual_bridge)
            .refused(7, "tuning-mtu-too-small-for-v6"),
        tuning("queue-negative", json!({"txQLen": -5})).refused(7, "tuning-queue-negative"),
        tuning("no-such-interface", json!({"mtu": 1400})).env("CNI_IFNAME", "net1").fails(7),
        tuning("no-namespace", json!({"mtu": 1400})).env("CNI_NETNS", "/etc/passwd").fails(8),
        tuning("unknown-argument", json!({"mtu": 1400})).env("CNI_ARGS", "FOO=1").fails(4),
        tuning("data-dir-is-unusable", json!({"mtu": 1400, "dataDir": "/proc/x"})).fails(5),
    ]
}
