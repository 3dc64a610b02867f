//! A cluster under test, and its pods.

use std::fs::File;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs, panic};

use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use testbed::bring_up::{self, Parts};
use testbed::inside::Node;
use testbed::kubectl::Kubectl;
use testbed::process::Identity;
use testbed::settings::{Settings, node_name};
use testbed::state::State;
use testbed::switch;

/// A program on a node may take this long.
const BOUND: Duration = Duration::from_secs(60);

/// A pod may take this long to start, or to go.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// policyd may take this long to be replaced on all nodes, one after the other.
const ROLLOUT: Duration = Duration::from_secs(180);

/// A cluster under test.
#[derive(Debug)]
pub struct Bed {
    state: State,
    settings: Settings,
    supervisor: Identity,
    kubectl: Kubectl,
}

/// A pod that runs.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What no other pod of that name has.
    pub uid: String,
    /// Its addresses, one of each family that the cluster has.
    pub addresses: Vec<IpAddr>,
    /// The number of its node.
    pub node: u8,
}

/// Where clusters under test have their files: not where `make cluster` has them.
///
/// # Panics
/// `LAB` is not set.
#[must_use]
pub fn state() -> State {
    State::at(&variable("LAB").join("e2e")).unwrap()
}

/// A program that is built beside podwire.
///
/// # Panics
/// `PEERS_BIN_DIR` is not set.
#[must_use]
pub fn peer(name: &str) -> PathBuf {
    variable("PEERS_BIN_DIR").join(name)
}

fn variable(name: &str) -> PathBuf {
    env::var_os(name)
        .map(PathBuf::from)
        .unwrap_or_else(|| panic!("{name} is not set: run `make e2e`"))
}

impl Pod {
    fn of(object: &Value) -> Self {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap();
        let addresses = object["status"]["podIPs"].as_array().into_iter().flatten();
        Self {
            namespace: text("/metadata/namespace").to_owned(),
            name: text("/metadata/name").to_owned(),
            uid: text("/metadata/uid").to_owned(),
            addresses: addresses.map(|it| it["ip"].as_str().unwrap().parse().unwrap()).collect(),
            node: text("/spec/nodeName").trim_start_matches("node-").parse().unwrap(),
        }
    }
}

impl Bed {
    /// Brings a cluster up.
    ///
    /// # Panics
    /// It does not come up, or a part of it is missing.
    #[must_use]
    pub fn up(settings: Settings) -> Self {
        let state = state();
        let parts = Parts {
            peers: variable("PEERS_BIN_DIR"),
            images: variable("TESTBED_IMAGES"),
            conf: conf(),
        };
        let program = variable("TESTBED_BIN");
        bring_up::up(&state, &program, settings, &parts)
            .unwrap_or_else(|error| panic!("{}", error.chain()));
        let (_, supervisor) = state.running().unwrap();
        let kubectl = Kubectl::on(Node::find(supervisor, 1).unwrap());
        Self { state, settings, supervisor, kubectl }
    }

    /// Takes it down.
    ///
    /// # Panics
    /// Something of it stays.
    pub fn down(&self) {
        bring_up::down(&self.state).unwrap_or_else(|error| panic!("{}", error.chain()));
    }

    /// Kills the process that all others of the cluster descend from.
    ///
    /// # Panics
    /// It does not end.
    pub fn crash(&self) {
        self.supervisor.end(BOUND).unwrap();
    }

    /// What was asked for.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Runs `kubectl` and returns what it printed.
    ///
    /// # Panics
    /// It fails.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.kubectl.run(arguments).unwrap_or_else(|error| panic!("{}", error.chain()))
    }

    /// Runs `kubectl`, and tells whether it succeeded.
    #[must_use]
    pub fn try_kubectl(&self, arguments: &[&str]) -> bool {
        self.kubectl.run(arguments).is_ok()
    }

    /// An object, or a list of some.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn get(&self, arguments: &[&str]) -> Value {
        let arguments = [&["get"], arguments].concat();
        self.kubectl.json(&arguments).unwrap_or_else(|error| panic!("{}", error.chain()))
    }

    /// Creates an object or changes it.
    ///
    /// # Panics
    /// The API server refuses.
    pub fn apply(&self, object: &Value) {
        let text = object.to_string();
        self.kubectl.apply(&text).unwrap_or_else(|error| panic!("{}\n{text}", error.chain()));
    }

    /// Does with these manifests what `kubectl VERB -f` does.
    ///
    /// # Panics
    /// It fails.
    pub fn with_manifests(&self, verb: &[&str], manifests: &str) {
        let arguments = [verb, &["-f", "-"]].concat();
        let done = self.kubectl.feed(&arguments, manifests.as_bytes());
        done.unwrap_or_else(|error| panic!("{}", error.chain()));
    }

    /// Runs a shell line on a node and returns what it printed.
    ///
    /// # Panics
    /// It fails.
    pub fn on(&self, node: u8, line: &str) -> String {
        self.on_within(BOUND, node, line, &[])
    }

    /// The same for one that may take longer, and reads this.
    ///
    /// # Panics
    /// It fails.
    pub fn on_within(&self, bound: Duration, node: u8, line: &str, input: &[u8]) -> String {
        let printed = self.node(node).run(&["sh", "-euc", line], input, bound);
        let printed = printed.unwrap_or_else(|error| panic!("{}", error.chain()));
        String::from_utf8_lossy(&printed).into_owned()
    }

    /// Runs a shell line on a node, and tells whether it succeeded.
    ///
    /// # Panics
    /// It cannot be run.
    #[must_use]
    pub fn succeeds(&self, node: u8, line: &str) -> bool {
        let output = self.node(node).try_run(&["sh", "-euc", line], &[], BOUND);
        output.unwrap_or_else(|error| panic!("{}", error.chain())).status.success()
    }

    /// Starts a program on a node whose output the caller reads.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn spawn(&self, node: u8, arguments: &[&str]) -> Child {
        let child = self.node(node).spawn(arguments);
        child.unwrap_or_else(|error| panic!("{}", error.chain()))
    }

    fn node(&self, number: u8) -> Node {
        match number {
            0 => Node::world(self.supervisor),
            number => Node::find(self.supervisor, number).unwrap(),
        }
    }

    /// Ends all that runs on a node at once, as when its power fails, and waits until it is ready again.
    ///
    /// # Panics
    /// It does not come back.
    pub fn reboot(&self, number: u8) {
        self.switch_off(number);
        self.switch_on(number);
    }

    /// Ends all that runs on a node at once, as when its power fails, and keeps it off.
    ///
    /// # Panics
    /// It does not end.
    pub fn switch_off(&self, number: u8) {
        switch::off(&self.state, number).unwrap_or_else(|error| panic!("{}", error.chain()));
    }

    /// Puts a new machine in the place of a node that was switched off.
    ///
    /// # Panics
    /// What the old one had cannot be removed.
    pub fn renew(&self, number: u8) {
        switch::renew(&self.state, number).unwrap_or_else(|error| panic!("{}", error.chain()));
    }

    /// Starts a node that was switched off, and waits until it is ready.
    ///
    /// # Panics
    /// It does not come back.
    pub fn switch_on(&self, number: u8) {
        switch::on(&self.state, number).unwrap_or_else(|error| panic!("{}", error.chain()));
        let name = node_name(number);
        let ready = ["wait", "node", &name, "--for=condition=Ready", "--timeout=10s"];
        await_that(&format!("{name} is ready"), PATIENCE, || self.try_kubectl(&ready));
    }

    /// How many leases host-local has on a node; of several families as many for each pod.
    #[must_use]
    pub fn leases(&self, node: u8) -> usize {
        let line = "find /var/lib/cni/networks -name '*[0-9a-f][.:]*' -type f | wc -l";
        self.on(node, line).trim().parse().unwrap()
    }

    /// How many a node should have: those of the pods that containerd has there.
    #[must_use]
    pub fn wired(&self, node: u8) -> usize {
        let name = node_name(node);
        let field = format!("--field-selector=spec.nodeName={name}");
        let pods = self.get(&["pods", "-A", &field]);
        let of = |pod: &Value| {
            let on_node = pod["spec"]["hostNetwork"].as_bool() == Some(true);
            let has_ended = ["Succeeded", "Failed"].iter().any(|it| pod["status"]["phase"] == *it);
            if on_node || has_ended {
                0
            } else {
                pod["status"]["podIPs"].as_array().map_or(0, Vec::len)
            }
        };
        pods["items"].as_array().unwrap().iter().map(of).sum()
    }

    /// What a node's kernel and files have of pods: links, namespaces, chains, rules, sets, connections that
    /// are cut, and attachments, as numbers.
    #[must_use]
    pub fn of_pods(&self, node: u8) -> String {
        self.on(
            node,
            "echo links $(ip -o link show type veth | wc -l)
            echo namespaces $(ls /run/netns | wc -l)
            echo chains $({ iptables-save; ip6tables-save; } | grep -c '^:PODWIRE' || :)
            echo nft $(nft list ruleset | grep -c PODWIRE || :)
            echo rules $({ iptables-save; ip6tables-save; } | grep -c -- '-A PODWIRE' || :)
            echo sets $(ipset list -n | wc -l)
            echo attachments $(ls /run/podwire/attachments | wc -l)
            echo routes $(ip route | grep -c 'dev veth' || :)",
        )
    }

    /// Tells, after a failure, what may explain it.
    pub fn tell(&self) {
        let ask = |arguments: &[&str]| self.kubectl.run(arguments).unwrap_or_default();
        println!("{}", ask(&["get", "pods", "-A", "-o", "wide"]));
        let events = ask(&["get", "events", "-A", "--sort-by=.lastTimestamp"]);
        let lines: Vec<_> = events.lines().collect();
        println!("{}", lines[lines.len().saturating_sub(30)..].join("\n"));
    }

    /// Makes an empty namespace, in place of one that is there.
    pub fn namespace(&self, name: &str) {
        self.kubectl(&["delete", "namespace", name, "--ignore-not-found", "--timeout=110s"]);
        self.kubectl(&["create", "namespace", name]);
    }

    /// Removes a namespace with all that is in it.
    pub fn remove_namespace(&self, name: &str) {
        self.kubectl(&["delete", "namespace", name, "--timeout=110s"]);
    }

    /// Creates a pod and waits until it is ready.
    ///
    /// # Panics
    /// It is not ready in time.
    #[must_use]
    pub fn start(&self, object: &Value) -> Pod {
        self.apply(object);
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap();
        self.await_pod(text("/metadata/namespace"), text("/metadata/name"))
    }

    /// Waits until a pod is ready.
    ///
    /// # Panics
    /// It is not ready in time.
    #[must_use]
    pub fn await_pod(&self, namespace: &str, name: &str) -> Pod {
        let mut seen = Value::Null;
        await_that(&format!("{namespace}/{name} is ready"), PATIENCE, || {
            seen = self.get(&["pod", "-n", namespace, name]);
            is_ready(&seen)
        });
        Pod::of(&seen)
    }

    /// A pod as the API server has it, ready or not, or ended.
    #[must_use]
    pub fn pod(&self, namespace: &str, name: &str) -> Pod {
        Pod::of(&self.get(&["pod", "-n", namespace, name]))
    }

    /// All pods of a namespace, as the API server has them.
    ///
    /// # Panics
    /// One of them is on no node.
    #[must_use]
    pub fn pods(&self, namespace: &str) -> Vec<Pod> {
        let pods = self.get(&["pods", "-n", namespace]);
        pods["items"].as_array().unwrap().iter().map(Pod::of).collect()
    }

    /// How policyd's container is to be.
    #[must_use]
    pub fn policyd(&self) -> Value {
        let daemons = self.get(&["daemonset", "-n", "kube-system", "policyd"]);
        daemons["spec"]["template"]["spec"]["containers"][0].clone()
    }

    /// Waits until policyd is ready on all nodes.
    ///
    /// # Panics
    /// It is not in time.
    pub fn await_policyd(&self) {
        let ask = ["rollout", "status", "-n", "kube-system", "daemonset/policyd", "--timeout=10s"];
        await_that("policyd is ready", ROLLOUT, || self.try_kubectl(&ask));
        thread::sleep(Duration::from_secs(1));
    }

    /// Waits until a pod that runs once has ended, and returns how: `Succeeded` or `Failed`.
    ///
    /// # Panics
    /// It does not end in time.
    #[must_use]
    pub fn await_end(&self, namespace: &str, name: &str) -> String {
        let mut phase = String::new();
        await_that(&format!("{namespace}/{name} ends"), PATIENCE, || {
            let pod = self.get(&["pod", "-n", namespace, name]);
            phase = pod["status"]["phase"].as_str().unwrap_or_default().to_owned();
            phase == "Succeeded" || phase == "Failed"
        });
        phase
    }

    /// Whether a pod is ready now.
    #[must_use]
    pub fn is_ready(&self, pod: &Pod) -> bool {
        is_ready(&self.get(&["pod", "-n", &pod.namespace, &pod.name]))
    }

    /// Runs `f` in the network namespace of a pod.
    ///
    /// # Panics
    /// The pod has none, or `f` panics.
    pub fn inside<T: Send>(&self, pod: &Pod, f: impl FnOnce() -> T + Send) -> T {
        let door = self.door(pod);
        let inside = || {
            setns(&door, CloneFlags::CLONE_NEWNET).unwrap();
            f()
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|cause| panic::resume_unwind(cause))
    }

    /// The network namespace of a pod: the one of its node in which its address is.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn door(&self, pod: &Pod) -> File {
        let folder = self.node(pod.node).init().file("root/run/netns");
        let has_address = |door: &File| {
            let look = || {
                setns(door, CloneFlags::CLONE_NEWNET).is_ok()
                    && UdpSocket::bind((pod.addresses[0], 0)).is_ok()
            };
            thread::scope(|scope| scope.spawn(look).join().unwrap())
        };
        let files = fs::read_dir(folder).unwrap();
        let mut doors = files.filter_map(|entry| File::open(entry.ok()?.path()).ok());
        doors.find(has_address).unwrap_or_else(|| panic!("no namespace has the address of {pod:?}"))
    }
}

/// The folder of podwire's manifests: of the checkout that Cargo tests, or that the program is run from.
///
/// # Panics
/// There is no working directory.
#[must_use]
pub fn conf() -> PathBuf {
    match env::var_os("CARGO_MANIFEST_DIR") {
        Some(package) => Path::new(&package).join("../../conf"),
        None => env::current_dir().expect("there is a working directory").join("conf"),
    }
}

fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|it| it["type"] == "Ready" && it["status"] == "True")
}

/// Waits until `holds` says so.
///
/// # Panics
/// It does not in time.
pub fn await_that(what: &str, bound: Duration, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < bound, "not after {bound:?}: {what}");
        thread::sleep(Duration::from_millis(200));
    }
}
