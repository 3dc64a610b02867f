//! A node with a chain of two plugins, called as a runtime does.

use std::collections::BTreeSet;
use std::sync::Arc;

use lab::{Call, Node, Pod, Reply, Suite, World};
use serde_json::{Value, json};

use crate::agent::{Agent, Manner, dataplane, places};

/// A node and its one network.
pub(crate) struct Site {
    pub(crate) node: Arc<Node>,
    podwire: Suite,
    /// The first plugin's configuration.
    main: Value,
    /// podwire-policy's. The machine of the tests may be busy: only some tests want short waits.
    pub(crate) policy: Value,
}

/// How pods are joined to the node by default.
pub(crate) fn ptp() -> Value {
    json!({"type": "ptp"})
}

impl Site {
    /// A node that policyd has never run on.
    pub(crate) fn without_gate(mut main: Value) -> Self {
        let node = Node::quick();
        main["cniVersion"] = json!("1.1.0");
        main["name"] = json!("net1");
        main["ipam"] = json!({"type": "host-local", "dataDir": node.data(),
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            "ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd00:1::/64"}]]});
        let policy = json!({"cniVersion": "1.1.0", "name": "net1", "type": "podwire-policy",
            "timeout": 20_000});
        Self { node: Arc::new(node), podwire: Suite::podwire(), main, policy }
    }

    /// A node whose kernel has policyd's gate, and on which a pod has come and gone: what stays by
    /// design is there.
    pub(crate) fn new(main: Value) -> Self {
        let site = Self::without_gate(main);
        {
            let _agent = site.agent(Manner::Works);
            let pod = site.node.pod("warm-up");
            let result = site.add(&pod).ok();
            assert!(site.del(&pod, &result).succeeded());
        }
        site
    }

    pub(crate) fn agent(&self, manner: Manner) -> Agent {
        Agent::start(&self.node, manner)
    }

    /// The same with some keys of podwire-policy.
    pub(crate) fn with(mut self, keys: &Value) -> Self {
        for (key, value) in keys.as_object().unwrap() {
            self.policy[key] = value.clone();
        }
        self
    }

    /// In another version of the protocol.
    pub(crate) fn set_version(&mut self, version: &str) {
        for conf in [&mut self.main, &mut self.policy] {
            conf["cniVersion"] = json!(version);
        }
    }

    pub(crate) fn main_call(&self, command: &str, pod: &Pod) -> Call {
        Call::new(self.main["type"].as_str().unwrap(), command)
            .container(pod.name())
            .netns(&pod.path())
            .conf(&self.main)
    }

    /// A call of podwire-policy for a pod, whose name is the container id; `prev` is the result.
    pub(crate) fn policy_call(&self, command: &str, pod: &Pod, prev: &Value) -> Call {
        let mut conf = self.policy.clone();
        conf["prevResult"] = prev.clone();
        let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=x;K8S_POD_NAME={}", pod.name());
        Call::new("podwire-policy", command)
            .container(pod.name())
            .netns(&pod.path())
            .args(&args)
            .conf(&conf)
    }

    pub(crate) fn run(&self, call: &Call) -> Reply {
        call.run(&self.node, &self.podwire)
    }

    /// The first plugin's ADD.
    pub(crate) fn wire(&self, pod: &Pod) -> Value {
        self.run(&self.main_call("ADD", pod)).ok()
    }

    /// podwire-policy's ADD.
    pub(crate) fn protect(&self, pod: &Pod, prev: &Value) -> Reply {
        self.run(&self.policy_call("ADD", pod, prev))
    }

    pub(crate) fn add(&self, pod: &Pod) -> Reply {
        let prev = self.wire(pod);
        self.protect(pod, &prev)
    }

    pub(crate) fn unprotect(&self, pod: &Pod, result: &Value) -> Reply {
        self.run(&self.policy_call("DEL", pod, result))
    }

    /// DEL of both, the last first.
    pub(crate) fn del(&self, pod: &Pod, result: &Value) -> Reply {
        let reply = self.unprotect(pod, result);
        assert!(reply.succeeded(), "{reply}");
        self.run(&self.main_call("DEL", pod))
    }

    pub(crate) fn check(&self, pod: &Pod, result: &Value) -> Reply {
        self.run(&self.policy_call("CHECK", pod, result))
    }

    /// GC of podwire-policy with these valid attachments of `eth0`.
    pub(crate) fn gc(&self, valid: &[&str]) -> Reply {
        let mut conf = self.policy.clone();
        let valid = valid.iter().map(|id| json!({"containerID": id, "ifname": "eth0"}));
        conf["cni.dev/valid-attachments"] = valid.collect();
        let call = Call::new("podwire-policy", "GC").unset("CNI_CONTAINERID").unset("CNI_IFNAME");
        self.run(&call.conf(&conf))
    }

    pub(crate) fn status(&self) -> Reply {
        let call = Call::new("podwire-policy", "STATUS");
        self.run(&call.unset("CNI_CONTAINERID").unset("CNI_IFNAME").conf(&self.policy))
    }

    /// The addresses that the gate lets pass.
    pub(crate) fn let_pass(&self) -> BTreeSet<String> {
        lab::let_pass(&self.node)
    }

    /// The interfaces that are closed, both ways.
    pub(crate) fn closed(&self) -> BTreeSet<String> {
        // An error where there is none.
        let chains = self.node.try_sh("nft list table netdev podwire").stdout;
        let names = chains.lines().filter_map(|it| it.trim().strip_prefix("chain "));
        let names: BTreeSet<_> = names.map(|it| it.trim_end_matches(" {").to_owned()).collect();
        let (outgoing, incoming): (BTreeSet<_>, BTreeSet<_>) =
            names.into_iter().partition(|it| it.ends_with("/egress"));
        let of_outgoing = outgoing.iter().map(|it| it.trim_end_matches("/egress").to_owned());
        assert_eq!(of_outgoing.collect::<BTreeSet<_>>(), incoming);
        assert_eq!(incoming.is_empty(), chains.is_empty(), "{chains}");
        incoming
    }

    /// The host's ends of these pods' links.
    pub(crate) fn interfaces(&self, pods: &[&Pod]) -> BTreeSet<String> {
        let name = |pod: &&Pod| self.file(pod).host_interface.expect("it has one").name;
        pods.iter().map(name).collect()
    }

    /// The ids of the containers that have a file.
    pub(crate) fn files(&self) -> Vec<String> {
        let (attachments, problems) =
            attachment::Files::new(&places(&self.node).files).list().unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        let mut ids: Vec<_> = attachments.into_iter().map(|it| it.container_id).collect();
        ids.sort();
        ids
    }

    /// The attachment that a container's file has.
    pub(crate) fn file(&self, pod: &Pod) -> attachment::Attachment {
        let files = attachment::Files::new(&places(&self.node).files);
        files.get(pod.name()).unwrap().expect("the container has a file")
    }

    /// All that a pod can leave behind. Where host-local was last is no state of a pod.
    pub(crate) fn world(&self, pods: &[&Pod]) -> World {
        let mut world = World::of(&self.node, pods);
        world.lines.retain(|line| !line.contains("last_reserved_ip") && !line.contains(".podwire"));
        let passing = self.let_pass().into_iter().map(|it| format!("the gate lets pass {it}"));
        world.lines.extend(passing);
        world
    }

    /// Puts policyd's rules and gate into the kernel, as one who has ended left them.
    pub(crate) fn raise_gate(&self) {
        let plan = policyd::index::Index::new("node-1").plan();
        self.node.enter(|| dataplane().adopt(&plan)).expect("the kernel takes it");
    }
}

/// The addresses of a result.
pub(crate) fn addresses(result: &Value) -> BTreeSet<String> {
    let ips = result["ips"].as_array().unwrap().iter();
    ips.map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap().to_owned()).collect()
}
