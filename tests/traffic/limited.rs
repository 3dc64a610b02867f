//! Pods that may send and be sent only so much (bandwidth).

use lab::World;
use lab::probe::{must_not_reach, must_reach};
use serde_json::{Value, json};

use crate::network::{Guest, NODE4, NODE6, Network, WORLD4, WORLD6, dual};

fn ptp() -> Network {
    let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
    Network::new(json!({"type": "ptp", "ipam": dual(&routes)}))
}

/// The limits of a pod, with what the plugin before said of it.
fn limits(guest: &Guest, keys: &Value) -> Value {
    let mut all = json!({"ingressRate": 800_000_000, "ingressBurst": 8_000_000,
        "egressRate": 400_000_000, "egressBurst": 4_000_000, "prevResult": guest.result});
    for (key, value) in keys.as_object().expect("keys are an object") {
        all[key] = value.clone();
    }
    all
}

/// How many packets a link of the node has sent.
fn sent(network: &Network, link: &str) -> u64 {
    let shown = network.node.sh(&format!("ip -s -j link show {link}"));
    let links: Value = serde_json::from_str(&shown).expect("ip prints JSON");
    links[0]["stats64"]["tx"]["packets"].as_u64().expect("it is counted")
}

/// How many packets of a link's limited class were sent, all in all.
fn limited(network: &Network, link: &str) -> u64 {
    let shown = network.node.sh(&format!("tc -s class show dev {link}"));
    let words: Vec<_> = shown.split_whitespace().collect();
    let place = words.iter().position(|it| *it == "pkt").expect("the class counts");
    words[place - 1].parse().expect("a number")
}

/// The host's end of the first link of ptp, and the IFB.
fn links(result: &Value) -> [String; 2] {
    let interfaces = result["interfaces"].as_array().expect("it has interfaces");
    [0, interfaces.len() - 1].map(|it| interfaces[it]["name"].as_str().expect("a name").to_owned())
}

#[test]
fn what_a_pod_sends_passes_the_chains_of_its_interface_and_the_ifb() {
    let network = ptp();
    let world = network.world();
    let (guest, other) = (network.guest("one"), network.guest("two"));
    world
        .sh(&format!("ip route add 10.1.0.0/24 via {NODE4}; ip route add fd00:1::/64 via {NODE6}"));
    let before = World::of(&network.node, &[&guest.pod, &other.pod]);
    let limits = limits(&guest, &json!({}));
    let result = network.chained("bandwidth", "ADD", (&guest.pod, "eth0"), &limits).ok();
    let [host_end, ifb] = links(&result);
    guest.must_be_seen_by(&world, [WORLD4, WORLD6], [&guest.v4, &guest.v6]);
    assert!(sent(&network, &ifb) > 0);
    // As policyd has one for each pod, and podwire-policy for those that are kept back.
    network.node.sh(&format!(
        "nft -f - <<END
         table netdev early {{
             chain c {{
                 type filter hook ingress device {host_end} priority -400;
                 meta l4proto {{ tcp, udp }} drop
             }}
         }}
END"
    ));
    must_not_reach(&guest.pod, &world, WORLD4);
    must_not_reach(&guest.pod, &world, WORLD6);
    network.node.sh("nft delete table netdev early");
    must_reach(&guest.pod, &world, WORLD4);
    let check = json!({"prevResult": result});
    let mut whole = limits;
    whole["prevResult"] = check["prevResult"].clone();
    assert!(network.chained("bandwidth", "CHECK", (&guest.pod, "eth0"), &whole).succeeded());
    network.node.sh("nft delete table netdev podwire-bandwidth");
    let error =
        network.chained("bandwidth", "CHECK", (&guest.pod, "eth0"), &whole).expect_error(102);
    assert!(error.msg.contains("is not redirected"), "{error:?}");
    assert!(network.chained("bandwidth", "DEL", (&guest.pod, "eth0"), &whole).succeeded());
    network.node.sh(&format!("tc qdisc del dev {host_end} root"));
    World::of(&network.node, &[&guest.pod, &other.pod]).must_be(&before, "after DEL");
    network.leave(&guest);
    network.leave(&other);
}

#[test]
fn only_what_goes_to_some_networks_is_limited_or_all_else() {
    for (key, limits_world) in [("shapedSubnets", true), ("unshapedSubnets", false)] {
        let network = ptp();
        let world = network.world();
        let guest = network.guest("one");
        world.sh(&format!(
            "ip route add 10.1.0.0/24 via {NODE4}; ip route add fd00:1::/64 via {NODE6}"
        ));
        let mut keys = limits(&guest, &json!({}));
        keys[key] = json!(["192.0.2.2/32", "2001:db8::/64"]);
        let result = network.chained("bandwidth", "ADD", (&guest.pod, "eth0"), &keys).ok();
        let ends = links(&result);
        for (address, is_world) in
            [(WORLD4, true), (WORLD6, true), ("10.1.0.1", false), ("fd00:1::1", false)]
        {
            let before = ends.clone().map(|it| limited(&network, &it));
            let place = if is_world { &*world } else { &*network.node };
            for _ in 0..5 {
                must_reach(&guest.pod, place, address);
            }
            for (link, before) in ends.iter().zip(before) {
                // Messages of discovery are between neighbours, and few.
                let grew = limited(&network, link) - before;
                let is_limited = is_world == limits_world;
                assert_eq!(grew > 12, is_limited, "{key}: {grew} packets by {link} for {address}");
            }
        }
        keys["prevResult"] = result;
        assert!(network.chained("bandwidth", "CHECK", (&guest.pod, "eth0"), &keys).succeeded());
        assert!(network.chained("bandwidth", "DEL", (&guest.pod, "eth0"), &keys).succeeded());
        network.leave(&guest);
    }
}

#[test]
fn each_interface_of_a_container_has_its_own_and_gc_takes_what_is_stale() {
    let network = ptp();
    let guest = network.guest("one");
    let pid = guest.pod.path();
    network.node.sh(&format!(
        "ip link add second type veth peer name net1 netns {}; ip link set second up",
        pid.display()
    ));
    guest.pod.sh("ip link set net1 up");
    let before = World::of(&network.node, &[&guest.pod]);
    let keys = limits(&guest, &json!({"ingressRate": 0, "ingressBurst": 0}));
    let ifbs = ["eth0", "net1"].map(|ifname| {
        let result = network.chained("bandwidth", "ADD", (&guest.pod, ifname), &keys).ok();
        let [_, ifb] = links(&result);
        ifb
    });
    assert_ne!(ifbs[0], ifbs[1]);
    let has = |ifb: &str| network.node.try_sh(&format!("ip link show {ifb}")).status.success();
    let check = |ifname| network.chained("bandwidth", "CHECK", (&guest.pod, ifname), &keys);
    assert!(check("eth0").succeeded() && check("net1").succeeded());
    let gc = |valid: Value| {
        let list = json!({"cni.dev/valid-attachments": valid});
        assert!(network.chained("bandwidth", "GC", (&guest.pod, "eth0"), &list).succeeded());
    };
    let attachment = |ifname| json!({"containerID": "one", "ifname": ifname});
    gc(json!([attachment("eth0"), attachment("net1")]));
    assert!(check("eth0").succeeded() && check("net1").succeeded());
    // Of another network nothing goes.
    let other = json!({"name": "net2", "cni.dev/valid-attachments": []});
    assert!(network.chained("bandwidth", "GC", (&guest.pod, "eth0"), &other).succeeded());
    assert!(check("eth0").succeeded() && check("net1").succeeded());
    gc(json!([attachment("net1")]));
    assert!(!has(&ifbs[0]) && check("net1").succeeded());
    assert!(network.chained("bandwidth", "DEL", (&guest.pod, "eth0"), &keys).succeeded());
    assert!(check("net1").succeeded());
    assert!(network.chained("bandwidth", "DEL", (&guest.pod, "net1"), &keys).succeeded());
    World::of(&network.node, &[&guest.pod]).must_be(&before, "after both DELs");
    network.leave(&guest);
}

/// A pod's second interface whose end on the node has always the same name, as some make it of the pod's.
fn connect(network: &Network, guest: &Guest) {
    network.node.sh(&format!(
        "ip link add named type veth peer name net1 netns {}
         ip link set named up; ip addr add 198.51.100.1/24 dev named",
        guest.pod.path().display()
    ));
    guest.pod.sh("ip link set net1 up; ip addr add 198.51.100.2/24 dev net1");
}

/// In newer kernels the chains of a link outlive it, and are called for what gets its name next.
#[test]
fn what_a_dead_pod_leaves_is_not_for_the_next_that_has_its_links_name() {
    let network = ptp();
    let (dead, next) = (network.guest("one"), network.guest("two"));
    let before = World::of(&network.node, &[&dead.pod, &next.pod]);
    // Less than a packet.
    let none = json!({"ingressRate": 0, "ingressBurst": 0, "egressRate": 8, "egressBurst": 8});
    let keys = limits(&dead, &none);
    for is_ifb_gone in [true, false] {
        connect(&network, &dead);
        let result = network.chained("bandwidth", "ADD", (&dead.pod, "net1"), &keys).ok();
        must_not_reach(&dead.pod, &network.node, "198.51.100.1");
        let [_, ifb] = links(&result);
        // The reference's DEL removes that alone; or none came.
        if is_ifb_gone {
            network.node.sh(&format!("ip link del {ifb}"));
        }
        network.node.sh("ip link del named");
        connect(&network, &next);
        must_reach(&next.pod, &network.node, "198.51.100.1");
        network.node.sh("ip link del named");
        assert!(network.chained("bandwidth", "DEL", (&dead.pod, "net1"), &keys).succeeded());
        World::of(&network.node, &[&dead.pod, &next.pod]).must_be(&before, "after a late DEL");
    }
    network.leave(&dead);
    network.leave(&next);
}

/// Earlier releases made a rule that asked for no link.
#[test]
fn rules_that_ask_for_no_link_are_known_and_make_room_for_the_next_on_theirs() {
    let network = ptp();
    let (dead, next) = (network.guest("one"), network.guest("two"));
    let before = World::of(&network.node, &[&dead.pod, &next.pod]);
    let egress = json!({"ingressRate": 0, "ingressBurst": 0});
    let of = |guest: &Guest, command: &str| {
        network.chained("bandwidth", command, (&guest.pod, "net1"), &limits(guest, &egress))
    };
    let chain = |ifb: &str| format!("netdev podwire-bandwidth {ifb}");
    connect(&network, &dead);
    let [_, ifb] = links(&of(&dead, "ADD").ok());
    let shown = network.node.sh(&format!("nft list chain {}", chain(&ifb)));
    let rule = shown.lines().find(|it| it.contains("fwd to")).expect("it has a rule").trim();
    let old = rule.strip_prefix("iif \"named\" ").expect("it asks for the link");
    let comment = old.split('"').nth(3).expect("it has a comment");
    network.node.sh(&format!(
        "nft -f - <<END
         flush chain {chain}
         add rule {chain} fwd to {ifb} comment \"{comment}\"
END",
        chain = chain(&ifb)
    ));
    assert!(of(&dead, "CHECK").succeeded());
    network.node.sh("ip link del named");
    connect(&network, &next);
    let [_, other] = links(&of(&next, "ADD").ok());
    let sent_before = sent(&network, &ifb);
    must_reach(&next.pod, &network.node, "198.51.100.1");
    assert!(sent(&network, &other) > 0 && sent(&network, &ifb) == sent_before);
    // A late DEL finds its IFB, and nothing of the other.
    assert!(of(&dead, "DEL").succeeded() && of(&next, "CHECK").succeeded());
    // The same name is not the same link.
    network.node.sh("ip link del named");
    connect(&network, &next);
    let error = of(&next, "CHECK").expect_error(102);
    assert!(error.msg.contains("is not redirected"), "{error:?}");
    let other_rate = json!({"ingressRate": 0, "ingressBurst": 0, "egressRate": 8_000_000});
    let other_rate = limits(&next, &other_rate);
    let check = network.chained("bandwidth", "CHECK", (&next.pod, "net1"), &other_rate);
    let error = check.expect_error(102);
    let both = ["has a limit of 400000000 bits a second", "not a limit of 8000000 bits a second"];
    assert!(both.iter().all(|it| error.msg.contains(it)), "{error:?}");
    network.node.sh("ip link del named");
    assert!(of(&next, "DEL").succeeded());
    World::of(&network.node, &[&dead.pod, &next.pod]).must_be(&before, "after both DELs");
    network.leave(&dead);
    network.leave(&next);
}
