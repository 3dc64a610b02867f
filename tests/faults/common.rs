//! A node with podwire, and the world as it is between pods.

use lab::{Call, Node, Pod, Reply, Suite, World};
use serde_json::{Value, json};

/// A node with one network.
pub(crate) struct Site {
    pub(crate) node: Node,
    pub(crate) podwire: Suite,
    pub(crate) conf: Value,
}

/// bridge, host-local of both families, default routes, masquerade: every kind of effect.
pub(crate) fn bridge_with_all() -> Value {
    json!({"cniVersion": "1.0.0", "name": "net1", "type": "bridge", "bridge": "br0",
        "isDefaultGateway": true, "ipMasq": true, "ipMasqBackend": "iptables",
        "ipam": {"type": "host-local",
                 "ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd00:1::/64"}]]}})
}

/// The same with ptp.
pub(crate) fn ptp_with_all() -> Value {
    json!({"cniVersion": "1.0.0", "name": "net1", "type": "ptp", "ipMasq": true, "ipMasqBackend": "iptables",
        "ipam": {"type": "host-local", "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
                 "ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd00:1::/64"}]]}})
}

/// Every key of tuning.
pub(crate) fn tuning_with_all() -> Value {
    json!({"cniVersion": "1.0.0", "name": "net1", "type": "tuning", "mac": "02:11:22:00:00:07",
        "promisc": true, "mtu": 1400, "allmulti": true, "txQLen": 5, "dataDir": "/run/cni/tuning",
        "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"},
        "args": {"cni": {"mtu": 1300, "sysctl": {"net.core.somaxconn": "200"}}}})
}

/// Every key of bandwidth that goes together with the others.
pub(crate) fn bandwidth_with_all() -> Value {
    json!({"cniVersion": "1.0.0", "name": "net1", "type": "bandwidth", "ingressRate": 8_000_000,
        "ingressBurst": 80_000, "egressRate": 16_000_000, "egressBurst": 160_000,
        "unshapedSubnets": ["10.0.0.0/8", "fd00::/8"],
        "runtimeConfig": {"bandwidth": {"ingressRate": 800, "ingressBurst": 800}}})
}

/// Every key of sbr that goes together with the others.
pub(crate) fn sbr_with_all() -> Value {
    json!({"cniVersion": "1.0.0", "name": "net1", "type": "sbr", "addSourceHints": true,
        "gateways": ["10.1.0.1", "fd00:1::1"]})
}

impl Site {
    /// Has nft put into the tables nat what iptables' programs cannot list.
    pub(crate) fn hide_from_iptables(&self) {
        self.node.sh("nft -f - <<END
add rule ip nat POSTROUTING ct status dnat accept
add rule ip6 nat POSTROUTING ct status dnat accept
END");
        assert!(self.node.sh("iptables-save -t nat").contains("is incompatible"));
    }

    /// What the tables nat have of attachments, as nft lists it.
    pub(crate) fn listed_by_nft(&self) -> Vec<String> {
        let listed = self.node.sh("nft -s list table ip nat; nft -s list table ip6 nat");
        listed.lines().filter(|it| it.contains("CNI-")).map(str::to_owned).collect()
    }

    /// A node on which one pod has come and gone: what stays by design is there.
    pub(crate) fn new(mut conf: Value) -> Self {
        let node = Node::quick();
        if conf["ipam"]["type"] == "host-local" {
            conf["ipam"]["dataDir"] = json!(node.data());
        }
        let site = Self { node, podwire: Suite::podwire(), conf };
        let pod = site.node.pod("warm-up");
        let _ = site.add(&pod).ok();
        let _ = site.del(&pod).ok();
        site
    }

    pub(crate) fn plugin(&self) -> &str {
        self.conf["type"].as_str().expect("a configuration has a type")
    }

    /// A call for a pod, whose name is the container id.
    pub(crate) fn call(&self, command: &str, pod: &Pod) -> Call {
        Call::new(self.plugin(), command).container(pod.name()).netns(&pod.path()).conf(&self.conf)
    }

    pub(crate) fn run(&self, call: &Call) -> Reply {
        call.run(&self.node, &self.podwire)
    }

    pub(crate) fn add(&self, pod: &Pod) -> Reply {
        self.run(&self.call("ADD", pod))
    }

    pub(crate) fn del(&self, pod: &Pod) -> Reply {
        self.run(&self.call("DEL", pod))
    }

    /// The configuration with other keys.
    pub(crate) fn conf_with(&self, keys: &Value) -> Value {
        let mut conf = self.conf.clone();
        for (key, value) in keys.as_object().expect("keys are an object") {
            conf[key] = value.clone();
        }
        conf
    }

    /// All that a pod can leave behind. Where host-local was last, and podwire's index, are no state
    /// of a pod; the carrier of the bridge follows its ports.
    pub(crate) fn world(&self, pods: &[&Pod]) -> World {
        let mut world = World::of(&self.node, pods);
        let follows_ports = |line: &String| {
            let of_bridge = line.contains(" br0 ") || line.contains("dev=br0");
            of_bridge && ["flags=", "operstate=", "linkdown"].iter().any(|part| line.contains(part))
        };
        let not_of_a_pod =
            |line: &String| line.contains("last_reserved_ip") || line.contains(".podwire");
        world.lines.retain(|line| !follows_ports(line) && !not_of_a_pod(line));
        world
    }
}
