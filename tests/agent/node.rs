//! A node with routed pods and a running policyd.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use attachment::CLOSED_TABLE;
use lab::sockets::udp;
use lab::{
    Call, Daemon, Node, Pod, Reply, Suite, addresses, all_rules, by_nftables, iptables_rules,
    nft_parts, nftables_rules, policyd, program, slowed,
};
use netlink::nftables::Client;
use serde_json::{Value, json};

/// What must happen happens within this time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The node.
pub(crate) struct PolicedNode {
    pub(crate) node: Node,
    pub(crate) pods: BTreeMap<&'static str, (Pod, Vec<IpAddr>)>,
    policyd: Option<Daemon>,
    is_bridged: bool,
    options: &'static [&'static str],
}

/// What is so of that backend alone.
pub(crate) const BY_IPTABLES: &[&str] = &["--backend", "iptables"];
/// The same of the other.
pub(crate) const BY_NFTABLES: &[&str] = &["--backend", "nftables"];

/// policyd over the folder `manifests` of the node.
pub(crate) fn command(node: &Node) -> Command {
    command_at(node, "127.0.0.1:9099")
}

/// The same, with its health checks at this address.
pub(crate) fn command_at(node: &Node, listen: &str) -> Command {
    let mut command = program(policyd());
    command
        .env_remove("KUBECONFIG")
        .arg("--run-dir")
        .arg(node.run_dir().join("podwire"))
        .args(["--node-name", "node-1", "--listen", listen, "--manifests"])
        .arg(node.home().join("manifests"))
        .args(["--pod-cidr", "10.1.0.0/24", "--pod-cidr", "fd00:1::/64"]);
    command
}

impl PolicedNode {
    /// A node with pods of the namespace `default`, and policyd running over their manifests.
    pub(crate) fn new(names: &[&'static str]) -> Self {
        Self::with(names, false, &[])
    }

    /// The same with the pods on one bridge, of a node that does not pass bridged frames to
    /// iptables.
    pub(crate) fn bridged(names: &[&'static str]) -> Self {
        Self::with(names, true, &[])
    }

    /// The same as [`Self::new`], with more options for policyd.
    pub(crate) fn told(names: &[&'static str], options: &'static [&'static str]) -> Self {
        Self::with(names, false, options)
    }

    fn with(names: &[&'static str], is_bridged: bool, options: &'static [&'static str]) -> Self {
        let node = Node::quick();
        // Without br_netfilter there are none.
        node.sh("for it in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $it ] || echo 0 > $it; done");
        fs::create_dir(node.home().join("manifests")).unwrap();
        let mut policed = Self { node, pods: BTreeMap::new(), policyd: None, is_bridged, options };
        for name in names {
            policed.add(name);
        }
        policed.start();
        policed
    }

    fn add(&mut self, name: &'static str) {
        let pod = self.node.pod(name);
        pod.sh("ip link set lo up");
        let conf = self.conf();
        let call = Call::new(if self.is_bridged { "bridge" } else { "ptp" }, "ADD")
            .container(name)
            .netns(&pod.path())
            .conf(&conf);
        let result = call.run(&self.node, &Suite::podwire()).ok();
        let addresses = addresses(&result);
        let ips: Vec<_> = addresses.iter().map(|it| json!({"ip": it})).collect();
        self.write(
            &format!("pod-{name}"),
            &json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": "Running", "podIPs": ips}}),
        );
        self.pods.insert(name, (pod, addresses));
    }

    /// The configuration of the pods' network.
    pub(crate) fn conf(&self) -> Value {
        let plugin = if self.is_bridged { "bridge" } else { "ptp" };
        json!({"cniVersion": "1.0.0", "name": "net", "type": plugin, "isGateway": true,
            "ipam": {"type": "host-local", "dataDir": self.node.data(),
                "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}})
    }

    /// Calls a plugin for a pod of the namespace `default`, whose name is its container's id too.
    pub(crate) fn call(&self, name: &str, command: &str, pod: &Pod, conf: &Value) -> Reply {
        self.call_for(["default", name], name, command, pod, conf)
    }

    /// Calls a plugin for a pod of this namespace and name, in a container of this id.
    pub(crate) fn call_for(
        &self,
        [namespace, name]: [&str; 2],
        id: &str,
        command: &str,
        pod: &Pod,
        conf: &Value,
    ) -> Reply {
        let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}");
        let call = Call::new(conf["type"].as_str().unwrap(), command).container(id);
        call.netns(&pod.path()).args(&args).conf(conf).run(&self.node, &Suite::podwire())
    }

    /// Starts policyd, or starts it again, and waits until what the folder says is in force.
    pub(crate) fn start(&mut self) {
        let mut daemon = self.begin();
        daemon.wait_until(PATIENCE, || self.is_ready());
        self.policyd = Some(daemon);
    }

    /// Ends policyd as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.policyd.take().expect("it runs").kill();
    }

    /// Stops policyd for as long as `meanwhile` takes: it is there, and does nothing.
    pub(crate) fn while_paused<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        let daemon = self.policyd.as_ref().expect("it runs");
        daemon.pause();
        let done = meanwhile();
        daemon.resume();
        done
    }

    /// The interfaces that are closed.
    pub(crate) fn closed(&self) -> BTreeSet<String> {
        let read = || {
            let mut client = Client::open().unwrap().expect("the kernel has nf_tables");
            client.closed(CLOSED_TABLE).read().unwrap()
        };
        self.node.enter(read)
    }

    /// Ends policyd as an update of its DaemonSet does, and starts the next one with these options.
    pub(crate) fn roll(&mut self, options: &'static [&'static str]) {
        self.policyd.take().expect("it runs").terminate(PATIENCE);
        self.options = options;
        self.start();
    }

    /// The rules of ours by family and chain, which the kernel lists in the order in which they were
    /// made; and the sets.
    pub(crate) fn state(&self) -> BTreeMap<String, Vec<String>> {
        if self.is_by_nftables() {
            return nft_parts(&self.node);
        }
        let mut state = BTreeMap::<_, Vec<_>>::new();
        for family in ["iptables", "ip6tables"] {
            let saved = self.node.sh(&format!("{family}-save | grep PODWIRE || true"));
            for line in saved.lines() {
                let chain = line.trim_start_matches("-A ").trim_start_matches(':');
                let chain = chain.split(' ').next().unwrap();
                let rule = if line.starts_with(':') { "" } else { line };
                state.entry(format!("{family} {chain}")).or_default().push(rule.to_owned());
            }
        }
        let sets = self.node.sh("ipset save | sed 's/ initval [^ ]*//' | sort");
        state.insert("sets".to_owned(), sets.lines().map(str::to_owned).collect());
        state
    }

    /// How many pods are isolated for what is sent to them, of those with addresses of both families.
    pub(crate) fn isolated(&self) -> usize {
        let rules = self.rules();
        let chains = rules.lines().filter(|it| it.starts_with(":PODWIRE-TO-"));
        if self.is_by_nftables() {
            // What bridges flood has a table of its own.
            chains.collect::<BTreeSet<_>>().len()
        } else {
            // There are tables for each family, written one after the other.
            chains.count() / 2
        }
    }

    /// Whether it is known by which interfaces the addresses of these pods come.
    pub(crate) fn knows(&self, names: &[&str]) -> bool {
        let bound = lab::bound(&self.node);
        let mut addresses = names.iter().flat_map(|it| self.addresses(it));
        addresses.all(|it| bound.contains(&it.to_string()))
    }

    /// Whether what the folder says is in force.
    pub(crate) fn is_ready(&self) -> bool {
        let ask = "curl -sf --max-time 2 http://127.0.0.1:9099/readyz";
        self.node.try_sh(ask).status.success()
    }

    /// Starts policyd and does not wait.
    pub(crate) fn begin(&self) -> Daemon {
        let mut command = command(&self.node);
        command.args(self.options);
        let log = self.node.home().join("policyd.log");
        Daemon::start("policyd", command, &self.node, log)
    }

    /// The same where the kernel is as one that has no br_netfilter, and starts it with that.
    pub(crate) fn restart_without_br_netfilter(&mut self) {
        self.kill();
        let hidden = r#"mount -t tmpfs none /proc/sys/net/bridge; exec "$@""#;
        let mut command = program("unshare");
        command.env_remove("KUBECONFIG").args(["--mount", "sh", "-euc", hidden, "sh"]);
        let policyd = self::command(&self.node);
        command.arg(policyd.get_program()).args(policyd.get_args()).args(self.options);
        let log = self.node.home().join("policyd.log");
        self.policyd = Some(Daemon::start("policyd", command, &self.node, log));
    }

    /// Puts a manifest into the folder, at once whole.
    pub(crate) fn write(&self, name: &str, object: &Value) {
        let folder = self.node.home().join("manifests");
        let draft = folder.join(format!(".{name}"));
        fs::write(&draft, object.to_string()).unwrap();
        fs::rename(draft, folder.join(format!("{name}.json"))).unwrap();
    }

    /// Takes a manifest out of the folder.
    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.node.home().join(format!("manifests/{name}.json"))).unwrap();
    }

    pub(crate) fn space(&self, name: &str) -> &Pod {
        &self.pods[name].0
    }

    pub(crate) fn addresses(&self, name: &str) -> &[IpAddr] {
        &self.pods[name].1
    }

    /// A socket of a pod that hears whatever comes to this port.
    pub(crate) fn listener(&self, name: &str, port: u16) -> UdpSocket {
        self.space(name).enter(|| udp(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)))
    }

    /// The link that leads to a pod.
    pub(crate) fn link_of(&self, name: &str) -> String {
        self.link_to(self.addresses(name)[0])
    }

    /// The link that leads to an address.
    pub(crate) fn link_to(&self, address: IpAddr) -> String {
        let route = self.node.sh(&format!("ip -j route get {address}"));
        let route: Value = serde_json::from_str(&route).unwrap();
        route[0]["dev"].as_str().unwrap().to_owned()
    }

    /// Waits until `is_so`.
    pub(crate) fn wait(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let (started, patience) = (Instant::now(), slowed(PATIENCE));
        while !is_so(self) {
            assert!(started.elapsed() < patience, "not within {patience:?}: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The value of a metric.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.node.sh("curl -sf --max-time 5 http://127.0.0.1:9099/metrics");
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        line.and_then(|it| it.split(' ').nth(1)?.parse().ok())
            .unwrap_or_else(|| panic!("{name} in {text}"))
    }

    /// Rules and sets of ours, without their counters.
    pub(crate) fn rules(&self) -> String {
        if self.is_by_nftables() { nftables_rules(&self.node) } else { iptables_rules(&self.node) }
    }

    fn is_by_nftables(&self) -> bool {
        self.options == BY_NFTABLES || (by_nftables() && self.options != BY_IPTABLES)
    }

    /// Ends policyd and removes what it made: nothing may be left.
    pub(crate) fn clean_up(mut self) {
        self.wipe();
    }

    /// The same, for one that starts again.
    pub(crate) fn wipe(&mut self) {
        drop(self.policyd.take());
        let mut command = program(policyd());
        command.env_remove("KUBECONFIG").arg("cleanup");
        let ended = self.node.run(command);
        assert!(ended.status.success(), "{}", ended.stderr);
        let left = all_rules(&self.node);
        assert!(!left.to_lowercase().contains("podwire"), "{left}");
    }
}
