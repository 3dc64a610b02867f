//! The daemon: over a folder and over an API server, killed, and when others change what is its.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use lab::cluster::{Cluster, Version};
use lab::{Daemon, Space, program, proxyd, slowed};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Outcome, connect, must_ask, must_reach, udp};
use crate::objects::HERE;
use crate::server::PORT;
use crate::site::Site;

/// Whatever is to be so is within this time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Where it is asked for its health.
pub(crate) const HEALTH: &str = "127.0.0.1:10256";

/// Starts it on the node; it ends with this.
pub(crate) fn start(site: &Site, log: &Path, arguments: &[&str]) -> Daemon {
    start_at(site, log, HEALTH, arguments)
}

/// The same, which is asked for its health there.
pub(crate) fn start_at(site: &Site, log: &Path, health: &str, arguments: &[&str]) -> Daemon {
    let mut command = program(proxyd());
    let cidr = if site.is_ipv4 { "10.1.0.0/16" } else { "fd00:1::/64" };
    command.args(["--node-name", HERE, "--cluster-cidr", cidr, "--listen", health]);
    command.args(arguments);
    Daemon::start("proxyd", command, &site.node, log.join("proxyd.log"))
}

/// What the daemon of a node answers to this path.
pub(crate) fn asked(site: &Site, path: &str) -> Option<String> {
    ask_at(&site.node, HEALTH.parse().expect("an address"), path)
}

/// What is answered there, by HTTP; `None`: nothing.
pub(crate) fn ask_at(from: &Space, at: SocketAddr, path: &str) -> Option<String> {
    from.enter(|| {
        let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(5)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    })
}

pub(crate) fn wait_ready(site: &Site, daemon: &mut Daemon) {
    daemon.wait_until(PATIENCE, || {
        asked(site, "/readyz").is_some_and(|it| it.starts_with("HTTP/1.1 200 "))
    });
}

/// What a metric shows.
pub(crate) fn metric(site: &Site, name: &str) -> f64 {
    shown(site, name).unwrap_or_else(|| panic!("no {name}"))
}

/// The same; `None`: nothing.
pub(crate) fn shown(site: &Site, name: &str) -> Option<f64> {
    let text = asked(site, "/metrics").expect("it answers");
    let line = text.lines().find_map(|it| it.strip_prefix(name)?.strip_prefix(' '));
    line.map(|it| it.parse().unwrap_or_else(|error| panic!("{name}: {it:?}: {error}")))
}

pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < slowed(PATIENCE), "{what}");
        sleep(Duration::from_millis(20));
    }
}

pub(crate) fn service(site: &Site) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "default"},
        "spec": {"clusterIP": site.address("service"), "ports": [
            {"name": "t", "port": 80, "nodePort": 30080},
            {"name": "u", "port": 80, "protocol": "UDP"},
        ]},
    })
}

pub(crate) fn slice(site: &Site, endpoints: &[&str]) -> Value {
    let endpoint = |it: &&str| json!({"addresses": [site.address(it)], "nodeName": HERE, "conditions": {"ready": true}});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "s-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": if site.is_ipv4 { "IPv4" } else { "IPv6" },
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [
            {"name": "t", "port": PORT, "protocol": "TCP"}, {"name": "u", "port": PORT, "protocol": "UDP"},
        ],
    })
}

/// A folder that the daemon reads.
pub(crate) struct Folder {
    pub(crate) home: TempDir,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().expect("cannot make a temporary directory");
        fs::create_dir(home.path().join("manifests")).expect("a folder");
        Self { home }
    }

    /// One with the Service, which has these endpoints.
    pub(crate) fn with(site: &Site, endpoints: &[&str]) -> Self {
        let folder = Self::new();
        folder.write("service.json", &service(site));
        folder.write("slice.json", &slice(site, endpoints));
        folder
    }

    pub(crate) fn manifests(&self) -> PathBuf {
        self.home.path().join("manifests")
    }

    pub(crate) fn write(&self, name: &str, object: &Value) {
        fs::write(self.manifests().join(name), object.to_string()).expect("a file");
    }

    pub(crate) fn start(&self, site: &Site) -> Daemon {
        self.start_with(site, &[])
    }

    pub(crate) fn start_with(&self, site: &Site, others: &[&str]) -> Daemon {
        let arguments = self.arguments(site);
        let mut arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        arguments.extend(others);
        start(site, self.home.path(), &arguments)
    }

    /// By which the daemon of a node finds it.
    pub(crate) fn arguments(&self, site: &Site) -> [String; 2] {
        let manifests = format!("--manifests={}", self.manifests().display());
        [manifests, format!("--node-address={}", site.address("node"))]
    }
}

/// A node with the pods "a", "b" and "c", and a daemon that serves such endpoints of a folder.
pub(crate) fn served(is_ipv4: bool, endpoints: &[&str]) -> (Site, Folder, Daemon) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b", "c"]);
    let folder = Folder::with(&site, endpoints);
    let mut daemon = folder.start(&site);
    wait_ready(&site, &mut daemon);
    (site, folder, daemon)
}

#[test]
fn a_folder_is_followed() {
    let (site, folder, mut daemon) = served(true, &["a"]);
    assert_eq!(must_reach(site.pod("b"), site.at("service", 80)).0, "a");
    assert_eq!(must_reach(site.world(), site.at("node", 30080)).0, "a");
    let client = udp(site.pod("b"), site.at("service", 80));
    assert_eq!(must_ask(&client), "a");
    folder.write("slice.json", &slice(&site, &["b"]));
    eventually("the other endpoint", || must_reach(&site.node, site.at("service", 80)).0 == "b");
    // A flow of datagrams follows, though its client goes on.
    eventually("the flow", || must_ask(&client) == "b");
    // What is wrong is told, and what was right counts.
    let mut wrong = slice(&site, &["a"]);
    wrong["endpoints"][0]["addresses"][0] = json!("here");
    folder.write("slice.json", &wrong);
    eventually("the defect", || metric(&site, "podwire_proxy_defective_manifests") == 1.0);
    assert_eq!(must_reach(&site.node, site.at("service", 80)).0, "b");
    folder.write("slice.json", &slice(&site, &[]));
    eventually("nobody", || connect(site.pod("a"), site.at("service", 80)) == Outcome::Refused);
    fs::remove_file(folder.manifests().join("service.json")).expect("a file");
    eventually("no service", || !site.tables().contains("10.96.0.1 . "));
    daemon.terminate(PATIENCE);
    assert!(site.tables().contains("podwire-proxy"));
    site.node.sh(&format!("{} cleanup", proxyd().display()));
    assert_eq!(site.tables(), "");
}

#[test]
fn what_cannot_be_read_at_the_start_is_told_and_the_rest_is_served() {
    let mut site = Site::new(true);
    site.pods(["a", "b"]);
    let folder = Folder::new();
    let mut wrong = service(&site);
    wrong["metadata"]["name"] = json!("wrong");
    wrong["spec"]["clusterIP"] = json!("010.096.000.103");
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [wrong, service(&site)]});
    folder.write("services.json", &list);
    folder.write("slice.json", &slice(&site, &["a"]));
    fs::write(folder.manifests().join("cut.json"), "{").expect("a file");
    let mut daemon = folder.start(&site);
    wait_ready(&site, &mut daemon);
    assert_eq!(must_reach(site.pod("b"), site.at("service", 80)).0, "a");
    assert_eq!(metric(&site, "podwire_proxy_defective_manifests"), 2.0);
    let log = fs::read_to_string(folder.home.path().join("proxyd.log")).expect("a log");
    let path = folder.manifests().join("services.json").display().to_string();
    let told = format!(
        "{path}: document 1: items[0].spec.clusterIPs[0]: \"010.096.000.103\" is not an address; what else this file says is in force"
    );
    assert!(log.contains(&told) && log.contains("cut.json: document 1: "), "{log}");
}

#[test]
fn who_is_killed_leaves_services_as_they_are_and_finds_them_so() {
    let (site, folder, mut daemon) = served(false, &["a", "b"]);
    must_reach(site.pod("b"), site.at("service", 80));
    assert!(metric(&site, "podwire_proxy_elements_added_total") > 0.0);
    let before = site.tables();
    daemon.kill();
    must_reach(site.pod("b"), site.at("service", 80));
    // An endpoint goes meanwhile.
    folder.write("slice.json", &slice(&site, &["a"]));
    let mut daemon = folder.start(&site);
    wait_ready(&site, &mut daemon);
    for _ in 0..20 {
        assert_eq!(must_reach(site.pod("b"), site.at("service", 80)).0, "a");
    }
    folder.write("slice.json", &slice(&site, &["a", "b"]));
    eventually("both", || must_reach(&site.node, site.at("service", 80)).0 == "b");
    daemon.kill();
    let mut daemon = folder.start(&site);
    wait_ready(&site, &mut daemon);
    assert_eq!(metric(&site, "podwire_proxy_elements_added_total"), 0.0);
    assert_eq!(metric(&site, "podwire_proxy_elements_deleted_total"), 0.0);
    // Chains that nobody needs any more go some time later.
    let lines = |tables: &str| tables.lines().count();
    eventually("as before", || lines(&site.tables()) == lines(&before));
}

/// As a node's own service does, or whoever loads a file of rules.
#[test]
fn tables_that_nft_has_restored_are_as_good_as_its_own() {
    let (site, folder, mut daemon) = served(true, &["a"]);
    must_reach(site.pod("b"), site.at("service", 80));
    let content = site.content();
    let file = folder.home.path().join("ruleset");
    let restore = format!("nft list ruleset > {0}; nft flush ruleset; nft -f {0}", file.display());
    daemon.kill();
    site.node.sh(&restore);
    must_reach(site.pod("b"), site.at("service", 80));
    let mut daemon = folder.start(&site);
    wait_ready(&site, &mut daemon);
    assert_eq!(metric(&site, "podwire_proxy_elements_added_total"), 0.0);
    assert_eq!(metric(&site, "podwire_proxy_elements_deleted_total"), 0.0);
    assert_eq!(site.content(), content);
    // And what comes to it.
    let mut other = service(&site);
    other["metadata"]["name"] = json!("other");
    other["spec"]["clusterIP"] = json!("10.97.0.1");
    other["spec"]["ports"] = json!([{"name": "t", "port": 81}]);
    other["spec"]["sessionAffinity"] = json!("ClientIP");
    folder.write("other.json", &other);
    folder.write("slice.json", &slice(&site, &["a", "b"]));
    eventually("both", || must_reach(&site.node, site.at("service", 80)).0 == "b");
    eventually("the other", || site.tables().contains("10.97.0.1"));
}

#[test]
fn what_others_change_is_put_right() {
    let (site, _folder, _daemon) = served(true, &["a"]);
    site.node.sh("nft add table ip others; nft add chain ip others c");
    for spoilt in ["flush map ip podwire-proxy services", "delete table ip podwire-proxy"] {
        site.node.sh(&format!("nft {spoilt}"));
        assert_eq!(must_reach(site.pod("b"), site.at("service", 80)).0, "a", "{spoilt}");
    }
    assert!(site.tables().contains("table ip others"));
}

/// While the kernel is compared and written it tells proxyd nothing of others.
#[test]
fn what_others_change_meanwhile_is_put_right() {
    let mut site = Site::new(true);
    site.pods(["a", "b"]);
    let folder = Folder::with(&site, &["a"]);
    for number in 0..3000 {
        let mut other = service(&site);
        other["metadata"]["name"] = json!(format!("other-{number}"));
        other["spec"]["clusterIP"] = json!(format!("10.97.{}.{}", number / 250, number % 250));
        other["spec"]["ports"] = json!([{"name": "t", "port": 80}]);
        folder.write(&format!("other-{number}.json"), &other);
    }
    let mut daemon = folder.start(&site);
    let mut flushed = 0;
    daemon.wait_until(PATIENCE, || {
        let flush = site.node.try_sh("nft flush map ip podwire-proxy services");
        flushed += usize::from(flush.status.success());
        asked(&site, "/readyz").is_some_and(|it| it.starts_with("HTTP/1.1 200 "))
    });
    assert!(flushed > 0, "nobody came between");
    let elements = || site.tables().matches("10.97.").count();
    eventually("all are there again", || elements() >= 3000);
    assert_eq!(must_reach(site.pod("b"), site.at("service", 80)).0, "a");
}

#[test]
fn an_api_server_is_followed() {
    let mut site = Site::new(true);
    site.pods(["a", "b"]);
    let control = site.control_plane();
    let cluster = Cluster::start(&control, Version::New);
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": HERE}});
    cluster.apply(&node);
    let addresses = json!({"addresses": [
        {"type": "InternalIP", "address": site.address("node")}, {"type": "Hostname", "address": "x"},
    ]});
    cluster.set_status(&node, &addresses);
    let mut object = service(&site);
    object["spec"] = json!({"type": "NodePort", "ports": object["spec"]["ports"]});
    let created = cluster.apply(&object);
    let address = created["spec"]["clusterIP"].as_str().expect("it has one").to_owned();
    let to = SocketAddr::new(address.parse().expect("an address"), 80);
    cluster.apply(&slice(&site, &["a"]));
    cluster.allow(
        "agent",
        &["get", "list", "watch"],
        &["nodes", "services", "discovery.k8s.io/endpointslices"],
    );
    let home = tempfile::tempdir().expect("cannot make a temporary directory");
    let kubeconfig = cluster.kubeconfig_at("agent", Site::CONTROL_PLANE);
    let kubeconfig = kubeconfig.to_str().expect("a path");
    let mut daemon = start(&site, home.path(), &["--kubeconfig", kubeconfig]);
    wait_ready(&site, &mut daemon);
    assert_eq!(must_reach(site.pod("b"), to).0, "a");
    assert_eq!(must_reach(site.world(), site.at("node", 30080)).0, "a");
    // So is who asks what becomes of connections.
    let explained = |node: &str| {
        let mut command = program(proxyd());
        command.args(["--node-name", node, "--cluster-cidr", "10.1.0.0/16"]);
        command.args(["explain", "--live", "--kubeconfig", kubeconfig, &to.to_string()]);
        let ended = site.node.run(command);
        (ended.status.code(), ended.stdout + &ended.stderr)
    };
    let (code, told) = explained(HERE);
    assert!(code == Some(0) && told.contains("holds exactly this"), "{told}");
    let (code, told) = explained("nobody");
    assert!(code == Some(1) && told.starts_with("node nobody: there is no such node"), "{told}");
    cluster.apply(&slice(&site, &["b"]));
    eventually("the other endpoint", || must_reach(&site.node, to).0 == "b");
    // A node that is on its end is to get nothing new, and serves what it has.
    let is_eligible = |wanted: bool| {
        let answer = asked(&site, "/healthz").expect("it answers");
        let code = if wanted { 200 } else { 503 };
        answer.starts_with(&format!("HTTP/1.1 {code} "))
            && answer.contains(&format!("\"nodeEligible\":{wanted}"))
    };
    assert!(is_eligible(true));
    let taint = json!({"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"});
    let mut leaving = node.clone();
    leaving["spec"] = json!({"taints": [taint]});
    cluster.apply(&leaving);
    eventually("a node on its end", || is_eligible(false));
    assert!(asked(&site, "/livez").is_some_and(|it| it.starts_with("HTTP/1.1 200 ")));
    leaving["spec"] = json!({"taints": []});
    cluster.apply(&leaving);
    eventually("a node that stays", || is_eligible(true));
    // One that is registered anew is told its addresses later.
    cluster.delete(&node);
    eventually("no node", || is_eligible(false));
    cluster.apply(&node);
    eventually("a new node", || is_eligible(true));
    for _ in 0..50 {
        let outcome = connect(site.world(), site.at("node", 30080));
        assert!(matches!(&outcome, Outcome::Answer(name, _) if name == "b"), "{outcome:?}");
        sleep(Duration::from_millis(10));
    }
    let others = json!({"addresses": [{"type": "InternalIP", "address": "192.0.2.77"}]});
    cluster.set_status(&node, &others);
    eventually("others", || site.tables().contains("192.0.2.77 . tcp . 30080"));
    assert!(!site.tables().contains("192.0.2.1 . tcp . 30080"));
    // The API server's own service has no slice of ours, and is refused, not lost.
    cluster.delete(&object);
    eventually("no service", || !site.tables().contains(&format!("{address} . ")));
    daemon.terminate(PATIENCE);
}
