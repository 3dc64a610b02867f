//! kube-proxy's configuration file, with flags beside it.

use std::fs;
use std::path::{Path, PathBuf};

use lab::cluster::{Cluster, Version};
use lab::{Daemon, program, proxyd};
use serde_json::json;

use crate::client::must_reach;
use crate::daemon::{Folder, PATIENCE, ask_at, asked, eventually, service, slice, wait_ready};
use crate::objects::HERE;
use crate::site::Site;
use crate::steady::Steady;

/// As kubeadm writes it.
const KUBEADM: &str = include_str!("../../proxyd/src/config_file/kubeadm.yaml");
const HEAD: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

fn write(home: &Path, text: &str) -> PathBuf {
    let file = home.join("config.conf");
    fs::write(&file, text).expect("a file");
    file
}

/// Starts proxyd with no other flags than these, and `--config`.
fn start(site: &Site, home: &Path, config: &Path, flags: &[&str]) -> Daemon {
    let mut command = program(proxyd());
    command.arg("--config").arg(config).args(flags);
    Daemon::start("proxyd", command, &site.node, home.join("proxyd.log"))
}

fn log(home: &Path) -> String {
    fs::read_to_string(home.join("proxyd.log")).expect("a log")
}

#[test]
fn what_the_file_says_is_in_force_and_flags_count_before_it() {
    let mut site = Site::new(true);
    site.pods(["a", "b"]);
    let folder = Folder::with(&site, &["a"]);
    let home = folder.home.path();
    let text = format!(
        "{HEAD}{}",
        r#"
hostnameOverride: here
bindAddress: 192.0.2.1
clusterCIDR: 10.9.0.0/16
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1
mode: iptables
iptables: {masqueradeAll: true, syncPeriod: 30s, localhostNodePorts: true}
conntrack: {tcpCloseWaitTimeout: 2h0m0s, tcpEstablishedTimeout: 0s, udpTimeout: 45s, tcpBeLiberal: true}
nodePortAdresses: [all]
"#
    );
    let config = write(home, &text);
    let manifests = folder.manifests();
    let flags =
        ["--manifests", manifests.to_str().expect("a path"), "--conntrack-udp-timeout", "50s"];
    let mut daemon = start(&site, home, &config, &flags);
    wait_ready(&site, &mut daemon);
    // All are hidden, pods as well; and node ports are the node's and, for itself, at its localhost.
    let gateway = site.address("gateway");
    assert_eq!(must_reach(site.pod("b"), site.at("service", 80)), ("a".to_owned(), gateway));
    assert_eq!(must_reach(site.world(), site.at("node", 30080)).0, "a");
    must_reach(&site.node, "127.0.0.1:30080".parse().expect("a place"));
    let metrics = "127.0.0.1:10249".parse().expect("a place");
    assert!(ask_at(&site.node, metrics, "/metrics").is_some_and(|it| it.contains("kubeproxy_")));
    assert!(asked(&site, "/healthz").is_some());
    // Where load balancers ask there are none then.
    assert!(asked(&site, "/metrics").is_some_and(|it| it.starts_with("HTTP/1.1 404 ")));
    let is = |name: &str, wanted: &str| {
        site.node.sysctl(&format!("net/netfilter/nf_conntrack_{name}")).as_deref() == Some(wanted)
    };
    eventually("parameters", || is("tcp_timeout_close_wait", "7200") && is("tcp_be_liberal", "1"));
    eventually("of a flag", || is("udp_timeout", "50"));
    let log = log(home);
    for (field, why) in [
        ("mode", "proxyd makes no use of it"),
        ("iptables.syncPeriod", "proxyd makes no use of it"),
        ("nodePortAdresses", "there is no such field"),
    ] {
        let told = format!("{}: {field} has no effect: {why}", config.display());
        assert_eq!(log.matches(&told).count(), 1, "{log}");
    }
    assert_eq!(log.matches("has no effect").count(), 3, "{log}");
    daemon.terminate(PATIENCE);
    // Who is a pod is what the flag says, not what the file does.
    let flags = [&flags[..], &["--cluster-cidr", "10.1.0.0/16", "--masquerade-all=false"]].concat();
    let mut daemon = start(&site, home, &config, &flags);
    wait_ready(&site, &mut daemon);
    let own = site.address("b");
    assert_eq!(must_reach(site.pod("b"), site.at("service", 80)), ("a".to_owned(), own));
    daemon.terminate(PATIENCE);
}

#[test]
fn a_file_that_is_wrong_is_told_by_its_place() {
    let site = Site::new(true);
    let home = tempfile::tempdir().expect("cannot make a temporary directory");
    let config = write(home.path(), &format!("{HEAD}conntrack: {{min: few}}\n"));
    let mut daemon = start(&site, home.path(), &config, &["--manifests", "/nowhere"]);
    assert!(!daemon.ends_by_itself(PATIENCE));
    let told = format!("{}: conntrack.min: \"few\" is not a number", config.display());
    let log = log(home.path());
    assert!(log.contains(&told), "{log}");
}

/// As kube-proxy does: a DaemonSet starts it again by what the file says now.
#[test]
fn who_is_told_otherwise_ends_and_services_stay() {
    let mut site = Site::new(true);
    site.pods(["a", "b"]);
    let folder = Folder::with(&site, &["a"]);
    let home = folder.home.path();
    let of_use =
        "clusterCIDR: 10.1.0.0/16\nbindAddress: 192.0.2.1\nhealthzBindAddress: 127.0.0.1:10256\n";
    let text = format!("{HEAD}{of_use}");
    let config = write(home, &text);
    let manifests = folder.manifests();
    let flags = ["--manifests", manifests.to_str().expect("a path"), "--hostname-override", HERE];
    let mut daemon = start(&site, home, &config, &flags);
    wait_ready(&site, &mut daemon);
    let tells = |what: &str| log(home).contains(what);
    // What is of no use, what is wrong, and what is not there.
    write(home, &format!("{text}mode: ipvs\n"));
    daemon.wait_until(PATIENCE, || tells("was changed, but nothing that is of use"));
    write(home, &format!("{text}conntrack: {{min: few}}\n"));
    daemon.wait_until(PATIENCE, || {
        tells("conntrack.min: \"few\" is not a number (0 to 2147483647); what it said")
    });
    fs::remove_file(&config).expect("a file");
    daemon.wait_until(PATIENCE, || tells("cannot be read: No such file or directory"));
    let own = site.address("b");
    assert_eq!(must_reach(site.pod("b"), site.at("service", 80)), ("a".to_owned(), own));
    write(home, &format!("{text}iptables: {{masqueradeAll: true}}\nmode: iptables\n"));
    assert!(!daemon.ends_by_itself(PATIENCE));
    assert!(tells("says something else than at the start: proxyd ends"), "{}", log(home));
    assert_eq!(must_reach(site.pod("b"), site.at("service", 80)), ("a".to_owned(), own));
    let mut daemon = start(&site, home, &config, &flags);
    wait_ready(&site, &mut daemon);
    let gateway = site.address("gateway");
    assert_eq!(must_reach(site.pod("b"), site.at("service", 80)), ("a".to_owned(), gateway));
    daemon.terminate(PATIENCE);
}

#[test]
fn the_file_that_kubeadm_writes_leads_to_the_cluster() {
    let mut site = Site::new(true);
    site.pods(["a", "b"]);
    let control = site.control_plane();
    let cluster = Cluster::start(&control, Version::New);
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": HERE}});
    cluster.apply(&node);
    let internal = json!([{"type": "InternalIP", "address": "198.51.100.77"}]);
    cluster.set_status(&node, &json!({"addresses": internal}));
    let mut object = service(&site);
    object["spec"] = json!({"type": "NodePort", "ports": object["spec"]["ports"]});
    let created = cluster.apply(&object);
    let address = created["spec"]["clusterIP"].as_str().expect("it has one");
    let to = format!("{address}:80").parse().expect("a place");
    cluster.apply(&slice(&site, &["a"]));
    let resources = ["nodes", "services", "discovery.k8s.io/endpointslices"];
    cluster.allow("agent", &["get", "list", "watch"], &resources);
    let kubeconfig = cluster.kubeconfig_at("agent", Site::CONTROL_PLANE);
    let home = tempfile::tempdir().expect("cannot make a temporary directory");
    let text = KUBEADM
        .replace("/var/lib/kube-proxy/kubeconfig.conf", kubeconfig.to_str().expect("a path"))
        .replace("10.244.0.0/16", "10.1.0.0/16");
    let config = write(home.path(), &text);
    let mut daemon = start(&site, home.path(), &config, &["--hostname-override", HERE]);
    wait_ready(&site, &mut daemon);
    assert_eq!(must_reach(site.pod("b"), to), ("a".to_owned(), site.address("b")));
    let log_text = log(home.path());
    assert!(!log_text.contains("has no effect"), "{log_text}");
    let tables = site.tables();
    assert!(tables.contains("198.51.100.77 . tcp . ") && tables.contains("ip saddr 10.1.0.0/16"));
    daemon.terminate(PATIENCE);
    // By the node's own ranges, once it has them, and at an address that the cluster does not know.
    let text = text
        .replace("detectLocalMode: \"\"", "detectLocalMode: NodeCIDR")
        .replace("bindAddress: 0.0.0.0", "bindAddress: 192.0.2.1");
    let config = write(home.path(), &text);
    let mut daemon = start(&site, home.path(), &config, &["--hostname-override", HERE]);
    let waits = "node here: it has no ranges of pods yet";
    daemon.wait_until(PATIENCE, || log(home.path()).contains(waits));
    assert!(asked(&site, "/readyz").is_some_and(|it| it.starts_with("HTTP/1.1 503 ")));
    cluster.patch(&node, &json!({"spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"]}}));
    wait_ready(&site, &mut daemon);
    assert_eq!(must_reach(site.pod("b"), to), ("a".to_owned(), site.address("b")));
    let tables = site.tables();
    assert!(tables.contains("192.0.2.1 . tcp . ") && tables.contains("ip saddr 10.1.0.0/24"));
    assert!(!tables.contains("198.51.100.77"), "{tables}");
    // A node that is made anew may get others: they count, and nobody notices.
    let steady = Steady::start(site.pod("b"), to);
    cluster.delete(&node);
    cluster.apply(&node);
    cluster.set_status(&node, &json!({"addresses": internal}));
    let of_pod = format!("{}/32", site.address("b"));
    cluster.patch(&node, &json!({"spec": {"podCIDR": of_pod, "podCIDRs": [of_pod]}}));
    let named = format!("ip saddr {}", site.address("b"));
    eventually("the other range", || site.tables().contains(&named));
    eventually("not the first", || !site.tables().contains("ip saddr 10.1.0.0/24"));
    for _ in 0..50 {
        must_reach(site.pod("a"), to);
    }
    steady.end();
    assert_eq!(must_reach(site.pod("b"), to), ("a".to_owned(), site.address("b")));
    assert!(asked(&site, "/readyz").is_some_and(|it| it.starts_with("HTTP/1.1 200 ")));
    daemon.terminate(PATIENCE);
}
