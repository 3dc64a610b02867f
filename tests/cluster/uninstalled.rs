//! Taking podwire away: off one node, whose DaemonSet may have gone first, and off a cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::cluster::{Cluster, Version};
use lab::probe::{must_not_reach, must_reach};
use lab::{Daemon, Node, Suite, Switch, by_nftables, program, workspace};
use serde_json::{Value, json};

use crate::deployed::{
    PATIENCE, PODWIRE, collection, confined, container, deployed, is_ready, wire,
};
use crate::manifests::{documents, helm, read};

/// What a node had before podwire came.
const LIST: &str = r#"{"cniVersion": "1.0.0", "name": "before", "plugins": [{"type": "bridge"}]}"#;
const CHAINED: &str = "{\"plugins\": [{\"type\": \"flannel\"}, {\"type\": \"podwire-policy\"}]}\n";
const UNCHAINED: &str = "{\"plugins\": [{\"type\": \"flannel\"}]}\n";

/// All files of a folder with what they hold.
fn files(folder: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path());
    let name = |it: &Path| it.file_name().unwrap().to_string_lossy().into_owned();
    let text = |it: &Path| String::from_utf8_lossy(&fs::read(it).unwrap_or_default()).into_owned();
    let mut files: Vec<_> = entries.map(|it| (name(&it), text(&it))).collect();
    files.sort();
    files
}

fn of_podwire(node: &Node) -> String {
    node.sh("{ iptables-save; ip6tables-save; ipset save; ip route; ip -6 route
        nft list tables; } | grep -i -e podwire -e 'proto 112' || :")
}

pub(crate) fn pods_of(daemons: &Value) -> &Value {
    &daemons["spec"]["template"]["spec"]
}

pub(crate) fn cleanup() -> Value {
    read(&fs::read_to_string(workspace().join("conf/kubernetes/cleanup.yaml")).unwrap())
}

/// A node as another network left it, and its folders of plugins and lists.
fn used_before() -> (Node, PathBuf, PathBuf) {
    let node = Node::quick();
    let (bin, lists) = (node.home().join("cni-bin"), node.home().join("net.d"));
    fs::create_dir(&bin).unwrap();
    fs::create_dir(&lists).unwrap();
    for name in ["bridge", "host-local", "macvlan"] {
        fs::write(bin.join(name), format!("reference {name}")).unwrap();
    }
    fs::write(lists.join("10-podwire.conflist"), LIST).unwrap();
    fs::write(lists.join("20-flannel.conflist"), UNCHAINED).unwrap();
    (node, bin, lists)
}

/// policyd as its container, once it is ready.
fn start(node: &Node, config: &Value, daemons: &Value) -> Daemon {
    let log = node.home().join("policyd.log");
    let mut daemon = Daemon::start("policyd", container(node, config, daemons), node, log);
    daemon.wait_until(PATIENCE, || is_ready(node, 9099));
    daemon
}

fn run(node: &Node, container: &Value) {
    let ended = node.run(confined(node, container));
    assert!(ended.status.success(), "{}: {}{}", container["name"], ended.stdout, ended.stderr);
}

/// The gate outlives policyd on purpose; what is documented for that takes all of podwire away.
#[test]
fn a_node_whose_policyd_went_first_is_recovered_by_the_manifest() {
    let (node, bin, lists) = used_before();
    let _switch = Switch::of(&[&node]);
    let before = (files(&bin), files(&lists));
    fs::write(lists.join("20-flannel.conflist"), CHAINED).unwrap();
    let (cluster, config, daemons) = deployed(&node, PODWIRE);
    let (first, _) = wire(&node, &cluster, "client");
    let (second, addresses) = wire(&node, &cluster, "server");
    ready_for_policyd(&node, &cluster);
    run(&node, &pods_of(&daemons)["initContainers"][1]);
    assert_eq!(fs::read_link(bin.join("bridge")).unwrap(), Path::new("podwire"));
    let mut daemon = start(&node, &config, &daemons);
    let list = || fs::read_to_string(lists.join("10-podwire.conflist")).unwrap();
    assert!(list().contains("podwire-policy"));
    must_reach(&first, &second, &addresses[0].to_string());
    // It goes without a word, and what it left is closed for whom it did not know.
    daemon.kill();
    node.sh(if by_nftables() {
        "nft flush map inet podwire to-4; nft flush map inet podwire from-4"
    } else {
        "ipset flush podwire-4-programmed"
    });
    must_not_reach(&first, &second, &addresses[0].to_string());
    let spec = cleanup();
    let spec = pods_of(&spec);
    // Once more does no harm.
    for _ in 0..2 {
        spec["initContainers"].as_array().unwrap().iter().for_each(|it| run(&node, it));
        assert_eq!(of_podwire(&node), "");
        assert_eq!((files(&bin), files(&lists)), before);
        assert!(files(&node.home().join("run/podwire")).is_empty());
        for address in &addresses {
            must_reach(&first, &second, &address.to_string());
        }
    }
    // The last one says so, and stays until it is told to end.
    let log = node.home().join("clean.log");
    let command = confined(&node, &spec["containers"][0]);
    let mut stays = Daemon::start("policyd", command, &node, log.clone());
    stays.wait_until(PATIENCE, || fs::read_to_string(&log).unwrap().contains("nothing of policyd"));
    stays.terminate(PATIENCE);
}

/// As `helm uninstall` does where the chart was given other folders, and another name.
#[test]
fn a_node_with_other_folders_is_cleaned_by_the_chart() {
    let (node, bin, lists) = used_before();
    let _switch = Switch::of(&[&node]);
    fs::write(lists.join("05-mine.conflist"), LIST).unwrap();
    let before = (files(&bin), files(&lists));
    let options =
        "cni.confDir=/etc/other/net.d/,cni.confName=05-mine.conflist,cni.binDir=/opt/other/bin";
    let text = helm("network", &["--set", options]);
    let objects: Vec<Value> = documents(&text).iter().map(|it| read(it)).collect();
    let named = |kind: &str, name: &str| {
        objects.iter().find(|it| it["kind"] == kind && it["metadata"]["name"] == name).unwrap()
    };
    let (cluster, _, _) = deployed(&node, PODWIRE);
    ready_for_policyd(&node, &cluster);
    let daemons = named("DaemonSet", "policyd");
    run(&node, &pods_of(daemons)["initContainers"][1]);
    let mut daemon = start(&node, named("ConfigMap", "policyd"), daemons);
    let list = || fs::read_to_string(lists.join("05-mine.conflist")).unwrap();
    assert!(list().contains("podwire-policy"));
    daemon.kill();
    let cleanup = pods_of(named("DaemonSet", "podwire-cleanup"));
    cleanup["initContainers"].as_array().unwrap().iter().for_each(|it| run(&node, it));
    assert_eq!(of_podwire(&node), "");
    assert_eq!((files(&bin), files(&lists)), before);
}

#[test]
fn nothing_is_removed_before_policyd_has_ended() {
    let (node, _, lists) = used_before();
    let _switch = Switch::of(&[&node]);
    let (cluster, config, daemons) = deployed(&node, PODWIRE);
    ready_for_policyd(&node, &cluster);
    let mut daemon = start(&node, &config, &daemons);
    let list = || fs::read_to_string(lists.join("10-podwire.conflist")).unwrap();
    let command = confined(&node, &pods_of(&cleanup())["initContainers"][0]);
    let log = node.home().join("cleanup.log");
    let mut waiting = Daemon::start("policyd", command, &node, log.clone());
    waiting
        .wait_until(PATIENCE, || fs::read_to_string(&log).unwrap().contains("waiting for its end"));
    assert!(list().contains("podwire-policy") && is_ready(&node, 9099));
    daemon.terminate(PATIENCE);
    assert!(waiting.ends_by_itself(PATIENCE));
    assert_eq!(list(), LIST);
    assert_eq!(of_podwire(&node), "");
}

/// What the cluster and the init containers do ahead of policyd.
fn ready_for_policyd(node: &Node, cluster: &Cluster<'_>) {
    for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        node.set_sysctl(key, "1");
    }
    let own =
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": crate::objects::NODE}});
    let addresses = json!([{"type": "InternalIP", "address": "192.0.2.1"},
        {"type": "InternalIP", "address": "2001:db8::1"}]);
    cluster.set_status(&own, &json!({"addresses": addresses}));
    cluster.grant("kube-system", "policyd", &node.home().join("account"));
}

/// What Helm has run before it deletes the rest: with the rights that the chart gives it.
#[test]
fn uninstall_waits_until_all_nodes_are_clean() {
    let node = Node::quick();
    let cluster = Cluster::start(&node, Version::New);
    let mut job = Value::Null;
    for document in documents(&helm("network", &[])) {
        let object = read(&document);
        if object["kind"] == "Job" {
            job = object;
        } else {
            cluster.create_yaml(collection(&document), &document);
        }
    }
    let daemons = "/apis/apps/v1/namespaces/kube-system/daemonsets";
    let there = |name: &str| cluster.try_request("GET", &format!("{daemons}/{name}"), &Value::Null);
    assert!(there("policyd").is_ok());
    cluster.grant("kube-system", "podwire-uninstall", &node.home().join("account"));
    let log = node.home().join("uninstall.log");
    let command = container_of(&node, &job);
    let mut daemon = Daemon::start("policyd", command, &node, log.clone());
    let said = || fs::read_to_string(&log).unwrap();
    daemon.wait_until(PATIENCE, || there("policyd").is_err());
    daemon.wait_until(PATIENCE, || said().contains("no node is known to be clean yet"));
    let status = |ready: u32| {
        let status = json!({"observedGeneration": 1, "desiredNumberScheduled": 3, "numberReady": ready,
            "currentNumberScheduled": 3, "numberMisscheduled": 0});
        let path = format!("{daemons}/podwire-cleanup/status");
        cluster.request("PATCH", &path, &json!({"status": status}));
    };
    status(2);
    daemon.wait_until(PATIENCE, || said().contains("2 of 3 nodes are clean"));
    status(3);
    assert!(daemon.ends_by_itself(PATIENCE), "{}", said());
    assert!(
        said().contains("all nodes are clean (3)") && !said().contains("forbidden"),
        "{}",
        said()
    );
    // A second time, where all is gone but the DaemonSet that cleans.
    let ended = node.run(container_of(&node, &job));
    assert!(ended.status.success() && ended.stderr.contains("is not there"), "{ended:?}");
}

/// The job's program, as its pod has it.
fn container_of(node: &Node, job: &Value) -> Command {
    let spec = pods_of(job);
    assert_eq!((&spec["hostNetwork"], &spec["restartPolicy"]), (&json!(true), &json!("OnFailure")));
    confined(node, &spec["containers"][0])
}

/// The plugins that a node has by the list alone are those of podwire's that it asks for.
#[test]
fn beside_another_plugin_only_the_policy_is_installed() {
    let node = Node::quick();
    let bin = node.home().join("cni-bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("bridge"), "reference bridge").unwrap();
    let daemons = documents(&helm("policy-only", &["--no-hooks"]));
    let daemons = daemons.iter().map(|it| read(it)).find(|it| it["kind"] == "DaemonSet").unwrap();
    let before = files(&bin);
    let ended = node.run(confined(&node, &pods_of(&daemons)["initContainers"][0]));
    assert!(ended.status.success(), "{}{}", ended.stdout, ended.stderr);
    let names = files(&bin).into_iter().map(|it| it.0).collect::<Vec<_>>();
    assert_eq!(names, ["bridge", "podwire", "podwire-policy"]);
    assert_eq!(fs::read_to_string(bin.join("bridge")).unwrap(), before[0].1);
    let version = Suite::at("installed", &bin).plugin("podwire");
    let mut command = program(version);
    command.arg("--version");
    assert!(node.run(command).status.success());
}
