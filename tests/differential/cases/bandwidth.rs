//! bandwidth: limits of what a pod sends and is sent.

use serde_json::{Value, json};

use super::{bandwidth, dual, v4};
use crate::case::{Case, Expect, step};

pub(super) fn cases() -> Vec<Case> {
    [limits(), bursts_of_runtimes(), places(), deletions(), checks(), verbs(), versions(), errors()]
        .concat()
}

fn both() -> Value {
    json!({"ingressRate": 8_000_000, "ingressBurst": 80_000,
           "egressRate": 16_000_000, "egressBurst": 160_000})
}

fn ingress() -> Value {
    json!({"ingressRate": 8_000_000, "ingressBurst": 80_000})
}

fn egress() -> Value {
    json!({"egressRate": 16_000_000, "egressBurst": 160_000})
}

fn of_runtime(limits: Value) -> Value {
    json!({"capabilities": {"bandwidth": true}, "runtimeConfig": {"bandwidth": limits}})
}

fn limits() -> Vec<Case> {
    let rates = |rate: u64, burst: u64| json!({"ingressRate": rate, "ingressBurst": burst});
    vec![
        bandwidth("both", both()),
        bandwidth("ingress", ingress()),
        bandwidth("egress", egress()),
        bandwidth("nothing", json!({})),
        bandwidth(
            "zeros",
            json!({"ingressRate": 0, "ingressBurst": 0, "egressRate": 0, "egressBurst": 0}),
        ),
        bandwidth("null", json!({"ingressRate": null, "ingressBurst": null})),
        bandwidth("of-runtime", of_runtime(both())),
        bandwidth("of-runtime-nothing", of_runtime(json!({}))),
        bandwidth("of-runtime-and-list", {
            let mut conf = of_runtime(both());
            crate::case::merge(&mut conf, &ingress());
            conf
        }),
        bandwidth("of-runtime-and-list-zero", {
            let mut conf = of_runtime(both());
            crate::case::merge(&mut conf, &json!({"egressRate": 0}));
            conf
        }),
        bandwidth("keys-of-any-case", json!({"INGRESSRATE": 8_000_000, "ingressburst": 80_000})),
        bandwidth("slow", rates(800, 800)),
        bandwidth("uneven", rates(8_000_001, 80_007)),
        bandwidth("hundred-gigabit", rates(100_000_000_000, 80_000_000)),
        bandwidth("two-hundred-gigabit", rates(200_000_000_000, 160_000_000)),
        bandwidth("large-burst", rates(800_000_000, 8_000_000_000)),
    ]
}

/// Of pods that are told a rate alone: containerd's burst, and CRI-O's.
fn bursts_of_runtimes() -> Vec<Case> {
    let rates = [1_000_000_u64, 10_000_000, 100_000_000, 1_000_000_000, 10_000_000_000];
    let bursts = [("containerd", u64::from(u32::MAX)), ("cri-o", u64::from(u32::MAX) * 8 - 1)];
    let of = |(runtime, burst)| {
        rates.map(|rate| {
            let limits = json!({"ingressRate": rate, "ingressBurst": burst,
                "egressRate": rate, "egressBurst": burst});
            bandwidth(&format!("burst-of-{runtime}-at-{rate}"), of_runtime(limits))
        })
    };
    bursts.into_iter().flat_map(of).collect()
}

fn places() -> Vec<Case> {
    let bridge = json!({"type": "bridge", "isGateway": true, "ipam": dual()});
    let small = json!({"type": "ptp", "mtu": 1400, "ipam": v4()});
    vec![
        bandwidth("on-a-bridge", both()).on(bridge.clone()),
        bandwidth("small-mtu", both()).on(small),
        bandwidth("of-two-pods", both()).on(bridge).steps(vec![
            step("ADD"),
            step("ADD").pod(1),
            step("CHECK"),
            step("DEL"),
            step("CHECK").pod(1),
            step("DEL").pod(1),
        ]),
        bandwidth("long-names", both())
            .with(json!({"name": "a-rather.long_name-for-a-network-0123456789"}))
            .env("CNI_CONTAINERID", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        bandwidth("filters-of-others", both()).steps(vec![
            step("ADD")
                .before("tc qdisc add dev $(ip -o link show type veth | cut -d: -f2 | cut -d@ -f1) clsact")
                .expect(Expect::OnlyPodwire("bandwidth-beside-filters-of-others")),
            step("DEL"),
        ]),
    ]
}

fn deletions() -> Vec<Case> {
    vec![
        bandwidth("del-alone", both()).steps(vec![step("DEL")]),
        bandwidth("del-without-limits", both()).steps(vec![
            step("ADD"),
            step("DEL").patch(json!({"ingressRate": null, "ingressBurst": null, "egressRate": null,
                "egressBurst": null})),
        ]),
        bandwidth("del-without-namespace", both())
            .steps(vec![step("ADD"), step("DEL").unset("CNI_NETNS"), step("DEL")]),
        bandwidth("del-namespace-is-gone", both())
            .steps(vec![step("ADD"), step("DEL").env("CNI_NETNS", "/run/netns/gone")]),
        bandwidth("del-ifb-is-gone", egress())
            .steps(vec![step("ADD"), step("DEL").before("ip link del bwpca7a875c2b85 2>/dev/null || ip link del $(ip -o link show type ifb | cut -d: -f2)")]),
        bandwidth("del-of-bad-limits", both())
            .steps(vec![
                step("ADD"),
                step("DEL")
                    .patch(json!({"ingressBurst": 0}))
                    .expect(Expect::OnlyPodwire("bandwidth-del-needs-no-limits")),
            ]),
    ]
}

fn checks() -> Vec<Case> {
    const HOST: &str =
        "tc qdisc del dev $(ip -o link show type veth | cut -d: -f2 | cut -d@ -f1) root";
    const IFB: &str = "tc qdisc del dev $(ip -o link show type ifb | cut -d: -f2) root";
    const NO_IFB: &str = "ip link del $(ip -o link show type ifb | cut -d: -f2)";
    const OTHER_RATE: &str = "tc qdisc change dev $(ip -o link show type veth | cut -d: -f2 | cut -d@ -f1) \
        handle 1: root tbf rate 1mbit burst 10000 latency 25ms";
    let after = |name: &str, keys: Value, command: &'static str, expect: Expect| {
        let check = step("CHECK").before(command).expect(expect);
        bandwidth(name, keys).steps(vec![step("ADD"), check, step("DEL")])
    };
    let only_ours = Expect::OnlyReference(102, "bandwidth-check-looks-for-limits");
    vec![
        after("check-host-end-is-free", ingress(), HOST, only_ours.clone()),
        after("check-ifb-is-free", egress(), IFB, only_ours),
        after("check-other-rate", ingress(), OTHER_RATE, Expect::Error(102)),
        after("check-ifb-is-gone", egress(), NO_IFB, Expect::Error(102)),
    ]
}

fn verbs() -> Vec<Case> {
    vec![
        bandwidth("status", both()).steps(vec![step("STATUS")]).version("1.1.0"),
        bandwidth("add-again-after-no-del", both()).version("1.0.0").steps(vec![
            step("ADD"),
            step("ADD")
                .pod(1)
                .env("CNI_CONTAINERID", "cid1")
                .expect(Expect::OnlyPodwire("bandwidth-takes-the-place-of-what-is-left")),
            step("DEL"),
        ]),
    ]
}

fn versions() -> Vec<Case> {
    let of = |version: &str| bandwidth(&format!("version-{version}"), both()).version(version);
    let both_speak = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"].map(of);
    let older = ["0.1.0", "0.2.0"].map(|it| {
        let all = Expect::OnlyPodwire("bandwidth-speaks-every-version");
        of(it).steps(vec![step("ADD").expect(all.clone()), step("DEL").expect(all)])
    });
    both_speak.into_iter().chain(older).collect()
}

fn errors() -> Vec<Case> {
    let refused = |name: &str, keys: Value| bandwidth(name, keys).fails(7);
    vec![
        refused("rate-without-burst", json!({"ingressRate": 8_000_000})),
        refused("burst-without-rate", json!({"egressBurst": 8_000_000})),
        refused(
            "burst-too-large",
            json!({"ingressRate": 8_000_000, "ingressBurst": 34_359_738_360_u64}),
        ),
        refused("of-runtime-rate-without-burst", of_runtime(json!({"egressRate": 8_000_000}))),
        refused("less-than-a-byte", json!({"ingressRate": 7, "ingressBurst": 8})),
        bandwidth("negative", json!({"ingressRate": -8, "ingressBurst": 8})).fails(7),
        bandwidth("rate-is-text", json!({"ingressRate": "8M", "ingressBurst": 8})).fails(6),
        Case::new("bandwidth/no-prev-result", "bandwidth", both()).fails(7),
        Case::new("bandwidth/no-prev-result-and-nothing", "bandwidth", json!({})).fails(7),
        refused("interface-is-another", both()).env("CNI_IFNAME", "eth9"),
    ]
}
