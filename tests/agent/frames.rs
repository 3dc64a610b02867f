//! Frames with a VLAN tag, which a bridge never shows to iptables: none passes the port of a pod.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use lab::frames::{Interface, Mac, PRIORITY_TAGS};
use lab::{Call, Pod, Space, Suite, by_nftables, slowed};
use serde_json::json;

use crate::guards::{remove_frames, remove_sources_of_links};
use crate::live::{attach, differences};
use crate::node::PolicedNode;

const PORT: u16 = 9999;
/// What has not come by then does not come.
const SILENCE: Duration = Duration::from_millis(300);
/// Nobody's here.
const FOREIGN: [&str; 2] = ["198.51.100.7", "2001:db8:51::7"];

fn parse(texts: [&str; 2]) -> [IpAddr; 2] {
    texts.map(|it| it.parse().unwrap())
}

/// A way by which a datagram may come, of either family.
struct Way<'a> {
    label: &'a str,
    by: &'a Interface,
    mac: Mac,
    from: [IpAddr; 2],
    /// Who has the addresses.
    to: (&'a Space, [IpAddr; 2]),
}

/// By which ways, with which tags, one comes.
fn arrivals(ways: &[Way<'_>]) -> BTreeSet<String> {
    let mut sockets = Vec::new();
    for (number, way) in ways.iter().enumerate() {
        for (from, to) in way.from.into_iter().zip(way.to.1) {
            let port = PORT + u16::try_from(number).unwrap();
            let to = SocketAddr::new(to, port);
            let socket = way.to.0.enter(|| UdpSocket::bind(to)).unwrap();
            socket.set_nonblocking(true).unwrap();
            for tags in [&[][..], &PRIORITY_TAGS[..1], &PRIORITY_TAGS[1..], &PRIORITY_TAGS] {
                let family = if to.is_ipv4() { 4 } else { 6 };
                let label = format!("{}, IPv{family}, tags {tags:x?}", way.label);
                way.by.send(tags, way.mac, [SocketAddr::new(from, PORT), to], label.as_bytes());
            }
            sockets.push(socket);
        }
    }
    std::thread::sleep(slowed(SILENCE));
    let mut room = [0; 256];
    let mut came = BTreeSet::new();
    for socket in &sockets {
        while let Ok(length) = socket.recv(&mut room) {
            came.insert(String::from_utf8(room[..length].to_vec()).unwrap());
        }
    }
    came
}

fn with_tags(came: BTreeSet<String>) -> BTreeSet<String> {
    came.into_iter().filter(|it| !it.ends_with("[]")).collect()
}

/// A namespace at a port of a bridge of the node, or routed where there is none.
fn guest(node: &PolicedNode, name: &str, bridge: Option<&str>, addresses: [&str; 2]) -> Pod {
    let pod = node.node.pod(name);
    node.node.sh(&format!(
        "ip link add {name}0 type veth peer name eth0 netns {pid}; ip link set {name}0 up {master}",
        pid = pod.path().display(),
        master = bridge.map(|it| format!("master {it}")).unwrap_or_default()
    ));
    pod.sh(&format!(
        "ip link set eth0 up; ip addr add {}/24 dev eth0; ip addr add {}/64 dev eth0 nodad",
        addresses[0], addresses[1]
    ));
    pod
}

/// Two guests of a bridge on which there are no pods.
fn guests_without_pods(node: &PolicedNode) -> [Pod; 2] {
    node.node.sh("ip link add br9 up type bridge");
    [("one", "3"), ("two", "4")].map(|(name, last)| {
        let addresses = [&*format!("192.0.4.{last}"), &*format!("2001:db8:4::{last}")];
        guest(node, name, Some("br9"), addresses)
    })
}

fn table(node: &PolicedNode) -> String {
    node.node.try_sh("nft list table bridge podwire").stdout
}

/// The ports that tagged frames are kept from.
fn ports(node: &PolicedNode) -> usize {
    table(node)
        .lines()
        .filter(|it| it.contains("\"veth"))
        .flat_map(|it| it.split(','))
        .filter(|it| it.contains("veth"))
        .count()
}

fn deny_all(node: &PolicedNode) {
    let deny = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "deny"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}});
    node.write("deny", &deny);
    node.wait("isolation", isolates);
}

/// Whether the kernel isolates pods, both ways and in both families.
fn isolates(node: &PolicedNode) -> bool {
    if by_nftables() {
        let rules = node.rules();
        return ["-A forward-to ", "-A forward-from ", ":PODWIRE-TO-"]
            .iter()
            .all(|it| rules.contains(it));
    }
    ["iptables-save", "ip6tables-save"].iter().all(|program| {
        let rules = node.node.sh(program);
        rules.contains("-j PODWIRE-FORWARD")
            && ["-j PODWIRE-TO-", "-g PODWIRE-TO-"].iter().any(|it| rules.contains(it))
    })
}

#[test]
fn tagged_frames_pass_no_port_of_a_pod_whatever_others_do() {
    let mut node = PolicedNode::bridged(&["a", "b"]);
    // Beyond the node; a guest on the pods' bridge; and a bridge without pods.
    let outside = guest(&node, "out", None, ["192.0.2.2", "2001:db8::2"]);
    node.node.sh("ip addr add 192.0.2.1/24 dev out0; ip addr add 2001:db8::1/64 dev out0 nodad
         for it in all default cni0 out0; do echo 0 > /proc/sys/net/ipv4/conf/$it/rp_filter; done");
    let uplink = guest(&node, "up", Some("cni0"), ["192.0.3.2", "2001:db8:3::2"]);
    let [one, two] = guests_without_pods(&node);
    // Nobody told where they are: policyd learns it when they speak.
    for name in ["a", "b"] {
        node.space(name).sh("ping -q -c1 -W5 10.1.0.1; ping -q -c1 -W5 fd00:1::1");
    }
    node.wait("both ports", |it| ports(it) == 2);
    node.wait("both ports' rules, in both families", |it| it.knows(&["a", "b"]));
    let [a, b, uplink, first, second] = [node.space("a"), node.space("b"), &uplink, &one, &two]
        .map(|it| Interface::open(it, "eth0"));
    let bridge = Interface::open(&node.node, "cni0").mac();
    let addresses =
        |node: &PolicedNode, name| <[IpAddr; 2]>::try_from(node.addresses(name)).unwrap();
    let (of_a, of_b) = (addresses(&node, "a"), addresses(&node, "b"));
    let came = |node: &PolicedNode| {
        let to_b = (&**node.space("b"), of_b);
        let to_outside = (&*outside, parse(["192.0.2.2", "2001:db8::2"]));
        let to_two = (&*two, parse(["192.0.4.4", "2001:db8:4::4"]));
        let way = |label, by, mac, from, to| Way { label, by, mac, from, to };
        arrivals(&[
            way("a to b", &a, b.mac(), of_a, to_b),
            way("forged to b", &a, b.mac(), parse(FOREIGN), to_b),
            way("forged through the node", &a, bridge, parse(FOREIGN), to_outside),
            way("guest to b", &uplink, b.mac(), parse(FOREIGN), to_b),
            way("without pods", &first, second.mac(), parse(FOREIGN), to_two),
        ])
    };
    let all = |labels: &[&str], tags: &[&str]| -> BTreeSet<String> {
        let families = |label: &&str| [4, 6].map(|family| format!("{label}, IPv{family}"));
        let ways = labels.iter().flat_map(families);
        ways.flat_map(|way| tags.iter().map(move |tags| format!("{way}, tags {tags}"))).collect()
    };
    let (untagged, tagged) = (["[]"], ["[8100]", "[88a8]", "[8100, 88a8]"]);
    let foreign = &all(&["without pods"], &[untagged.as_slice(), &tagged].concat());
    // A policy is not what it takes.
    assert_eq!(came(&node), foreign | &all(&["a to b", "guest to b"], &untagged));
    deny_all(&node);
    assert_eq!(came(&node), *foreign);

    // Others, while policyd is there.
    for damage in
        ["delete table bridge podwire", "flush chain bridge podwire from-ports", "flush ruleset"]
    {
        node.node.sh(&format!("nft {damage}"));
        node.wait(damage, |it| ports(it) == 2 && table(it).matches(" drop").count() == 2);
        node.wait("isolation", isolates);
        assert_eq!(came(&node), *foreign, "{damage}");
    }
    // What was written is left alone.
    let handles = || node.node.sh("nft -a -s list table bridge podwire");
    let before = handles();
    node.node.sh("ip link add x0 type bridge; ip link del x0");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(handles(), before);

    // It stays without policyd; and is what keeps them out.
    node.kill();
    assert_eq!(came(&node), *foreign);
    remove_frames(&node);
    remove_sources_of_links(&node);
    let unseen = ["a to b", "forged to b", "forged through the node", "guest to b"];
    assert_eq!(with_tags(came(&node)), with_tags(foreign | &all(&unseen, &tagged)));
    node.start();
    node.wait("both ports", |it| ports(it) == 2);
    assert_eq!(came(&node), *foreign);
    node.clean_up();
}

#[test]
fn a_port_is_there_when_the_plugin_answers_and_goes_with_the_pod() {
    let mut node = PolicedNode::bridged(&[]);
    assert_eq!(table(&node), "");
    let pods = [("a", 1), ("b", 2)].map(|(name, count)| {
        let (pod, _) = attach(&node, name);
        assert_eq!(ports(&node), count, "{}", table(&node));
        pod
    });
    deny_all(&node);
    node.kill();
    let explained = |node: &PolicedNode| -> Vec<String> {
        let differences = differences(node, "denied");
        differences.into_iter().map(|(place, problem)| format!("{place}: {problem}")).collect()
    };
    assert_eq!(explained(&node), [""; 0]);
    let unseen = "frames of VLANs and of other protocols than IP pass unseen";
    for (damage, expected) in [
        ("flush chain bridge podwire to-ports", "it is not as policyd wrote it"),
        ("delete table bridge podwire", "it is missing"),
    ] {
        node.node.sh(&format!("nft {damage}"));
        assert_eq!(
            explained(&node),
            [format!("nf_tables: table bridge podwire: {expected}: {unseen}")]
        );
    }
    node.node.sh("ip link set cni0 type bridge nf_call_ip6tables 0");
    assert!(explained(&node).iter().any(|it| it.starts_with("bridge cni0: nf_call_iptables and")));
    node.start();
    assert_eq!(ports(&node), 2);
    assert_eq!(explained(&node), [""; 0]);
    // As a runtime does it, the last plugin first.
    let policy = json!({"cniVersion": "1.0.0", "name": "net", "type": "podwire-policy"});
    let bridge = node.conf();
    for ((name, pod), left) in ["a", "b"].iter().zip(&pods).zip([1, 0]) {
        node.remove(&format!("pod-{name}"));
        for (plugin, conf) in [("podwire-policy", &policy), ("bridge", &bridge)] {
            let call = Call::new(plugin, "DEL").container(name).netns(&pod.path());
            let args = format!("K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}");
            let reply = call.args(&args).conf(conf).run(&node.node, &Suite::podwire());
            assert!(reply.succeeded(), "{plugin}");
        }
        node.wait("the port to go", |it| ports(it) == left);
    }
    node.clean_up();
}
