//! A node whose pods are namespaces, wired by podwire, and policyd's rules in it; beyond it another
//! node, and the world outside.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lab::{Call, Node, Pod, Space, Suite, has_iptables};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use policyd::attachment::{Attachment, PodReference};
use policyd::dataplane::{Dataplane, Kind, Programs};
use policyd::index::Index;
use policyd::iptables::{Family, Settings};
use policyd::model::NamespacedName;
use policyd::plan::HostInterface;
use runner::OsRunner;
use serde_json::{Value, json};

use crate::node::kind;
use crate::objects::{event, namespace, pod, uid, with_addresses};
use crate::prober::{Arrivals, Server};
use crate::saved;

/// How pods are joined to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wiring {
    Ptp,
    Bridge,
}

/// The node's addresses: to the other node, and in the pods' range.
pub(crate) const NODE: [&str; 4] = ["192.0.2.1", "2001:db8::1", "10.1.0.1", "fd00:1::1"];
/// Addresses beyond the link: the other node's; those of its pods `x/r` and `y/r`; and of somebody
/// outside, also as NAT64 shows him.
pub(crate) const NODE_2: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
pub(crate) const X_R: [&str; 2] = ["10.2.0.10", "fd00:2::10"];
pub(crate) const Y_R: [&str; 2] = ["10.2.0.11", "fd00:2::11"];
pub(crate) const OUTSIDE: [&str; 3] = ["203.0.113.9", "2001:db8:9::9", "64:ff9b::cb00:7109"];

/// The node, its pods and its policy.
pub(crate) struct Cluster {
    pub(crate) node: Node,
    /// The other node and all that is behind it.
    pub(crate) other: Pod,
    pub(crate) pods: BTreeMap<String, Member>,
    /// All that was told, by uid.
    pub(crate) objects: BTreeMap<String, Value>,
    pub(crate) index: Index,
    pub(crate) dataplane: Dataplane<OsRunner>,
    pub(crate) arrivals: Arrivals,
    pub(crate) conf: Value,
    servers: Vec<Server>,
    suite: Suite,
    before: String,
}

/// A pod of the node.
pub(crate) struct Member {
    pub(crate) space: Pod,
    pub(crate) attachment: Attachment,
}

impl Member {
    /// Its address of this family.
    pub(crate) fn address(&self, is_ipv4: bool) -> IpAddr {
        let mut addresses = self.attachment.addresses.iter().copied();
        addresses.find(|it| it.is_ipv4() == is_ipv4).expect("it has both families")
    }
}

/// The addresses that the nine pods get, in the order in which they are added.
pub(crate) fn nine(number: usize) -> [IpAddr; 2] {
    let last = number + 2;
    [format!("10.1.0.{last}").parse().unwrap(), format!("fd00:1::{last:x}").parse().unwrap()]
}

/// With the gate for the ranges of the node's pods.
pub(crate) fn gated() -> Settings {
    let gated = ["10.1.0.0/24", "fd00:1::/64"].map(|range| range.parse().unwrap());
    Settings { gated: gated.into(), ..Settings::default() }
}

impl Cluster {
    /// The node without pods.
    pub(crate) fn new(wiring: Wiring, settings: Settings) -> Self {
        Self::by(wiring, settings, kind(), "")
    }

    /// The node without pods, by this backend, and of iptables this variant.
    pub(crate) fn by(
        wiring: Wiring,
        settings: Settings,
        kind: Kind,
        variant: &'static str,
    ) -> Self {
        // Servers and probes have some two thousand sockets, and other tests run beside.
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
        let node = Node::quick();
        let conf = conf(wiring, &node);
        let other = other_node(&node);
        if wiring == Wiring::Bridge {
            node.sh("ip link add cni0 type bridge nf_call_iptables 1 nf_call_ip6tables 1");
        }
        // What is not ours must be as it was at the end.
        node.sh(if has_iptables() {
            "iptables -A FORWARD -s 198.51.100.1 -m comment --comment foreign -j ACCEPT
             ip6tables -t mangle -A FORWARD -s 2001:db8:7::7 -j ACCEPT
             ipset create foreign hash:ip; ipset add foreign 198.51.100.2"
        } else {
            "nft add table inet foreign
             nft add chain inet foreign forward '{ type filter hook forward priority 0; }'
             nft add rule inet foreign forward ip saddr 198.51.100.1 accept"
        });
        let before = saved::all(&node);
        let dataplane =
            Dataplane::new(kind, Programs::new(OsRunner, variant), &Family::ALL, settings);
        let mut cluster = Self {
            node,
            other,
            pods: BTreeMap::new(),
            objects: BTreeMap::new(),
            index: Index::new("node-1"),
            dataplane,
            arrivals: Arrivals::default(),
            conf,
            servers: Vec::new(),
            suite: Suite::podwire(),
            before,
        };
        cluster.adopt();
        cluster
    }

    /// Nine pods as in Kubernetes' e2e tests: a, b and c in each of the namespaces x, y and z; two
    /// more on the other node; and one on each node that has the node's network.
    pub(crate) fn nine(wiring: Wiring, settings: Settings) -> Self {
        let mut cluster = Self::new(wiring, settings);
        cluster.populate();
        cluster
    }

    pub(crate) fn populate(&mut self) {
        ["x", "y", "z"].iter().for_each(|name| self.tell(&namespace(name)));
        for namespace in ["x", "y", "z"] {
            for name in ["a", "b", "c"] {
                let name = format!("{namespace}/{name}");
                self.add(&name, pod(&name));
            }
        }
        for (name, node, has_nodes_network, addresses) in [
            ("x/r", "node-2", false, X_R),
            ("y/r", "node-2", false, Y_R),
            ("x/h", "node-1", true, [NODE[0], NODE[1]]),
            ("x/k", "node-2", true, NODE_2),
        ] {
            let mut pod = with_addresses(pod(name), &addresses.map(|it| it.parse().unwrap()));
            pod["spec"]["nodeName"] = json!(node);
            pod["spec"]["hostNetwork"] = json!(has_nodes_network);
            self.tell(&pod);
        }
        self.serve_beyond();
        self.enforce();
    }

    /// Has the nodes and the world outside answer, too. The node needs a pod to have its addresses.
    pub(crate) fn serve_beyond(&mut self) {
        let parse = |texts: &[&[&str]]| -> Vec<IpAddr> {
            texts.concat().iter().map(|it| it.parse().unwrap()).collect()
        };
        let beyond = parse(&[&NODE_2, &X_R, &Y_R, &OUTSIDE]);
        self.servers.push(Server::start(&self.node, &parse(&[&NODE]), &self.arrivals));
        self.servers.push(Server::start(&self.other, &beyond, &self.arrivals));
    }

    /// Adds a pod as a runtime and the API server do.
    pub(crate) fn add(&mut self, name: &str, object: Value) {
        let member = self.attach(name, &object);
        let addresses: Vec<_> = member.attachment.addresses.iter().copied().collect();
        self.tell(&with_addresses(object, &addresses));
        self.index.attach(member.attachment.clone());
        self.pods.insert(name.to_owned(), member);
    }

    /// What the runtime does alone.
    pub(crate) fn attach(&mut self, name: &str, object: &Value) -> Member {
        let space = self.node.pod(&name.replace('/', "-"));
        space.sh("ip link set lo up");
        let result = Call::new(self.conf["type"].as_str().unwrap(), "ADD")
            .container(space.name())
            .netns(&space.path())
            .conf(&self.conf)
            .run(&self.node, &self.suite)
            .ok();
        let (namespace, pod) = name.split_once('/').unwrap();
        let attachment = Attachment {
            container_id: space.name().to_owned(),
            pod: Some(PodReference {
                name: NamespacedName { namespace: namespace.to_owned(), name: pod.to_owned() },
                uid: Some(uid(object)),
            }),
            addresses: lab::addresses(&result).into_iter().collect(),
            interface: Some(host_interface(&result)),
        };
        let served: Vec<_> = attachment.addresses.iter().copied().collect();
        self.servers.push(Server::start(&space, &served, &self.arrivals));
        Member { space, attachment }
    }

    /// Takes in that an object is there, or is otherwise than before.
    pub(crate) fn tell(&mut self, object: &Value) {
        self.objects.insert(uid(object), object.clone());
        self.index.apply(event(object, true));
    }

    /// Takes in that an object is gone.
    pub(crate) fn forget(&mut self, object: &Value) {
        self.objects.remove(&uid(object));
        self.index.apply(event(object, false));
    }

    /// Brings the kernel to what was told.
    pub(crate) fn enforce(&mut self) {
        let changes = self.index.take_changes();
        if self.dataplane.needs_adoption(&changes) {
            return self.adopt();
        }
        let dataplane = &mut self.dataplane;
        self.node.enter(|| dataplane.apply(&changes)).expect("the kernel takes it");
    }

    /// Brings the kernel to what was told, whatever it holds.
    pub(crate) fn adopt(&mut self) {
        self.index.take_changes();
        let (plan, dataplane) = (self.index.plan(), &mut self.dataplane);
        self.node.enter(|| dataplane.adopt(&plan)).expect("the kernel takes it");
    }

    /// The namespace of that name.
    pub(crate) fn space(&self, name: &str) -> Option<&Space> {
        match name {
            "node" => Some(&self.node),
            "other" => Some(&self.other),
            pod => self.pods.get(pod).map(|member| &*member.space),
        }
    }

    /// Removes all that is ours from the node; what is not must be as it was.
    pub(crate) fn clean_up(mut self) {
        let dataplane = &mut self.dataplane;
        self.node.enter(|| dataplane.clean_up()).expect("everything can be removed");
        assert_eq!(saved::all(&self.node), self.before, "after clean_up");
    }
}

fn conf(wiring: Wiring, node: &Node) -> Value {
    let mut conf = match wiring {
        Wiring::Ptp => json!({"type": "ptp"}),
        Wiring::Bridge => json!({"type": "bridge", "bridge": "cni0", "isGateway": true}),
    };
    conf["cniVersion"] = json!("1.0.0");
    conf["name"] = json!("net");
    conf["ipam"] = json!({"type": "host-local", "dataDir": node.data(),
        "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]});
    conf
}

/// What is beyond the node's link: all of it is one namespace with many addresses.
fn other_node(node: &Node) -> Pod {
    let other = node.pod("other");
    node.sh(&format!(
        "ip link add up0 type veth peer name eth0 netns {pid}; ip link set up0 up
         ip addr add 192.0.2.1/24 dev up0; ip addr add 2001:db8::1/64 dev up0 nodad
         for net in 10.2.0.0/24 203.0.113.0/24; do ip route add $net via 192.0.2.2; done
         ip link set lo up",
        pid = other.path().display()
    ));
    other.sh("ip link set lo up; ip link set eth0 up
         ip addr add 192.0.2.2/24 dev eth0; ip addr add 2001:db8::2/64 dev eth0 nodad
         for it in 10.2.0.10 10.2.0.11 203.0.113.9; do ip addr add $it/32 dev lo; done
         for it in fd00:2::10 fd00:2::11 2001:db8:9::9 64:ff9b::cb00:7109; do
             ip addr add $it/128 dev lo nodad
         done
         ip route add 10.1.0.0/24 via 192.0.2.1; ip route add fd00:1::/64 via 2001:db8::1");
    node.sh("for net in fd00:2::/64 2001:db8:9::/64 64:ff9b::/96; do
                 ip route add $net via 2001:db8::2
             done");
    other
}

fn host_interface(result: &Value) -> HostInterface {
    let interfaces = result["interfaces"].as_array().unwrap();
    let host = interfaces.iter().rfind(|it| it.get("sandbox").is_none() && it["name"] != "cni0");
    let name = host.expect("the host's end")["name"].as_str().unwrap().to_owned();
    let is_bridged = interfaces.iter().any(|it| it["name"] == "cni0");
    HostInterface { name, bridge: is_bridged.then(|| "cni0".to_owned()) }
}
