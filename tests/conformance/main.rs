//! The conflists of `conf/` through cnitool, the reference implementation of a runtime.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lab::{Call, Daemon, Node, Pod, Suite, World, program, slowed, workspace};
use serde_json::{Value, json};

/// A conflist of `conf/`, read.
struct Conflist {
    file: PathBuf,
    document: Value,
}

/// A node whose runtime is cnitool.
struct Runtime {
    node: Node,
    podwire: Suite,
    peers: Suite,
    /// Where the conflist wants it.
    _policyd: Option<Daemon>,
}

impl Conflist {
    fn all() -> Vec<Self> {
        let entries = fs::read_dir(workspace().join("conf")).expect("conf/ is there");
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "conflist"));
        files.sort();
        assert!(files.len() >= 4, "conf/ has lost conflists: {files:?}");
        let read = |file: PathBuf| {
            let text = fs::read_to_string(&file).unwrap();
            let document = serde_json::from_str(&text);
            let document = document.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            Self { file, document }
        };
        files.into_iter().map(read).collect()
    }

    fn name(&self) -> &str {
        self.document["name"].as_str().expect("a conflist has a name")
    }

    fn plugin(&self) -> &Value {
        &self.document["plugins"][0]
    }

    fn bridge(&self) -> &str {
        self.plugin()["bridge"].as_str().unwrap_or("none")
    }

    /// Whether a pod of it starts only with policyd's rules.
    fn has_policy(&self) -> bool {
        self.document["plugins"].as_array().unwrap().iter().any(|it| it["type"] == "podwire-policy")
    }

    fn has_gc(&self) -> bool {
        self.document["cniVersion"] == "1.1.0"
    }

    /// The configuration that a runtime makes from the conflist for its first plugin.
    fn conf(&self, keys: &Value) -> Value {
        let mut conf = self.plugin().clone();
        for key in ["cniVersion", "name"] {
            conf[key] = self.document[key].clone();
        }
        for (key, value) in keys.as_object().expect("keys are an object") {
            conf[key] = value.clone();
        }
        conf
    }
}

impl Runtime {
    fn new(list: &Conflist) -> Self {
        let node = Node::new();
        let _policyd = list.has_policy().then(|| policyd(&node));
        Self { node, podwire: Suite::podwire(), peers: Suite::reference(), _policyd }
    }

    /// Runs cnitool; its cache is below `/var/lib`, which is the node's own.
    fn cnitool(&self, verb: &str, list: &Conflist, netns: &Path) -> lab::Finished {
        let mut command = program(self.peers.plugin("cnitool"));
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_PATH", self.podwire.dir())
            .env("NETCONFPATH", workspace().join("conf"))
            .args([verb, list.name()])
            .arg(netns);
        self.node.run(command)
    }

    fn must(&self, verb: &str, list: &Conflist, netns: &Path) -> String {
        let done = self.cnitool(verb, list, netns);
        let (name, out, err) = (list.name(), &done.stdout, &done.stderr);
        assert!(done.status.success(), "cnitool {verb} {name}: {out}\n{err}");
        done.stdout
    }

    /// The world after one pod has come and gone: with the bridge, which stays by design.
    fn baseline(&self, list: &Conflist, pods: &[&Pod]) -> World {
        let first = self.node.pod("first");
        self.must("add", list, &first.path());
        self.must("del", list, &first.path());
        self.world(list, pods)
    }

    /// Where host-local was last is no state of a pod, a bridge's link follows its ports, and parameters that
    /// tuning wrote go with the namespace.
    fn world(&self, list: &Conflist, pods: &[&Pod]) -> World {
        wait_for_policyd(&self.node);
        let mut world = World::of(&self.node, pods).without_bridge(list.bridge());
        let stays = ["last_reserved_ip", "/.podwire/", " sysctl net core/"];
        world.lines.retain(|line| !stays.iter().any(|part| line.contains(part)));
        world
    }
}

/// policyd looks at the links when one has gone, and lets go what it had of it.
fn wait_for_policyd(node: &Node) {
    let gone =
        "for it in $(nft list chains netdev | sed -n 's/.*chain \\(veth[^ /]*\\).*/\\1/p'); do
            ip link show $it > /dev/null 2>&1 || echo $it
        done";
    let started = Instant::now();
    while !node.sh(gone).is_empty() {
        assert!(
            started.elapsed() < slowed(Duration::from_secs(20)),
            "{}",
            node.sh("nft list ruleset")
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// policyd, without any policies, once it knows that.
fn policyd(node: &Node) -> Daemon {
    let manifests = node.home().join("manifests");
    fs::create_dir(&manifests).unwrap();
    let mut command = program(lab::policyd());
    command.env_remove("KUBECONFIG").arg("--manifests").arg(manifests);
    command.args(["--node-name", "node-1", "--listen", "127.0.0.1:9099"]);
    command.arg("--run-dir").arg(node.run_dir().join("podwire"));
    command.args(["--pod-cidr", "10.244.0.0/24", "--pod-cidr", "fd00:10:244::/64"]);
    let mut daemon = Daemon::start("policyd", command, node, node.home().join("policyd.log"));
    let ask = "curl -sf --max-time 2 http://127.0.0.1:9099/readyz";
    daemon.wait_until(Duration::from_secs(20), || node.try_sh(ask).status.success());
    daemon
}

#[test]
fn every_conflist_adds_checks_and_deletes() {
    for list in Conflist::all() {
        let runtime = Runtime::new(&list);
        let (one, two) = (runtime.node.pod("pod1"), runtime.node.pod("pod2"));
        let pods = [&one, &two];
        let before = runtime.baseline(&list, &pods);
        runtime.must("status", &list, &one.path());
        let results = pods.map(|pod| {
            let text = runtime.must("add", &list, &pod.path());
            serde_json::from_str::<Value>(&text).expect("a result")
        });
        must_be_results_of(&list, &results);
        for pod in pods {
            runtime.must("check", &list, &pod.path());
        }
        for pod in pods {
            runtime.must("del", &list, &pod.path());
            runtime.must("del", &list, &pod.path());
        }
        runtime.world(&list, &pods).must_be(&before, &format!("after del of {}", list.name()));
    }
}

/// Each has the container's interface, and as many addresses as the conflist has ranges, all distinct.
fn must_be_results_of(list: &Conflist, results: &[Value]) {
    let sets = list.plugin()["ipam"]["ranges"].as_array().map_or(0, Vec::len);
    let mut addresses: Vec<String> = Vec::new();
    for result in results {
        let ips = result["ips"].as_array().map_or(&[][..], Vec::as_slice);
        assert_eq!(ips.len(), sets, "{}: {result:#}", list.name());
        addresses.extend(ips.iter().map(|ip| ip["address"].to_string()));
        let mut interfaces = result["interfaces"].as_array().expect("interfaces").iter();
        assert!(interfaces.any(|i| i["name"] == "eth0" && i["sandbox"].is_string()), "{result:#}");
    }
    let count = addresses.len();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), count, "an address was given twice: {addresses:?}");
}

/// `cnitool gc` deletes what the runtime's cache knows, and then calls GC without a list of what is
/// valid, which podwire refuses: never is nothing valid.
#[test]
fn gc_of_cnitool_deletes_the_cached_and_is_refused_the_rest() {
    for list in Conflist::all() {
        let runtime = Runtime::new(&list);
        let pod = runtime.node.pod("pod1");
        let before = runtime.baseline(&list, &[&pod]);
        runtime.must("add", &list, &pod.path());
        let collected = runtime.cnitool("gc", &list, &pod.path());
        assert_eq!(collected.status.success(), !list.has_gc(), "{}", collected.stderr);
        if list.has_gc() {
            assert!(collected.stderr.contains("valid-attachments"), "{}", collected.stderr);
        }
        runtime.world(&list, &[&pod]).must_be(&before, &format!("after gc of {}", list.name()));
    }
}

/// As containerd calls it: with the list of what is valid.
#[test]
fn gc_removes_what_vanished_containers_left_and_nothing_else() {
    for list in Conflist::all().into_iter().filter(Conflist::has_gc) {
        let runtime = Runtime::new(&list);
        let (node, podwire) = (&runtime.node, &runtime.podwire);
        let plugin = list.plugin()["type"].as_str().expect("a plugin has a type");
        let (stays, goes) = (node.pod("stays"), node.pod("goes"));
        let add = |pod: &Pod| {
            let call = Call::new(plugin, "ADD").container(pod.name()).netns(&pod.path());
            let _ = call.conf(&list.conf(&json!({}))).run(node, podwire).ok();
        };
        let valid =
            json!({"cni.dev/valid-attachments": [{"containerID": "stays", "ifname": "eth0"}]});
        let collect = || {
            let gc = Call::new(plugin, "GC").conf(&list.conf(&valid));
            let _ = gc.run(node, podwire).ok();
        };
        add(&stays);
        // The lock of iptables stays when it has been taken once.
        collect();
        let before = runtime.world(&list, &[&stays]);
        add(&goes);
        drop(goes);
        wait_for_ports(node, 1);
        collect();
        runtime.world(&list, &[&stays]).must_be(&before, &format!("after GC of {}", list.name()));
    }
}

/// A namespace dies some time after its last descriptor, and its veths with it.
fn wait_for_ports(node: &Node, count: usize) {
    for _ in 0..1000 {
        let veths = node.sh("ip -o link show type veth");
        if veths.lines().count() == count {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("the veth of a vanished namespace stays");
}

#[test]
fn every_conflist_is_valid() {
    let node = Node::new();
    let podwire = Suite::podwire();
    for list in Conflist::all() {
        let mut command = program(podwire.plugin("podwire"));
        command.arg("validate").arg(&list.file);
        let done = node.run(command);
        assert!(done.status.success(), "{}: {}{}", list.name(), done.stdout, done.stderr);
    }
}
