//! Nodes that are joined by a switch.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Instant;

use lab::probe::{must_not_reach, must_reach};
use lab::{Call, Node, Pod, Suite, Switch, World};
use policyd::dataplane::Programs;
use policyd::node_network::conflist::Main;
use policyd::node_network::{self, ConfDir, Keeper, Member, Members, Options, Report};
use runner::{OsRunner, Runner};
use serde_json::Value;

/// The runtime's file.
const LIST: &str = "10-podwire.conflist";

/// Nodes on one wire, each with a keeper that is called by hand.
pub(crate) struct Nodes {
    pub(crate) all: Vec<Host>,
    pub(crate) members: Members,
    pub(crate) switch: Switch,
}

/// One of them.
pub(crate) struct Host {
    pub(crate) node: Node,
    pub(crate) keeper: Option<Keeper<OsRunner>>,
    pub(crate) name: String,
    before: World,
}

/// The node of this number, counted from 1, as the cluster knows it.
pub(crate) fn member(number: usize) -> Member {
    Member {
        name: format!("node-{number}"),
        created: number.try_into().unwrap(),
        pod_ranges: [format!("10.244.{number}.0/24"), format!("fd00:{number}::/64")]
            .map(|it| it.parse().unwrap())
            .into(),
        addresses: [format!("192.0.2.{number}"), format!("2001:db8::{number}")]
            .map(|it| it.parse().unwrap())
            .into(),
    }
}

impl Nodes {
    pub(crate) fn new(count: usize) -> Self {
        Self::with(count, Main::Ptp)
    }

    pub(crate) fn with(count: usize, main: Main) -> Self {
        let nodes: Vec<Node> = (0..count).map(|_| Node::quick()).collect();
        let switch = Switch::of(&nodes.iter().collect::<Vec<_>>());
        let mut all = Vec::new();
        for (node, number) in nodes.into_iter().zip(1..) {
            let name = format!("node-{number}");
            let keeper = Some(keeper(&node, &name, main));
            let before = World::of(&node, &[]);
            all.push(Host { node, keeper, name, before });
        }
        let members = (1..=count).map(member).map(|it| (it.name.clone(), it)).collect();
        Self { all, members, switch }
    }

    /// All keepers look; policies are in force.
    pub(crate) fn reconcile(&mut self) -> Vec<Report> {
        let Self { all, members, .. } = self;
        all.iter_mut().map(|host| host.reconcile(members, true)).collect()
    }

    /// All look, and all is in place.
    pub(crate) fn settle(&mut self) {
        for report in self.reconcile() {
            assert_eq!(report.state(), Ok(()));
            assert_eq!(report.defects, []);
        }
    }

    /// Removes all that was made: nothing may be left, and forwarding stays.
    pub(crate) fn clean_up(&self) {
        for host in &self.all {
            let programs = &mut Programs::new(OsRunner, "");
            host.node.enter(|| node_network::remove(programs)).unwrap();
            host.conf_dir().remove().unwrap();
            // What pods leave of host-local, and what forwarding brings.
            let others = ["file /var/lib/", "type=anycast", "forward", "accept_ra"];
            let is_kept = |line: &&String| !others.iter().any(|it| line.contains(it));
            let facts =
                |world: &World| world.lines.iter().filter(is_kept).cloned().collect::<Vec<_>>();
            let (before, after) = (facts(&host.before), facts(&World::of(&host.node, &[])));
            let found = lab::difference(&before, &after);
            assert!(found.is_empty(), "{} is not as before:\n{found}", host.name);
        }
    }
}

fn conf_dir(node: &Node) -> ConfDir {
    ConfDir::new(&node.home().join("net.d"), LIST)
}

pub(crate) fn keeper(node: &Node, name: &str, main: Main) -> Keeper<OsRunner> {
    keeper_by(OsRunner, node, name, main)
}

pub(crate) fn keeper_by<R: Runner>(runner: R, node: &Node, name: &str, main: Main) -> Keeper<R> {
    let options = Options {
        node: name.to_owned(),
        conf_dir: conf_dir(node),
        main,
        chained: Vec::new(),
        mtu: None,
    };
    Keeper::new(options, Programs::new(runner, ""))
}

impl Host {
    pub(crate) fn reconcile(&mut self, members: &Members, has_policy: bool) -> Report {
        let keeper = self.keeper.as_mut().expect("it is called by hand");
        self.node.enter(|| keeper.reconcile(members, has_policy, Instant::now()))
    }

    pub(crate) fn conf_dir(&self) -> ConfDir {
        conf_dir(&self.node)
    }

    pub(crate) fn list_file(&self) -> PathBuf {
        self.node.home().join("net.d").join(LIST)
    }

    /// The list that the runtime reads.
    pub(crate) fn list(&self) -> Value {
        let text = self.conf_dir().read().unwrap().expect("there is a list");
        serde_json::from_slice(&text).unwrap()
    }

    /// A pod, wired by the list's first plugin.
    pub(crate) fn pod(&self, name: &str) -> (Pod, Vec<IpAddr>) {
        let pod = self.node.pod(name);
        pod.sh("ip link set lo up");
        let list = self.list();
        let mut conf = list["plugins"][0].clone();
        conf["name"] = list["name"].clone();
        conf["cniVersion"] = list["cniVersion"].clone();
        let kind = conf["type"].as_str().unwrap().to_owned();
        let call = Call::new(&kind, "ADD").container(name).netns(&pod.path()).conf(&conf);
        let result = call.run(&self.node, &Suite::podwire()).ok();
        let address = |ip: &Value| ip["address"].as_str()?.split('/').next()?.parse().ok();
        let addresses = result["ips"].as_array().unwrap().iter().map(|it| address(it).unwrap());
        (pod, addresses.collect())
    }

    /// Takes a pod away.
    pub(crate) fn remove(&self, pod: &Pod) {
        let list = self.list();
        let mut conf = list["plugins"][0].clone();
        conf["name"] = list["name"].clone();
        conf["cniVersion"] = list["cniVersion"].clone();
        let kind = conf["type"].as_str().unwrap().to_owned();
        let call = Call::new(&kind, "DEL").container(pod.name()).netns(&pod.path()).conf(&conf);
        _ = call.run(&self.node, &Suite::podwire()).ok();
    }

    /// The routes that are ours, or those that are not, without what the kernel makes by itself.
    pub(crate) fn routes(&self, ours: bool) -> String {
        let grep = if ours { "grep" } else { "grep -v" };
        self.node.sh(&format!("for f in -4 -6; do ip $f route | {grep} 'proto 112 ' || :; done"))
    }
}

/// Each reaches the other by all addresses, and is seen as itself.
pub(crate) fn are_joined(one: &(Pod, Vec<IpAddr>), other: &(Pod, Vec<IpAddr>)) {
    for ((from, own), (to, addresses)) in [(one, other), (other, one)] {
        for (address, own) in addresses.iter().zip(own) {
            assert_eq!(must_reach(from, to, &address.to_string()), *own);
        }
    }
}

pub(crate) fn are_apart(one: &(Pod, Vec<IpAddr>), other: &(Pod, Vec<IpAddr>)) {
    for address in &other.1 {
        must_not_reach(&one.0, &other.0, &address.to_string());
    }
}
