//! A node whose pods are namespaces, wired by podwire, and policyd's rules in it.

use std::collections::BTreeMap;

use lab::{Call, Node, Options, Pod, Suite};
use policyd::attachment::{Attachment, PodReference};
use policyd::dataplane::{Dataplane, Programs};
use policyd::index::Index;
use policyd::iptables::{Family, Settings};
use policyd::model::{self, NamespacedName};
use policyd::plan::HostInterface;
use policyd::source::{Change, Event};
use runner::OsRunner;
use serde_json::{Value, json};

/// How pods are joined to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wiring {
    Ptp,
    Bridge,
}

/// The node, its pods and its policy.
pub(crate) struct Cluster {
    pub(crate) node: Node,
    pub(crate) pods: BTreeMap<String, Member>,
    pub(crate) index: Index,
    pub(crate) dataplane: Dataplane<OsRunner>,
    conf: Value,
    suite: Suite,
}

/// A pod of the node.
pub(crate) struct Member {
    pub(crate) space: Pod,
    pub(crate) attachment: Attachment,
}

impl Cluster {
    pub(crate) fn new(wiring: Wiring, settings: Settings) -> Self {
        let node = Node::with(Options { instant_dad: true });
        let plugin = match wiring {
            Wiring::Ptp => json!({"type": "ptp"}),
            Wiring::Bridge => json!({"type": "bridge", "bridge": "cni0", "isGateway": true}),
        };
        let mut conf = plugin;
        conf["cniVersion"] = json!("1.0.0");
        conf["name"] = json!("net");
        conf["ipam"] = json!({"type": "host-local", "dataDir": node.data(),
            "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]});
        let dataplane = Dataplane::new(Programs::new(OsRunner, ""), &Family::ALL, settings);
        let index = Index::new("node-1");
        let mut cluster =
            Self { node, pods: BTreeMap::new(), index, dataplane, conf, suite: Suite::podwire() };
        if wiring == Wiring::Bridge {
            cluster.node.sh("ip link add cni0 type bridge nf_call_iptables 1 nf_call_ip6tables 1");
        }
        let plan = cluster.index.plan();
        let dataplane = &mut cluster.dataplane;
        cluster.node.enter(|| dataplane.adopt(&plan)).expect("the node has no rules of ours yet");
        cluster
    }

    /// Adds a pod as a runtime and the API server do.
    pub(crate) fn add(&mut self, name: &str, mut object: Value) {
        let space = self.node.pod(&name.replace('/', "-"));
        space.sh("ip link set lo up");
        let result = Call::new(self.conf["type"].as_str().unwrap(), "ADD")
            .container(space.name())
            .netns(&space.path())
            .conf(&self.conf)
            .run(&self.node, &self.suite)
            .ok();
        let ips = result["ips"].as_array().unwrap().iter();
        let addresses: Vec<_> = ips
            .map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap().to_owned())
            .collect();
        let interfaces = result["interfaces"].as_array().unwrap();
        let host =
            interfaces.iter().rfind(|it| it.get("sandbox").is_none() && it["name"] != "cni0");
        let bridge = interfaces.iter().any(|it| it["name"] == "cni0").then(|| "cni0".to_owned());
        object["status"]["podIPs"] = addresses.iter().map(|it| json!({"ip": it})).collect();
        let (namespace, pod) = name.split_once('/').unwrap();
        let attachment = Attachment {
            container_id: space.name().to_owned(),
            pod: Some(PodReference {
                name: NamespacedName { namespace: namespace.to_owned(), name: pod.to_owned() },
                uid: object["metadata"]["uid"].as_str().map(str::to_owned),
            }),
            addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
            interface: host
                .map(|it| HostInterface { name: it["name"].as_str().unwrap().to_owned(), bridge }),
        };
        self.tell(&object);
        self.index.attach(attachment.clone());
        self.pods.insert(name.to_owned(), Member { space, attachment });
    }

    /// Takes in an object.
    pub(crate) fn tell(&mut self, object: &Value) {
        fn read<T: serde::de::DeserializeOwned>(object: &Value) -> T {
            serde_json::from_value(object.clone()).unwrap()
        }
        self.index.apply(match object["kind"].as_str().unwrap() {
            "Pod" => Event::Pods(Change::Applied(model::Pod::from(&read(object)))),
            "Namespace" => {
                Event::Namespaces(Change::Applied(model::Namespace::from(&read(object))))
            }
            _ => Event::Policies(Change::Applied(model::Policy::from(&read(object)))),
        });
    }

    /// Brings the kernel to what was told.
    pub(crate) fn enforce(&mut self) {
        let changes = self.index.take_changes();
        let endpoints = self.index.endpoints().map(|(key, it)| (key.clone(), it.clone())).collect();
        let dataplane = &mut self.dataplane;
        self.node.enter(|| dataplane.apply(&endpoints, &changes)).expect("the kernel takes it");
    }
}
