//! A node with podwire, its pods, and the world outside.

use lab::probe::must_reach;
use lab::{Call, Node, Pod, Reply, Suite};
use serde_json::{Value, json};

/// Addresses of the node on the link to the world, and of the world.
pub(crate) const NODE4: &str = "192.0.2.1";
pub(crate) const NODE6: &str = "2001:db8::1";
pub(crate) const WORLD4: &str = "192.0.2.2";
pub(crate) const WORLD6: &str = "2001:db8::2";

/// A node with one network. Duplicate address detection is as the kernel has it.
pub(crate) struct Network {
    pub(crate) node: Node,
    pub(crate) podwire: Suite,
    conf: Value,
}

/// A pod with the addresses that it got.
pub(crate) struct Guest {
    pub(crate) pod: Pod,
    pub(crate) v4: String,
    pub(crate) v6: String,
    pub(crate) result: Value,
}

impl Network {
    pub(crate) fn new(mut conf: Value) -> Self {
        let node = Node::new();
        conf["cniVersion"] = json!("1.0.0");
        conf["name"] = json!("net1");
        if conf["ipam"]["type"] == "host-local" {
            conf["ipam"]["dataDir"] = json!(node.data());
        }
        Self { node, podwire: Suite::podwire(), conf }
    }

    /// The same with some keys added or replaced.
    pub(crate) fn with(mut conf: Value, keys: &Value) -> Self {
        for (key, value) in keys.as_object().expect("keys are an object") {
            conf[key] = value.clone();
        }
        Self::new(conf)
    }

    /// Brings a pod up as a runtime does: loopback first, then the network.
    pub(crate) fn guest(&self, name: &str) -> Guest {
        let pod = self.node.pod(name);
        let loopback = json!({"cniVersion": "1.0.0", "name": "lo", "type": "loopback"});
        let up = Call::new("loopback", "ADD").container(name).netns(&pod.path()).conf(&loopback);
        let _ = up.run(&self.node, &self.podwire).ok();
        let result = self.call("ADD", &pod).run(&self.node, &self.podwire).ok();
        let ips = result["ips"].as_array().cloned().unwrap_or_default();
        let address = |of: fn(&str) -> bool| {
            let texts = ips.iter().filter_map(|ip| ip["address"].as_str()?.split('/').next());
            texts.clone().find(|text| of(text)).unwrap_or_default().to_owned()
        };
        let v4 = address(|text| text.contains('.'));
        let v6 = address(|text| text.contains(':'));
        Guest { pod, v4, v6, result }
    }

    /// Takes a pod down, which must succeed.
    pub(crate) fn leave(&self, guest: &Guest) {
        let _ = self.call("DEL", &guest.pod).run(&self.node, &self.podwire).ok();
    }

    /// A namespace that is joined to the node by a veth and has no route to the pods: only what the
    /// node masquerades gets an answer from it.
    pub(crate) fn world(&self) -> Pod {
        let world = self.node.pod("world");
        // The peer is made inside, by the only name that the node knows: the path.
        self.node.sh(&format!(
            "ip link add up0 type veth peer name eth0 netns {pid}; ip link set up0 up
             ip addr add {NODE4}/24 dev up0; ip addr add {NODE6}/64 dev up0 nodad",
            pid = world.path().display()
        ));
        world.sh(&format!(
            "ip link set lo up; ip link set eth0 up
             ip addr add {WORLD4}/24 dev eth0; ip addr add {WORLD6}/64 dev eth0 nodad"
        ));
        world
    }

    /// Guests, their gateways and the node reach each other; the guests are seen as themselves.
    pub(crate) fn is_whole_for(&self, one: &Guest, two: &Guest) {
        for (from, to) in [(one, two), (two, one)] {
            from.must_be_seen_by(&to.pod, [&to.v4, &to.v6], [&from.v4, &from.v6]);
            for gateway in ["10.1.0.1", "fd00:1::1"] {
                must_reach(&from.pod, &self.node, gateway);
            }
            for address in [&to.v4, &to.v6] {
                must_reach(&self.node, &to.pod, address);
            }
        }
    }

    /// The world knows the guests by the node's addresses, and each other they know as themselves.
    pub(crate) fn is_masqueraded(&self) {
        let world = self.world();
        let (one, two) = (self.guest("one"), self.guest("two"));
        one.must_be_seen_by(&world, [WORLD4, WORLD6], [NODE4, NODE6]);
        one.must_be_seen_by(&two.pod, [&two.v4, &two.v6], [&one.v4, &one.v6]);
        self.leave(&one);
        // The neighbour's rules are still there.
        two.must_be_seen_by(&world, [WORLD4, WORLD6], [NODE4, NODE6]);
        self.leave(&two);
    }

    /// Calls a plugin that stands behind the network's own, about a pod's interface; its answer to ADD.
    pub(crate) fn chained(
        &self,
        plugin: &str,
        command: &str,
        (pod, ifname): (&Pod, &str),
        keys: &Value,
    ) -> Reply {
        let mut conf = json!({"cniVersion": "1.1.0", "name": "net1", "type": plugin});
        for (key, value) in keys.as_object().expect("keys are an object") {
            conf[key] = value.clone();
        }
        let call = Call::new(plugin, command).container(pod.name()).netns(&pod.path());
        call.ifname(ifname).conf(&conf).run(&self.node, &self.podwire)
    }

    fn call(&self, command: &str, pod: &Pod) -> Call {
        let plugin = self.conf["type"].as_str().expect("a configuration has a type");
        Call::new(plugin, command).container(pod.name()).netns(&pod.path()).conf(&self.conf)
    }
}

impl Guest {
    /// The guest reaches `to` by its addresses, and comes from these.
    pub(crate) fn must_be_seen_by(&self, to: &Pod, addresses: [&str; 2], from: [&str; 2]) {
        let seen = addresses.map(|address| must_reach(&self.pod, to, address).to_string());
        assert_eq!(seen, from);
    }
}

/// Ranges of both families.
pub(crate) fn dual(routes: &Value) -> Value {
    json!({"type": "host-local", "routes": routes,
           "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]})
}
