//! Frames that no stack would send, by whoever has a pod: none makes a flow known that policy has not
//! allowed, and none comes where it is not for.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

use lab::frames::{Ear, Fragment, HOPS, Interface, Mac, TO_ALL, UDP};
use lab::sockets::{received, udp};
use lab::{by_nftables, slowed};
use serde_json::{Value, json};

use crate::guards::{remove_frames, remove_sources, remove_sources_of_links, remove_unanswered};
use crate::node::PolicedNode;

const PORT: u16 = 7900;
/// What has not come by then does not come.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);
/// Of a bridge's own, which it does not forward (802.1Q, table 8-1): the nearest bridge's.
const TO_BRIDGE: Mac = [1, 0x80, 0xc2, 0, 0, 0x0e];
/// A group of Ethernet's, of no group of IP's.
const TO_SOME: Mac = [3, 0, 0, 0, 0, 1];

fn deny(name: &str, kind: &str) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name},
        "spec": {"podSelector": {"matchLabels": {"app": name}}, "policyTypes": [kind]}})
}

/// Makes the node's neighbours tell policyd where pods are.
fn settle(node: &PolicedNode, names: &[&str]) {
    for name in names {
        node.addresses(name).iter().for_each(|it| _ = node.node.sh(&format!("ping -c1 -W5 {it}")));
    }
    node.wait("the interfaces", |it| it.knows(names));
}

/// The same, and then pod b may be sent nothing.
pub(crate) fn settle_and_isolate_b(node: &PolicedNode, names: &[&str]) {
    settle(node, names);
    node.write("b", &deny("b", "Ingress"));
    node.wait("isolation", |it| it.rules().contains("PODWIRE-TO-"));
}

/// How somebody who may not send to another one tries to have it taken for an answer.
struct Try<'a> {
    name: String,
    /// Who sends, and by what.
    from: (&'a str, &'a Interface),
    /// To whom, and by what he may help with it.
    to: (&'a str, &'a Interface),
    to_several: Mac,
    /// Whether the first frame is an honest one.
    is_honest: bool,
    /// Whether it is the other one who sends the first.
    is_helped: bool,
}

impl Try<'_> {
    fn make(&self, node: &PolicedNode, port: u16) {
        let addresses = node.addresses(self.from.0).iter().zip(node.addresses(self.to.0));
        for (from, to) in addresses {
            let family = if from.is_ipv4() { 4 } else { 6 };
            let there = [SocketAddr::new(*from, port), SocketAddr::new(*to, PORT)];
            let back = [there[1], there[0]];
            let by = self.from.1;
            let bystander = [2, 0, 0, 0, 0, 9];
            match (self.is_helped, self.is_honest) {
                (true, _) => self.to.1.send(&[], self.to_several, back, b"first"),
                (false, false) => by.send(&[], self.to_several, back, b"first"),
                (false, true) => {
                    by.send(&[], self.to_several, there, b"first");
                    by.send(&[], bystander, back, b"forged");
                }
            }
            sleep(Duration::from_millis(2));
            let word = format!("{}, IPv{family}", self.name);
            by.send(&[], self.to.1.mac(), there, word.as_bytes());
        }
    }
}

fn tries<'a>(
    from: (&'a str, &'a Interface),
    to: (&'a str, &'a Interface),
    may_help: bool,
) -> Vec<Try<'a>> {
    let mut tries = Vec::new();
    for (group, to_several) in [("all", TO_ALL), ("some", TO_SOME)] {
        for (kind, is_honest, is_helped) in
            [("forged", false, false), ("honest", true, false), ("helped", true, true)]
        {
            if is_helped && !may_help {
                continue;
            }
            let name = format!("{} to {}, {kind}, to {group}", from.0, to.0);
            tries.push(Try { name, from, to, to_several, is_honest, is_helped });
        }
    }
    tries
}

/// `br_nf_local_in` makes the flow of a frame known that is for several stations, before any port has
/// let it pass. So what looks at sources comes ahead of conntrack.
#[test]
fn no_frame_makes_a_flow_known_that_is_not_allowed() {
    let names = ["a", "b", "d", "e"];
    let mut node = PolicedNode::bridged(&names);
    settle(&node, &names);
    let [by_a, by_b, by_d, by_e] = names.map(|it| Interface::open(node.space(it), "eth0"));
    let (at_b, at_d) = (node.listener("b", PORT), node.listener("d", PORT));
    // b may be sent nothing, and e may send nothing; d would help e.
    let all: Vec<_> = tries(("a", &by_a), ("b", &by_b), false)
        .into_iter()
        .chain(tries(("e", &by_e), ("d", &by_d), true))
        .collect();
    let came = |node: &PolicedNode, round: u16| {
        for (index, it) in all.iter().enumerate() {
            it.make(node, 20_000 + 100 * round + u16::try_from(index).unwrap());
        }
        sleep(slowed(SILENCE));
        let mut came = &received(&at_b) | &received(&at_d);
        came.remove("first");
        came
    };
    let of_all: BTreeSet<_> = all
        .iter()
        .flat_map(|it| [4, 6].map(|family| format!("{}, IPv{family}", it.name)))
        .collect();
    assert_eq!(came(&node, 0), of_all, "nothing is isolated");
    node.write("b", &deny("b", "Ingress"));
    node.write("e", &deny("e", "Egress"));
    // By iptables the families are written one after the other.
    let (chain, count) = if by_nftables() { ("PODWIRE-", 1) } else { (":PODWIRE-", 2) };
    node.wait("isolation", |it| {
        let rules = it.rules();
        ["TO-", "FROM-"].iter().all(|it| rules.matches(&format!("{chain}{it}")).count() >= count)
    });
    assert_eq!(came(&node, 1), BTreeSet::new());
    assert_eq!(came(&node, 2), BTreeSet::new());
    // As where the kernel has no tables for interfaces.
    node.kill();
    node.node.sh("nft delete table netdev podwire-sources");
    assert_eq!(came(&node, 3), BTreeSet::new());
    // Without what looks at sources each try succeeds: it is this that keeps them out.
    remove_sources(&node);
    assert_eq!(came(&node, 4), of_all);
    node.start();
    node.wait("sources", |it| it.rules().to_uppercase().contains("-A PREROUTING"));
    assert_eq!(came(&node, 5), BTreeSet::new());
    node.clean_up();
}

#[test]
fn what_is_for_one_pod_comes_to_no_other_pods_port() {
    let names = ["a", "c", "e"];
    let node = PolicedNode::bridged(&names);
    settle(&node, &names);
    let [by_a, by_c, by_e] = names.map(|it| Interface::open(node.space(it), "eth0"));
    let ears = ["a", "c"].map(|it| Ear::open(node.space(it), "eth0"));
    let words = ["by the way 4", "by the way 6", "honestly 4", "honestly 6"];
    let heard = || {
        for (from, to) in node.addresses("e").iter().zip(node.addresses("c")) {
            let ends = [SocketAddr::new(*from, PORT), SocketAddr::new(*to, PORT)];
            let family = if from.is_ipv4() { 4 } else { 6 };
            by_e.send(&[], by_c.mac(), ends, format!("honestly {family}").as_bytes());
            by_e.send(&[], by_a.mac(), ends, format!("by the way {family}").as_bytes());
        }
        sleep(slowed(SILENCE));
        ears.each_ref().map(|it| it.heard(&words))
    };
    let [to_a, to_c] = [&words[..2], &words[2..]].map(|it| it.iter().copied().collect());
    assert_eq!(heard(), [to_a, BTreeSet::clone(&to_c)]);
    let mut policy = deny("e", "Egress");
    policy["spec"]["egress"] = json!([{"to": [{"podSelector": {"matchLabels": {"app": "c"}}}]}]);
    node.write("e", &policy);
    let (jump, count) =
        if by_nftables() { ("jump PODWIRE-EGRESS-", 1) } else { ("-j PODWIRE-EGRESS-", 2) };
    node.wait("isolation", |it| it.rules().matches(jump).count() == count);
    // Of the flow that is known, too.
    assert_eq!(heard(), [BTreeSet::new(), to_c]);
    node.clean_up();
}

/// A router forwards nothing to a link-local address; the kernel does, back to where it came from.
#[test]
fn no_link_local_address_is_reached_by_way_of_the_node() {
    let node = PolicedNode::bridged(&["a", "b"]);
    settle(&node, &["a", "b"]);
    let by_a = Interface::open(node.space("a"), "eth0");
    let gateway = Interface::open(&node.node, "cni0").mac();
    let at_b = node.listener("b", PORT);
    let own = *node.addresses("a").iter().find(|it| it.is_ipv6()).unwrap();
    let to = SocketAddr::new(node.space("b").link_local("eth0").into(), PORT);
    let came = || {
        by_a.send(&[], gateway, [SocketAddr::new(own, PORT), to], b"by way of the node");
        sleep(slowed(SILENCE));
        received(&at_b)
    };
    assert_eq!(came(), BTreeSet::from(["by way of the node".to_owned()]));
    node.write("b", &deny("b", "Ingress"));
    node.wait("isolation", |it| it.rules().contains("PODWIRE-TO-"));
    assert_eq!(came(), BTreeSet::new());
    node.clean_up();
}

/// The bridge hands on what is for another port's own address, and that makes a flow known, too
/// (`br_nf_local_in`). Then there can be errors about answers in it, though there were none.
#[test]
fn no_error_comes_about_an_answer_that_was_not_given() {
    let names = ["a", "b", "d"];
    let mut node = PolicedNode::bridged(&names);
    settle_and_isolate_b(&node, &names);
    let [by_a, by_b] = ["a", "b"].map(|it| Interface::open(node.space(it), "eth0"));
    // `2: eth0@if7: ...`, and on the node `7: veth...@if2: ...`
    let of_d = node.space("d").sh("ip -o link show eth0");
    let number = of_d.split("@if").nth(1).unwrap().split(':').next().unwrap();
    let links = node.node.sh("ip -o link");
    let of_port = links.lines().find(|it| it.starts_with(&format!("{number}: "))).unwrap();
    let port = of_port.split(' ').nth(1).unwrap().split('@').next().unwrap();
    let to_port = Interface::open(&node.node, port).mac();
    let ear = Ear::open(node.space("b"), "eth0");
    let words = ["quoted 4", "quoted 6"];
    let heard = |node: &PolicedNode, number: u16| {
        for (from, to) in node.addresses("a").iter().zip(node.addresses("b")) {
            let there = [SocketAddr::new(*from, number), SocketAddr::new(*to, PORT)];
            by_a.send(&[], to_port, there, b"for the port itself");
            sleep(Duration::from_millis(20));
            let word = words[usize::from(from.is_ipv6())];
            let back = [there[1], there[0]];
            by_a.send_undelivered(by_b.mac(), [*from, *to], back, word.as_bytes());
        }
        sleep(slowed(SILENCE));
        ear.heard(&words)
    };
    assert_eq!(heard(&node, 30_000), BTreeSet::new());
    node.kill();
    remove_unanswered(&node);
    assert_eq!(heard(&node, 30_001), words.into());
    node.start();
    assert_eq!(heard(&node, 30_002), BTreeSet::new());
    node.clean_up();
}

/// IPX, PPPoE, an experiment's, and one with a length instead.
const OTHERS: [(u16, &str); 4] =
    [(0x8137, "of IPX"), (0x8864, "of PPPoE"), (0x88b5, "of mine"), (0x0026, "of LLC")];

#[test]
fn frames_of_other_protocols_pass_no_pods_port() {
    let mut node = PolicedNode::bridged(&["a", "b"]);
    settle(&node, &["a", "b"]);
    let [by_a, by_b] = ["a", "b"].map(|it| Interface::open(node.space(it), "eth0"));
    let ear = Ear::open(node.space("b"), "eth0");
    let words = OTHERS.map(|(_, word)| word);
    let heard = || {
        for (kind, word) in OTHERS {
            let content = format!("{word:_<38}");
            by_a.send_other(&[], by_b.mac(), kind, content.as_bytes());
            by_a.send_other(&[], TO_ALL, kind, content.as_bytes());
        }
        sleep(slowed(SILENCE));
        ear.heard(&words)
    };
    assert_eq!(heard(), BTreeSet::new());
    node.kill();
    assert_eq!(heard(), BTreeSet::new());
    node.node.sh("nft delete table netdev podwire-sources");
    assert_eq!(heard(), BTreeSet::new());
    remove_frames(&node);
    assert_eq!(heard(), words.into());
    node.start();
    assert_eq!(heard(), BTreeSet::new());
    node.clean_up();
}

/// The node tells the sender of what it cannot forward, and quotes it: whoever forges the source sends
/// by the node, which no policy keeps from its pods.
#[test]
fn the_node_answers_nobody_for_a_forger() {
    let node = PolicedNode::new(&["a", "b"]);
    settle_and_isolate_b(&node, &["a", "b"]);
    let by_a = Interface::open(node.space("a"), "eth0");
    let gateway = Interface::open(&node.node, &node.link_of("a")).mac();
    let ears = ["a", "b"].map(|it| Ear::open(node.space(it), "eth0"));
    let of_b = node.link_of("b");
    node.node.sh(&format!(
        "ip route add 192.0.2.0/24 dev {of_b}; ip route add 2001:db8::/64 dev {of_b}"
    ));
    let beyond: [IpAddr; 2] = ["192.0.2.9", "2001:db8::9"].map(|it| it.parse().unwrap());
    let words = ["forged 4", "forged 6", "honest 4", "honest 6"];
    let addresses = node.addresses("a").iter().zip(node.addresses("b")).zip(beyond);
    for ((own, other), beyond) in addresses {
        let family = if own.is_ipv4() { 4 } else { 6 };
        for (word, source) in [("honest", own), ("forged", other)] {
            let ends = [SocketAddr::new(*source, PORT), SocketAddr::new(beyond, PORT)];
            let word = format!("{word} {family}, to be quoted");
            // Its own interface hears what it sends, too.
            by_a.send_dying(gateway, ends, word.as_bytes());
        }
    }
    sleep(slowed(SILENCE));
    let [at_a, at_b] = ears.each_ref().map(|it| it.heard(&words));
    assert_eq!(at_a, words.into());
    assert_eq!(at_b, BTreeSet::new());
    let told = node.space("a").sh("nstat -az IcmpInTimeExcds Icmp6InTimeExcds");
    assert!(
        told.lines().filter(|it| it.contains("TimeExcds")).all(|it| !it.contains(" 0 ")),
        "{told}"
    );
    node.clean_up();
}

/// Frames to a bridge's own groups come to the node as if the port were none.
#[test]
fn no_source_is_forged_by_a_frame_to_the_bridge_alone() {
    let mut node = PolicedNode::bridged(&["a"]);
    settle(&node, &["a"]);
    node.node.sh("for it in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $it; done");
    let by_a = Interface::open(node.space("a"), "eth0");
    let any = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), PORT);
    let at_node = node.node.enter(|| udp(any));
    let came = || {
        for [from, to] in [["198.51.100.7", "10.1.0.1"], ["2001:db8:51::7", "fd00:1::1"]] {
            let ends = [from, to].map(|it| SocketAddr::new(it.parse().unwrap(), PORT));
            by_a.send(&[], TO_BRIDGE, ends, from.as_bytes());
        }
        sleep(slowed(SILENCE));
        received(&at_node)
    };
    assert_eq!(came(), BTreeSet::new());
    node.kill();
    node.node.sh("nft delete table netdev podwire-sources");
    assert_eq!(came(), BTreeSet::new());
    remove_sources(&node);
    assert_eq!(came(), ["198.51.100.7", "2001:db8:51::7"].map(str::to_owned).into());
    node.start();
    assert_eq!(came(), BTreeSet::new());
    node.clean_up();
}

/// A pod's address of IPv6.
pub(crate) fn v6(node: &PolicedNode, name: &str) -> Ipv6Addr {
    let v6 = |it: &IpAddr| match it {
        IpAddr::V4(_) => None,
        IpAddr::V6(it) => Some(*it),
    };
    node.addresses(name).iter().find_map(v6).unwrap()
}

/// The kernel refuses some packets of IPv6 before any rule sees them, and quotes them.
#[test]
fn the_node_refuses_no_option_for_a_forger() {
    let mut node = PolicedNode::new(&["a", "b"]);
    settle_and_isolate_b(&node, &["a", "b"]);
    let by_a = Interface::open(node.space("a"), "eth0");
    let gateway = Interface::open(&node.node, &node.link_of("a")).mac();
    let ear = Ear::open(node.space("b"), "eth0");
    let of_b = v6(&node, "b");
    // The kernel takes off all of several tags of VLAN 0, but only one of them ahead of any rule.
    let tags = [&[][..], &[0x8100], &[0x8100; 2], &[0x88a8, 0x8100], &[0x8100; 3]];
    let words: Vec<String> = tags.iter().map(|it| format!("to be quoted {it:x?}")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let heard = || {
        for (tags, word) in tags.iter().zip(&words) {
            let ends = [of_b, "2001:db8::9".parse().unwrap()];
            by_a.send_refused(tags, gateway, ends, 59, word.as_bytes());
            // Of errors to one address, the kernel sends few at a time.
            sleep(Duration::from_millis(300));
        }
        sleep(slowed(SILENCE));
        ear.heard(&words)
    };
    assert_eq!(heard(), BTreeSet::new());
    // They are counted, by whoever drops them.
    let told = node.metric("policyd_forged_sources_total");
    assert!(told >= u64::try_from(words.len()).unwrap(), "{told}");
    node.kill();
    assert_eq!(heard(), BTreeSet::new());
    node.node.sh("nft delete table netdev podwire-sources");
    assert_eq!(heard(), words.iter().copied().collect());
    node.start();
    assert_eq!(heard(), BTreeSet::new());
    node.clean_up();
}

/// It answers options that it cannot take ahead of table raw, which would see that there is more to a packet
/// than discovery has.
#[test]
fn no_option_of_discovery_has_the_node_answer_a_forger() {
    let mut node = PolicedNode::bridged(&["a", "b"]);
    settle_and_isolate_b(&node, &["a", "b"]);
    let by_a = Interface::open(node.space("a"), "eth0");
    let bridge = Interface::open(&node.node, "cni0").mac();
    let ear = Ear::open(node.space("b"), "eth0");
    let ends = [node.space("b").link_local("eth0"), node.node.link_local("cni0")];
    // A solicitation, of nobody.
    let content = [&[135, 0, 0, 0][..], &[0; 20], b"to be quoted"].concat();
    let heard = || {
        by_a.send_refused(&[], bridge, ends, 58, &content);
        sleep(slowed(SILENCE));
        !ear.heard(&["to be quoted"]).is_empty()
    };
    assert!(!heard());
    node.kill();
    assert!(!heard());
    node.node.sh("nft delete table netdev podwire-sources");
    assert!(heard());
    node.start();
    assert!(!heard());
    node.clean_up();
}

/// The node tells of a datagram of which fragments are missing to whoever seems to have sent it, and quotes
/// the first; no source of a link is an address of a pod.
#[test]
fn the_node_tells_nobody_of_fragments_of_a_forger() {
    let mut node = PolicedNode::bridged(&["a", "b"]);
    settle_and_isolate_b(&node, &["a", "b"]);
    node.node.sh("sysctl -qw net.netfilter.nf_conntrack_frag6_timeout=1");
    let by_a = Interface::open(node.space("a"), "eth0");
    let bridge = Interface::open(&node.node, "cni0").mac();
    let ear = Ear::open(node.space("b"), "eth0");
    let global = v6(&node, "b");
    let sources = [("by its address", global), ("by its link", node.space("b").link_local("eth0"))];
    let words = sources.map(|(word, _)| word);
    let heard = || {
        for (word, source) in sources {
            let content = format!("________{word:_<24}");
            let ends = [source.into(), "fd00:1::1".parse().unwrap()];
            let content = content.as_bytes();
            let begin = Fragment { protocol: UDP, number: 1, place: 0, is_last: false, content };
            by_a.send_fragment(bridge, ends, HOPS, &begin);
        }
        sleep(Duration::from_secs(3));
        ear.heard(&words)
    };
    assert_eq!(heard(), BTreeSet::new());
    node.kill();
    assert_eq!(heard(), BTreeSet::new());
    remove_sources_of_links(&node);
    assert_eq!(heard(), words.into());
    node.start();
    assert_eq!(heard(), BTreeSet::new());
    node.clean_up();
}

/// The kernel puts fragments together before iptables sees them, by addresses and a number.
#[test]
fn no_fragment_comes_among_those_of_another_pod() {
    let mut node = PolicedNode::new(&["a", "b", "c"]);
    settle(&node, &["a", "b", "c"]);
    let ends = ["c", "b"].map(|it| *node.addresses(it).iter().find(|it| it.is_ipv4()).unwrap());
    let mut policy = deny("b", "Ingress");
    policy["spec"]["ingress"] = json!([{"from": [{"podSelector": {"matchLabels": {"app": "c"}}}]}]);
    node.write("b", &policy);
    node.wait("isolation", |it| it.rules().contains("PODWIRE-TO-"));
    node.node.sh("for it in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $it; done");
    let [by_a, by_c] = ["a", "c"].map(|it| Interface::open(node.space(it), "eth0"));
    let gateways = ["a", "c"].map(|it| Interface::open(&node.node, &node.link_of(it)).mac());
    let at_b = node.listener("b", PORT);
    let first = |word: &str| -> Vec<u8> {
        let length = u16::try_from(8 + 16).unwrap();
        let header = [PORT.to_be_bytes(), PORT.to_be_bytes(), length.to_be_bytes(), [0, 0]];
        [header.as_flattened(), format!("{word:_<8}").as_bytes()].concat()
    };
    let came = |number: u16| {
        let [forged, honest] = ["forged", "honest"].map(first);
        let begin = |content| Fragment { protocol: UDP, number, place: 0, is_last: false, content };
        by_a.send_fragment(gateways[0], ends, HOPS, &begin(&forged));
        sleep(Duration::from_millis(20));
        by_c.send_fragment(gateways[1], ends, HOPS, &begin(&honest));
        let content = b"________";
        let end = Fragment { protocol: UDP, number, place: 2, is_last: true, content };
        by_c.send_fragment(gateways[1], ends, HOPS, &end);
        sleep(slowed(SILENCE));
        received(&at_b)
    };
    let word = |word: &str| BTreeSet::from([format!("{word:_<16}")]);
    assert_eq!(came(1), word("honest"));
    node.kill();
    assert_eq!(came(2), word("honest"));
    node.node.sh("nft delete table netdev podwire-sources");
    assert_eq!(came(3), word("forged"));
    node.start();
    assert_eq!(came(4), word("honest"));
    node.clean_up();
}

/// Whatever others do to the table, it comes back; and goes with the pod.
#[test]
fn what_looks_at_interfaces_comes_back_and_goes_with_them() {
    let mut node = PolicedNode::new(&["a", "b"]);
    settle(&node, &["a", "b"]);
    let table = |node: &PolicedNode| {
        node.node.try_sh("nft --stateless list table netdev podwire-sources").stdout
    };
    let chains = |node: &PolicedNode| table(node).matches("hook ingress").count();
    node.wait("both interfaces", |it| chains(it) == 2);
    let whole = table(&node);
    let link = node.link_of("a");
    let end = whole.lines().map(str::trim).find(|it| it.starts_with("counter")).unwrap();
    let of_others = "add chain netdev podwire-sources";
    let emptied =
        ["a", "b"].map(|it| format!("flush chain netdev podwire-sources {}; ", node.link_of(it)));
    for damage in [
        "delete table netdev podwire-sources".to_owned(),
        format!(
            "delete chain netdev podwire-sources {link}; {of_others} {link}; {of_others} other; add rule netdev podwire-sources other jump {link}"
        ),
        format!(
            "delete table netdev podwire-sources; add table netdev podwire-sources; {of_others} forged/ {{ type filter hook ingress device {link} priority 0; }}; add rule netdev podwire-sources forged/ {end}"
        ),
        "flush ruleset".to_owned(),
        // As a release had it that did not look at fragments.
        format!(
            "{}delete chain netdev podwire-sources fragments/; delete chain netdev podwire-sources fragments6/",
            emptied.concat()
        ),
        format!("flush chain netdev podwire-sources {link}"),
        format!("insert rule netdev podwire-sources {link} ip saddr 192.0.2.9 return"),
        "add rule netdev podwire-sources forged/ accept".to_owned(),
        "add table netdev podwire-sources { flags dormant; }".to_owned(),
        format!(
            "delete chain netdev podwire-sources {link}; {of_others} {link} {{ type filter hook ingress device {link} priority 7; }}"
        ),
    ] {
        node.node.sh(&format!("nft '{damage}'"));
        node.wait(&damage, |it| {
            let (mut now, mut before) = (table(it), whole.clone());
            // The kernel lists chains in the order in which they were made.
            for text in [&mut now, &mut before] {
                let mut lines: Vec<&str> = text.lines().collect();
                lines.sort_unstable();
                *text = lines.join("\n");
            }
            now == before
        });
    }
    node.kill();
    node.start();
    node.remove("pod-a");
    node.node.sh(&format!("ip link del {link}"));
    node.wait("the interface to go", |it| chains(it) == 1);
    node.clean_up();
}
