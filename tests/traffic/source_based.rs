//! A pod with two interfaces answers by the one that it was asked by.

use lab::probe::{Protocol, Server, must_not_reach_at, must_reach_at};
use lab::{Call, Node, Pod, Space, Suite};
use serde_json::{Value, json};

/// The client, who is neither in the one network nor in the other.
const CLIENT: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

/// A node with two networks of bridges, which take packets only from their own addresses.
struct TwoNetworks {
    node: Node,
    pod: Pod,
    client: Pod,
    podwire: Suite,
}

impl TwoNetworks {
    fn new() -> Self {
        let node = Node::new();
        let (pod, client) = (node.pod("pod1"), node.pod("client"));
        node.sh(&format!(
            "ip link add up0 type veth peer name eth0 netns {}; ip link set up0 up
             ip addr add 192.0.2.1/24 dev up0; ip addr add 2001:db8::1/64 dev up0 nodad
             nft add table inet guard
             nft 'add chain inet guard forward {{ type filter hook forward priority 0; }}'
             for it in 1 2; do
                nft add rule inet guard forward iifname br$it ip saddr != 10.$it.0.0/24 drop
                nft add rule inet guard forward iifname br$it ip6 saddr != fd00:$it::/64 drop
             done
             echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; echo 1 > /proc/sys/net/ipv4/ip_forward",
            client.path().display()
        ));
        let [v4, v6] = CLIENT;
        client.sh(&format!(
            "ip link set lo up; ip link set eth0 up
             ip addr add {v4}/24 dev eth0; ip addr add {v6}/64 dev eth0 nodad
             ip route add default via 192.0.2.1; ip route add default via 2001:db8::1"
        ));
        pod.sh("ip link set lo up");
        Self { node, pod, client, podwire: Suite::podwire() }
    }

    fn call(&self, command: &str, ifname: &str, conf: &Value) -> Value {
        let plugin = conf["type"].as_str().expect("a plugin has a type");
        let call = Call::new(plugin, command).netns(&self.pod.path()).ifname(ifname);
        call.conf(conf).run(&self.node, &self.podwire).ok()
    }

    /// The configuration of a network; the pod has the address 7.
    fn network(&self, number: u8) -> Value {
        let address =
            |address: String, gateway: String| json!({"address": address, "gateway": gateway});
        json!({"cniVersion": "1.0.0", "name": format!("net{number}"), "type": "bridge",
            "bridge": format!("br{number}"), "isGateway": true, "isDefaultGateway": number == 1,
            "ipam": {"type": "static", "addresses": [
                address(format!("10.{number}.0.7/24"), format!("10.{number}.0.1")),
                address(format!("fd00:{number}::7/64"), format!("fd00:{number}::1"))]}})
    }

    fn ask(&self, ask: impl Fn(&Space, &Server, &str), number: u8) {
        for address in [format!("10.{number}.0.7"), format!("[fd00:{number}::7]")] {
            let family = if address.starts_with('[') { "::" } else { "0.0.0.0" };
            let server = Server::start(&self.pod, Protocol::Tcp, family.parse().unwrap());
            ask(&self.client, &server, &format!("{address}:{}", server.port()));
        }
    }

    fn must_answer(&self, number: u8) {
        self.ask(
            |client, server, address| {
                let seen = must_reach_at(client, server, address).to_string();
                assert!(CLIENT.contains(&seen.as_str()), "the pod was asked by {seen}");
            },
            number,
        );
    }

    fn must_be_silent(&self, number: u8) {
        self.ask(must_not_reach_at, number);
    }
}

#[test]
fn what_comes_by_an_interface_is_answered_by_it() {
    let networks = TwoNetworks::new();
    let (first, second) = (networks.network(1), networks.network(2));
    networks.call("ADD", "eth0", &first);
    let result = networks.call("ADD", "net1", &second);
    networks.must_answer(1);
    // That it can fail: the answer leaves by the default route of the first.
    networks.must_be_silent(2);
    let sbr = json!({"cniVersion": "1.0.0", "name": "net2", "type": "sbr", "prevResult": result});
    networks.call("ADD", "net1", &sbr);
    networks.must_answer(1);
    networks.must_answer(2);
    networks.call("CHECK", "net1", &sbr);
    networks.call("DEL", "net1", &sbr);
    networks.call("DEL", "net1", &second);
    networks.must_answer(1);
    networks.call("DEL", "eth0", &first);
    let left = networks
        .pod
        .sh("ip rule show; ip -6 rule show; ip route show table all; ip -6 route show table all");
    let left = left.lines().filter(|line| line.contains("10.") || line.contains("fd00"));
    assert_eq!(left.collect::<Vec<_>>(), [""; 0]);
}

/// With hints, the second network is reached directly, and from the address that is in it.
#[test]
fn source_hints_keep_the_own_network_near() {
    let networks = TwoNetworks::new();
    let (first, second) = (networks.network(1), networks.network(2));
    networks.call("ADD", "eth0", &first);
    let result = networks.call("ADD", "net1", &second);
    let mut sbr =
        json!({"cniVersion": "1.0.0", "name": "net2", "type": "sbr", "prevResult": result});
    let way = |dst: &str| networks.pod.sh(&format!("ip route get {dst}"));
    networks.call("ADD", "net1", &sbr);
    for dst in ["10.2.0.9", "fd00:2::9"] {
        assert!(way(dst).contains(" dev eth0 "), "without a hint: {}", way(dst));
    }
    networks.call("DEL", "net1", &sbr);
    networks.call("DEL", "net1", &second);
    networks.call("ADD", "net1", &second);
    sbr["addSourceHints"] = json!(true);
    networks.call("ADD", "net1", &sbr);
    for (dst, from) in [("10.2.0.9", "10.2.0.7"), ("fd00:2::9", "fd00:2::7")] {
        let way = way(dst);
        assert!(way.contains(" dev net1 ") && way.contains(&format!(" src {from} ")), "{way}");
    }
    networks.must_answer(1);
    networks.must_answer(2);
    networks.call("DEL", "net1", &sbr);
}

/// The gateway of the configuration is the way out, whatever IPAM says.
#[test]
fn a_gateway_of_the_configuration_is_the_way_out() {
    let networks = TwoNetworks::new();
    let second = networks.network(2);
    let result = networks.call("ADD", "net1", &second);
    let sbr = json!({"cniVersion": "1.0.0", "name": "net2", "type": "sbr", "prevResult": result,
        "gateways": ["fd00:2::99", "10.2.0.99"]});
    networks.call("ADD", "net1", &sbr);
    for (from, to, via) in
        [("10.2.0.7", "192.0.2.2", "10.2.0.99"), ("fd00:2::7", "2001:db8::2", "fd00:2::99")]
    {
        let way = networks.pod.sh(&format!("ip route get {to} from {from}"));
        assert!(way.contains(&format!(" via {via} dev net1")), "{way}");
    }
    networks.call("DEL", "net1", &sbr);
}
