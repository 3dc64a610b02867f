//! What is forwarded where the node drops it, and what is kept apart.

use lab::probe::{Protocol, Server, must_not_reach, must_not_reach_at, must_reach, must_reach_at};
use lab::{Call, Pod, Reply, World};
use serde_json::{Value, json};

use crate::network::{Guest, Network, WORLD4, WORLD6, dual};

const DROPS_BY_IPTABLES: &str = "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP";
const DROPS_BY_NFTABLES: &str = "nft -f - <<END
table inet filter {
  chain forward { type filter hook forward priority filter; policy drop
    ip daddr 192.0.2.99 accept
  }
}
table ip6 mine {
  chain last { type filter hook forward priority 10; policy drop; }
}
END";

/// A node that forwards nothing by itself.
struct Site {
    network: Network,
    world: Pod,
    backend: Value,
}

impl Site {
    fn new(drops: &str, backend: &Value) -> Self {
        let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
        let conf = json!({"type": "ptp", "ipMasq": true, "ipam": dual(&routes)});
        let network = Network::new(conf);
        let world = network.world();
        world.sh("ip route add default via 192.0.2.1; ip -6 route add default via 2001:db8::1");
        network.node.sh(drops);
        Self { network, world, backend: backend.clone() }
    }

    fn call(&self, command: &str, guest: &Guest, keys: &Value) -> Reply {
        let mut conf = json!({"backend": self.backend, "prevResult": guest.result});
        for (key, value) in keys.as_object().expect("keys are an object") {
            conf[key] = value.clone();
        }
        self.network.chained("firewall", command, (&guest.pod, "eth0"), &conf)
    }

    fn open(&self, guest: &Guest) {
        let answer = self.call("ADD", guest, &json!({})).ok();
        assert_eq!(answer["ips"], guest.result["ips"]);
        let _ = self.call("CHECK", guest, &json!({})).ok();
    }
}

/// Containers get out, and nobody in, but with what was asked for; until their DEL.
fn packets_pass(site: &Site) {
    let guests = ["one", "two"].map(|name| site.network.guest(name));
    let [one, two] = &guests;
    must_not_reach(&one.pod, &site.world, WORLD4);
    site.open(one);
    for (address, of_guest) in [(WORLD4, &one.v4), (WORLD6, &one.v6)] {
        must_reach(&one.pod, &site.world, address);
        must_not_reach(&site.world, &one.pod, of_guest);
        must_not_reach(&two.pod, &site.world, address);
    }
    site.open(two);
    must_reach(&one.pod, &two.pod, &two.v4);
    let _ = site.call("DEL", one, &json!({})).ok();
    must_not_reach(&one.pod, &site.world, WORLD6);
    must_reach(&two.pod, &site.world, WORLD6);
    let _ = site.call("CHECK", two, &json!({})).ok();
    let _ = site.call("DEL", two, &json!({"prevResult": null})).ok();
    must_not_reach(&two.pod, &site.world, WORLD4);
    let told = site.call("CHECK", two, &json!({})).expect_error(102);
    assert!(told.msg.contains("rule"), "{}", told.msg);
    guests.iter().for_each(|guest| site.network.leave(guest));
    let rules =
        site.network.node.sh("iptables-save -t filter; ip6tables-save -t filter; nft list ruleset");
    for left in ["CNI-FW-", "10.1.0.", "fd00:1::", "id: one", "id: two"] {
        assert!(!rules.contains(left), "{left}: {rules}");
    }
}

mod by_iptables {
    use super::*;

    #[test]
    fn lets_packets_pass() {
        packets_pass(&Site::new(DROPS_BY_IPTABLES, &json!("iptables")));
    }

    #[test]
    fn keeps_bridges_apart() {
        bridges_are_kept_apart("iptables");
    }

    #[test]
    fn published_ports_lead_to_containers_that_are_kept_apart() {
        a_published_port_leads_in("iptables");
    }
}

mod by_nftables {
    use super::*;

    #[test]
    fn lets_packets_pass() {
        packets_pass(&Site::new(DROPS_BY_NFTABLES, &json!("nftables")));
    }

    #[test]
    fn keeps_bridges_apart() {
        bridges_are_kept_apart("nftables");
    }

    #[test]
    fn published_ports_lead_to_containers_that_are_kept_apart() {
        a_published_port_leads_in("nftables");
    }

    /// A network that is open by now takes back what it had made, and no other's.
    #[test]
    fn a_bridge_can_be_open_again() {
        let site = Bridges::new("nftables");
        let [a, b, c] = [("a", 1), ("b", 2), ("c", 3)]
            .map(|(name, number)| site.guest(name, number, "same-bridge"));
        must_not_reach(&a.pod, &b.pod, &b.v4);
        for (guest, number) in [(&a, 1), (&b, 2)] {
            let run =
                |command, policy| site.firewall(command, &guest.pod, number, policy, &guest.result);
            let told = run("CHECK", "open").expect_error(102);
            assert!(told.msg.contains(&format!("br{number}")), "{}", told.msg);
            let _ = run("DEL", "same-bridge").ok();
            let _ = run("ADD", "open").ok();
            let _ = run("CHECK", "open").ok();
        }
        for (from, to) in [(&a, &b), (&b, &a), (&a, &c)] {
            must_reach(&from.pod, &to.pod, &to.v4);
            must_reach(&from.pod, &to.pod, &to.v6);
        }
        let _ = site.firewall("CHECK", &c.pod, 3, "same-bridge", &c.result).ok();
        site.gc(1);
        site.gc(3);
        assert!(!site.network.node.sh("nft list tables").contains("podwire-firewall"));
    }

    /// What one network has no container for any more the other still wants of the bridge that they share.
    #[test]
    fn networks_that_share_a_bridge_take_back_their_own() {
        let site = Bridges::new("nftables");
        let [a, b] = ["a", "b"].map(|name| site.guest(name, 1, "isolated"));
        let other = |command, guest: &Guest, policy| {
            site.firewall(command, &guest.pod, 2, policy, &guest.result)
        };
        for guest in [&a, &b] {
            let _ = other("ADD", guest, "same-bridge").ok();
            let _ = other("CHECK", guest, "same-bridge").ok();
        }
        let within = || site.network.node.sh("nft list map inet podwire-firewall within");
        let isolated = within();
        assert!(isolated.contains("\"br1\" . \"br1\" : drop"), "{isolated}");
        let check = |number, policy| {
            let run = |it: &Guest| site.firewall("CHECK", &it.pod, number, policy, &it.result);
            [run(&a), run(&b)]
        };
        // Nor does the one that isolates lose that with the other.
        site.gc(2);
        assert_eq!(within(), isolated);
        let _ = check(1, "isolated").map(|it| it.ok());
        let _ = check(2, "same-bridge").map(|it| it.expect_error(102));
        let _ = other("ADD", &a, "same-bridge").ok();
        site.gc(1);
        assert!(within().contains("\"br1\" . \"br1\" : accept"), "{}", within());
        let _ = check(2, "same-bridge").map(|it| it.ok());
        let _ = check(1, "isolated").map(|it| it.expect_error(102));
        site.gc(2);
        assert!(!site.network.node.sh("nft list tables").contains("podwire-firewall"));
    }

    /// A table that belongs to a program is that program's: it is told, and nothing else happens.
    #[test]
    fn what_others_own_is_left_alone() {
        let site = Site::new("true", &json!("nftables"));
        let guest = site.network.guest("one");
        // The table lives as long as the program.
        let line = "(echo 'table inet theirs { flags owner; chain f { type filter hook forward priority 0; policy drop; }; }'
            sleep 30) | nft -i >/dev/null 2>&1 & echo $!; sleep 1";
        let pid = site.network.node.sh(line);
        let before = World::of(&site.network.node, &[]);
        let reply = site.call("ADD", &guest, &json!({}));
        assert!(reply.succeeded(), "{reply}");
        assert!(reply.to_string().contains("only who made it may change it"), "{reply}");
        World::of(&site.network.node, &[]).must_be(&before, "after ADD");
        site.network.node.sh(&format!("kill {}", pid.trim()));
        site.network.leave(&guest);
    }
}

mod among_iptables {
    use super::*;

    #[test]
    fn nftables_lets_pass_what_iptables_drops() {
        packets_pass(&Site::new(DROPS_BY_IPTABLES, &json!("nftables")));
        let both = [DROPS_BY_IPTABLES, DROPS_BY_NFTABLES].join("\n");
        packets_pass(&Site::new(&both, &json!("nftables")));
    }

    #[test]
    fn what_the_node_uses_is_taken() {
        packets_pass(&Site::new(DROPS_BY_IPTABLES, &Value::Null));
        packets_pass(&Site::new(DROPS_BY_NFTABLES, &Value::Null));
    }
}

/// Bridges of one node, each with its network.
struct Bridges {
    network: Network,
    backend: &'static str,
}

impl Bridges {
    fn new(backend: &'static str) -> Self {
        let network = Network::new(json!({"type": "bridge"}));
        network.node.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        Self { network, backend }
    }

    fn guest(&self, name: &str, number: u8, policy: &str) -> Guest {
        let ranges = json!([[{"subnet": format!("10.{number}.0.0/24")}], [{"subnet": format!("fd00:{number}::/64")}]]);
        let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
        let pod = self.network.node.pod(name);
        pod.sh("ip link set lo up");
        let conf = json!({"cniVersion": "1.0.0", "name": format!("net{number}"), "type": "bridge",
            "bridge": format!("br{number}"), "isDefaultGateway": true,
            "ipam": {"type": "host-local", "ranges": ranges, "routes": routes, "dataDir": self.network.node.data()}});
        let call = |command: &str, conf: &Value| {
            let plugin = conf["type"].as_str().expect("a configuration has a type");
            let call = Call::new(plugin, command).container(name).netns(&pod.path()).conf(conf);
            call.run(&self.network.node, &self.network.podwire).ok()
        };
        let result = call("ADD", &conf);
        for command in ["ADD", "CHECK"] {
            let _ = self.firewall(command, &pod, number, policy, &result).ok();
        }
        let address = |place: usize| {
            let text = result["ips"][place]["address"].as_str().expect("it has addresses");
            text.split('/').next().unwrap_or_default().to_owned()
        };
        Guest { v4: address(0), v6: address(1), result, pod }
    }

    fn firewall(
        &self,
        command: &str,
        pod: &Pod,
        number: u8,
        policy: &str,
        result: &Value,
    ) -> Reply {
        let conf = json!({"cniVersion": "1.0.0", "name": format!("net{number}"), "type": "firewall",
            "backend": self.backend, "ingressPolicy": policy, "prevResult": result});
        let call = Call::new("firewall", command).container(pod.name()).netns(&pod.path());
        call.conf(&conf).run(&self.network.node, &self.network.podwire)
    }

    fn gc(&self, number: u8) {
        let conf = json!({"cniVersion": "1.1.0", "name": format!("net{number}"), "type": "firewall",
            "backend": self.backend, "cni.dev/valid-attachments": []});
        let call =
            Call::new("firewall", "GC").unset("CNI_CONTAINERID").unset("CNI_IFNAME").conf(&conf);
        let _ = call.run(&self.network.node, &self.network.podwire).ok();
    }
}

fn bridges_are_kept_apart(backend: &'static str) {
    let site = Bridges::new(backend);
    let same = ["a", "b"].map(|name| site.guest(name, 1, "same-bridge"));
    let isolated = ["c", "d"].map(|name| site.guest(name, 2, "isolated"));
    let open = site.guest("e", 3, "open");
    let reach = |from: &Guest, to: &Guest| {
        let _ = must_reach(&from.pod, &to.pod, &to.v4);
        let _ = must_reach(&from.pod, &to.pod, &to.v6);
    };
    let must_not = |from: &Guest, to: &Guest| {
        must_not_reach(&from.pod, &to.pod, &to.v4);
        must_not_reach(&from.pod, &to.pod, &to.v6);
    };
    reach(&same[0], &same[1]);
    must_not(&isolated[0], &isolated[1]);
    must_not(&same[0], &isolated[0]);
    must_not(&isolated[1], &same[1]);
    // What has no policy is not another bridge (reference behaviour).
    reach(&same[0], &open);
    reach(&isolated[0], &open);
    // All reach the node.
    for guest in same.iter().chain(&isolated) {
        let gateway = format!("{}1", guest.v4.trim_end_matches(|it: char| it != '.'));
        must_reach(&guest.pod, &site.network.node, &gateway);
    }
    if backend == "nftables" {
        let held = || site.network.node.sh("nft list table inet podwire-firewall");
        site.gc(1);
        assert!(!held().contains("br1") && held().contains("br2"), "{}", held());
        reach(&same[0], &isolated[0]);
        site.gc(2);
        assert!(!site.network.node.sh("nft list tables").contains("podwire-firewall"));
    }
}

/// A server in a container that is kept apart is reached by its published port all the same.
fn a_published_port_leads_in(backend: &'static str) {
    let site = Bridges::new(backend);
    let world = site.network.world();
    let guest = site.guest("a", 1, "isolated");
    let mappings = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
    let keys = json!({"backend": backend, "prevResult": guest.result,
        "runtimeConfig": {"portMappings": mappings}});
    let published = |command: &str| {
        let reply = site.network.chained("portmap", command, (&guest.pod, "eth0"), &keys);
        assert!(reply.succeeded(), "{reply}");
    };
    published("ADD");
    let address = "192.0.2.1:8080";
    let server = Server::start_at(&guest.pod, Protocol::Tcp, guest.v4.parse().unwrap(), 80);
    let _ = must_reach_at(&world, &server, address);
    published("DEL");
    must_not_reach_at(&world, &server, address);
}
