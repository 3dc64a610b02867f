//! What the plugins keep in the kernel for pods, and that goes with podwire: without a cluster, with or without the
//! programs of iptables, and whatever it was made by.

use std::net::IpAddr;
use std::process::Command;

use lab::probe::{Protocol, Server, must_not_reach_at, must_reach, must_reach_at};
use lab::{Call, Node, Pod, Suite, Switch, addresses, policyd, program};
use serde_json::{Value, json};

use crate::deployed::confined;
use crate::uninstalled::{self, pods_of};

/// The node's address, on the link of a switch.
const NODE: &str = "192.0.2.1";
/// What others have: it drops what is forwarded, so that the plugin firewall opens it.
const OTHERS: &str = "
    nft -f - <<END
table inet mine {
  chain forward { type filter hook forward priority 10; policy drop
    ip daddr 192.0.2.99 accept comment \"mine\"
  }
}
table inet podwire-mine {
  chain c {
  }
}
END
    iptables -t nat -N CNI-HOSTPORT-DNAT; iptables -N CNI-FORWARD; iptables -N MY-CHAIN
    ip link add bwpfeedfeedfeed type ifb; ip link add uplink0 type ifb; ip link set uplink0 alias 'net: mine'
    ip link add br-mine type bridge";
const SHOW_OTHERS: &str = "nft list table inet mine; nft list table inet podwire-mine
    iptables-save | grep -e HOSTPORT-DNAT -e ':CNI-FORWARD' -e MY-
    ip -br link show type ifb | cut -d' ' -f1; ip -br link show br-mine | cut -d' ' -f1";
/// What is podwire's, in a form that is empty when it is nothing.
const OURS: &str =
    "nft list tables | grep -e podwire-portmap -e podwire-bandwidth -e podwire-firewall || :
    nft list ruleset | grep -e 'net: net1' -e CNI-FW || :; iptables-save | grep CNI-FW || :
    ip -br link show type ifb | cut -d' ' -f1 | grep -v -e bwpfeedfeedfeed -e uplink0 || :";

/// A node with pods on podwire's bridge that have all that plugins keep.
struct Site {
    node: Node,
    _switch: Switch,
    pods: [(Pod, IpAddr, Value); 2],
}

/// As the manifest has it; or by hand, where nothing is in PATH.
fn cleanup(node: &Node, has_programs: bool) -> Command {
    if has_programs {
        return confined(node, &pods_of(&uninstalled::cleanup())["initContainers"][0]);
    }
    let mut command = program(policyd());
    command.env_remove("KUBECONFIG").env("PATH", "/nowhere");
    for (option, folder) in [("--run-dir", "run/podwire"), ("--cni-conf-dir", "net.d")] {
        command.arg(option).arg(node.home().join(folder));
    }
    command.args(["cleanup", "--all"]);
    command
}

/// What it said.
fn clean(node: &Node, has_programs: bool) -> String {
    let ended = node.run(cleanup(node, has_programs));
    assert!(ended.status.success(), "{}{}", ended.stdout, ended.stderr);
    ended.stdout + &ended.stderr
}

impl Site {
    fn new() -> Self {
        let node = Node::quick();
        let switch = Switch::of(&[&node]);
        node.sh(OTHERS);
        let pods = ["one", "two"].map(|name| {
            let pod = node.pod(name);
            pod.sh("ip link set lo up");
            let ipam = json!({"type": "host-local", "dataDir": node.data(),
                "ranges": [[{"subnet": "10.9.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]});
            let conf = json!({"cniVersion": "1.0.0", "name": "net1", "type": "bridge",
                "bridge": "podwire0", "isGateway": true, "ipam": ipam});
            let result = call(&node, &pod, "bridge", &conf);
            let address = addresses(&result)[0];
            (pod, address, result)
        });
        let site = Self { node, _switch: switch, pods };
        for (number, (pod, _, result)) in (0..).zip(&site.pods) {
            site.chain(pod, result, 8080 + number);
        }
        site
    }

    fn chain(&self, pod: &Pod, result: &Value, port: u16) {
        let mappings = json!([{"hostPort": port, "containerPort": 80, "protocol": "tcp"}]);
        // An ADD by the other backend, or with another policy, would take the place of that before.
        let by_iptables = json!({"type": "firewall", "backend": "iptables", "name": "net2"});
        for mut conf in [
            json!({"type": "portmap", "backend": "nftables", "runtimeConfig": {"portMappings": mappings}}),
            json!({"type": "bandwidth", "egressRate": 80_000_000, "egressBurst": 8_000_000,
                "ingressRate": 80_000_000, "ingressBurst": 8_000_000}),
            json!({"type": "firewall", "backend": "nftables", "ingressPolicy": "same-bridge"}),
            by_iptables,
        ] {
            conf["cniVersion"] = json!("1.0.0");
            if conf["name"].is_null() {
                conf["name"] = json!("net1");
            }
            conf["prevResult"] = result.clone();
            let plugin = conf["type"].as_str().unwrap().to_owned();
            let _ = call(&self.node, pod, &plugin, &conf);
        }
    }
}

fn call(node: &Node, pod: &Pod, plugin: &str, conf: &Value) -> Value {
    let call = Call::new(plugin, "ADD").container(pod.name()).netns(&pod.path()).conf(conf);
    call.run(node, &Suite::podwire()).ok()
}

fn all_goes_but_what_is_of_others(has_programs: bool) {
    let site = Site::new();
    let Site { node, pods: [(one, address, _), (two, of_two, _)], .. } = &site;
    let mine = node.sh("nft list table inet mine");
    assert!(mine.contains("10.9.0.") && mine.contains("\"mine\""), "{mine}");
    for part in ["podwire-portmap", "podwire-bandwidth", "podwire-firewall", "CNI-FW-", "bwp"] {
        assert!(node.sh(OURS).contains(part), "{part}: {}", node.sh(OURS));
    }
    let server = Server::start_at(one, Protocol::Tcp, *address, 80);
    let published = format!("{NODE}:8080");
    must_reach_at(node, &server, &published);
    must_reach(two, one, &address.to_string());

    let said = clean(node, has_programs);
    for part in [
        "2 attachments with published ports",
        "2 attachments with limits",
        "isolation of bridges",
        "4 rules",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(said.contains("podwire0 stays"), "{said}");
    assert_eq!(node.sh(OURS), "");
    must_not_reach_at(node, &server, &published);
    // What runs has its network: what it sends is not lost on its way to a limit.
    must_reach(one, node, "10.9.0.1");
    must_reach(node, two, &of_two.to_string());
    let others = node.sh(SHOW_OTHERS);
    for part in [
        "\"mine\"",
        "podwire-mine",
        "CNI-HOSTPORT-DNAT",
        ":CNI-FORWARD",
        ":MY-CHAIN",
        "bwpfeedfeedfeed",
        "uplink0",
        "br-mine",
    ] {
        assert!(others.contains(part), "{part}: {others}");
    }

    // The last pods go, and with them the bridge. What nobody has is not told of.
    node.sh(
        "for port in $(ip -br link show master podwire0 | cut -d@ -f1); do ip link del $port; done",
    );
    assert!(clean(node, has_programs).contains("for pods, of those that run as well: podwire0"));
    assert!(!node.try_sh("ip link show podwire0").status.success());
    let said = clean(node, has_programs);
    assert!(!said.contains("removed"), "{said}");
    assert_eq!(node.sh(SHOW_OTHERS), others);
}

#[test]
fn ports_limits_and_passes_go_with_podwire() {
    all_goes_but_what_is_of_others(true);
}

#[test]
fn they_go_without_the_programs_of_iptables() {
    all_goes_but_what_is_of_others(false);
}

/// As where the kernel's nf_tables cannot redirect, and where iptables is the older one.
#[test]
fn what_traffic_control_and_older_tables_have_goes_too() {
    let node = Node::quick();
    let _switch = Switch::of(&[&node]);
    let pod = node.pod("one");
    pod.sh("ip link set lo up");
    node.sh(&format!(
        "ip link add host0 type veth peer name eth0 netns {}
         ip link set host0 up; ip addr add 10.9.0.1/24 dev host0",
        pod.path().display()
    ));
    pod.sh("ip link set eth0 up; ip addr add 10.9.0.2/24 dev eth0");
    let record = "CNI-FW-0123456789abcdef0123";
    node.sh(&format!(
        "ip link add bwp0123456789ab type ifb; ip link set bwp0123456789ab up
         ip link set bwp0123456789ab alias '43d91f8451058a70-0b65a318f52e521b, net: n1, if: eth0, id: one'
         tc qdisc add dev host0 clsact
         tc filter add dev host0 ingress prio 3 protocol ip u32 match ip dport 9 0xffff flowid 1:1
         tc filter add dev host0 ingress protocol all u32 match u32 0 0 action mirred egress redirect dev bwp0123456789ab
         for program in iptables-legacy ip6tables-legacy; do $program -N {record}; $program -N MY-CHAIN; done
         iptables-legacy -A {record} -s 10.9.0.2/32; ip6tables-legacy -A {record} -s fd00::2/128"
    ));
    must_reach(&pod, &node, "10.9.0.1");
    let said = clean(&node, true);
    assert!(
        said.contains("1 attachments with limits") && said.contains("2 attachments with addresses"),
        "{said}"
    );
    assert_eq!(node.sh("ip -br link show type ifb"), "");
    must_reach(&pod, &node, "10.9.0.1");
    let filters = node.sh("tc filter show dev host0 ingress");
    assert!(filters.contains("pref 3 ") && !filters.contains("mirred"), "{filters}");
    let tables = node.sh("iptables-legacy-save; ip6tables-legacy-save");
    assert!(!tables.contains("CNI-FW-"), "{tables}");
    assert_eq!(tables.matches(":MY-CHAIN").count(), 2, "{tables}");
    // Without the programs the old tables cannot be changed: what is in them does nothing.
    node.sh(&format!("iptables-legacy -N {record}"));
    let _ = clean(&node, false);
    let _ = clean(&node, true);
    assert!(!node.sh("iptables-legacy-save").contains("CNI-FW-"));
}

/// The rest goes all the same, and what stays is told.
#[test]
fn one_that_cannot_go_keeps_no_other() {
    let site = Site::new();
    let node = &site.node;
    let record =
        node.sh("iptables-save -t filter | grep -o '^:CNI-FW-[0-9a-f]*' | head -1 | cut -c2-");
    let record = record.trim();
    node.sh(&format!("iptables -A MY-CHAIN -j {record}"));
    let ended = node.run(cleanup(node, true));
    assert!(!ended.status.success());
    assert!(ended.stderr.contains(record) || ended.stdout.contains(record), "{ended:?}");
    let left = node.sh(OURS);
    assert!(left.lines().all(|line| line.contains(record)), "{left}");
    node.sh("iptables -F MY-CHAIN");
    let _ = clean(node, true);
    assert_eq!(node.sh(OURS), "");
}
