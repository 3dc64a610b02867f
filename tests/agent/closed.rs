//! Interfaces that the CNI plugin closes when policyd does not answer: policyd opens those whose rules
//! are in the kernel, whenever it is that they were closed, and no others.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::thread::sleep;
use std::time::Duration;

use attachment::CLOSED_TABLE;
use lab::probe::must_reach;
use lab::{Call, Pod, Started, Suite, addresses};
use netlink::nftables::Client;
use serde_json::{Value, json};

use crate::live::{attach, differences};
use crate::node::PolicedNode;

/// A pod whose runtime knows it by another uid, as that of a static one.
fn write_pod(node: &PolicedNode, name: &str) {
    node.write(
        &format!("pod-{name}"),
        &json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name},
            "annotations": {"kubernetes.io/config.mirror": "it"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}),
    );
}

fn policy(result: &Value, timeout: u64) -> Value {
    json!({"cniVersion": "1.0.0", "name": "net", "type": "podwire-policy", "timeout": timeout,
        "prevResult": result})
}

/// ADD of podwire-policy, with a uid: until policyd has heard of such a pod it makes no rules for it.
fn begin(node: &PolicedNode, name: &str, pod: &Pod, result: &Value, timeout: u64) -> Started {
    let args = format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name};K8S_POD_UID=uid-{name}"
    );
    let call = Call::new("podwire-policy", "ADD").container(name).netns(&pod.path()).args(&args);
    call.conf(&policy(result, timeout)).start(&node.node, &Suite::podwire())
}

fn add(node: &PolicedNode, name: &str, pod: &Pod, result: &Value) {
    let reply = begin(node, name, pod, result, 500).finish();
    assert_eq!(reply.ok(), *result);
    assert!(reply.stderr.contains("the gate keeps the pod's traffic back"), "{reply}");
}

/// A wired pod, and the result.
fn wire(node: &PolicedNode, name: &str) -> (Pod, Value) {
    let pod = node.node.pod(name);
    pod.sh("ip link set lo up");
    let result = node.call(name, "ADD", &pod, &node.conf()).ok();
    (pod, result)
}

fn must_reach_all(from: &Pod, to: &Pod, addresses: &[IpAddr]) {
    addresses.iter().for_each(|it| _ = must_reach(from, to, &it.to_string()));
}

fn close(node: &PolicedNode, interface: &str) {
    node.node.enter(|| {
        let mut client = Client::open().unwrap().expect("the kernel has nf_tables");
        client.closed(CLOSED_TABLE).close(interface).unwrap();
    });
}

/// The end of a pod's link, by its file.
fn interface(node: &PolicedNode, name: &str) -> String {
    let files = attachment::Files::new(&node.node.run_dir().join("podwire/attachments"));
    files.get(name).unwrap().unwrap().host_interface.unwrap().name
}

fn del(node: &PolicedNode, name: &str, pod: &Pod, result: &Value) {
    for conf in [policy(result, 20_000), node.conf()] {
        assert!(node.call(name, "DEL", pod, &conf).succeeded());
    }
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|it| (*it).to_owned()).collect()
}

fn is_open(node: &PolicedNode) -> bool {
    let tables = node.node.sh("nft list tables");
    node.closed().is_empty() && tables.lines().all(|it| it != "table netdev podwire")
}

/// It gives policyd up, policyd commits, and only then it closes the interface.
fn closed_too_late(is_bridged: bool) {
    let names = ["other"];
    let node = if is_bridged { PolicedNode::bridged(&names) } else { PolicedNode::new(&names) };
    write_pod(&node, "late");
    let (pod, result) = wire(&node, "late");
    let adding = node.while_paused(|| {
        let adding = begin(&node, "late", &pod, &result, 1000);
        sleep(Duration::from_millis(300));
        adding.pause();
        adding
    });
    node.wait("the rules", |it| it.rules().contains("default/late"));
    let four = addresses(&result)[0].to_string();
    node.wait("the gate", |it| lab::let_pass(&it.node).contains(&four));
    sleep(Duration::from_millis(1000));
    assert!(is_open(&node));
    adding.resume();
    let reply = adding.finish();
    assert_eq!(reply.ok(), result);
    assert!(reply.stderr.contains("the gate keeps the pod's traffic back"), "{reply}");
    node.wait("it to be opened", is_open);
    let log = fs::read_to_string(node.node.home().join("policyd.log")).unwrap();
    let told = format!(
        "opened what the CNI plugin had closed without policyd interfaces={}",
        interface(&node, "late")
    );
    assert!(log.contains(&told), "{log}");
    must_reach_all(&pod, node.space("other"), node.addresses("other"));
    must_reach_all(node.space("other"), &pod, &addresses(&result));
    del(&node, "late", &pod, &result);
    node.clean_up();
}

#[test]
fn a_routed_pod_is_opened_that_was_closed_after_the_commit() {
    closed_too_late(false);
}

#[test]
fn a_bridged_pod_is_opened_that_was_closed_after_the_commit() {
    closed_too_late(true);
}

/// It does not even write the attachment down before the plugin does.
#[test]
fn a_pod_is_opened_that_came_while_policyd_was_slow() {
    let node = PolicedNode::new(&["other"]);
    write_pod(&node, "late");
    let (pod, result) = wire(&node, "late");
    node.while_paused(|| {
        add(&node, "late", &pod, &result);
        assert_eq!(node.closed(), set(&[&interface(&node, "late")]));
        // While it is, it goes and comes again.
        assert!(node.call("late", "DEL", &pod, &policy(&result, 500)).succeeded());
        assert!(is_open(&node));
        add(&node, "late", &pod, &result);
        assert!(!is_open(&node));
    });
    node.wait("it to be opened", is_open);
    must_reach_all(&pod, node.space("other"), node.addresses("other"));
    must_reach_all(node.space("other"), &pod, &addresses(&result));
    del(&node, "late", &pod, &result);
    node.clean_up();
}

fn opened_when_policyd_comes_back_and_when_it_learns_of_the_pod(is_bridged: bool) {
    let names = ["other"];
    let mut node = if is_bridged { PolicedNode::bridged(&names) } else { PolicedNode::new(&names) };
    node.kill();
    let [(one, of_one), (two, of_two)] = ["one", "two"].map(|name| {
        let (pod, result) = wire(&node, name);
        add(&node, name, &pod, &result);
        (pod, result)
    });
    let [first, second] = ["one", "two"].map(|name| interface(&node, name));
    assert_eq!(node.closed(), set(&[&first, &second]));
    write_pod(&node, "one");
    node.start();
    // Of the other nobody has heard.
    node.wait("the first", |it| it.closed() == set(&[&second]));
    must_reach_all(&one, node.space("other"), node.addresses("other"));
    // Nor is a third known, about which policyd is asked now.
    let (three, of_three) = wire(&node, "three");
    add(&node, "three", &three, &of_three);
    let third = interface(&node, "three");
    assert_eq!(node.closed(), set(&[&second, &third]));
    sleep(Duration::from_secs(3));
    assert_eq!(node.closed(), set(&[&second, &third]));
    write_pod(&node, "two");
    node.wait("the second", |it| it.closed() == set(&[&third]));
    must_reach_all(&two, node.space("other"), node.addresses("other"));
    // It goes before anybody has heard of it.
    del(&node, "three", &three, &of_three);
    node.wait("all to be open", is_open);
    del(&node, "one", &one, &of_one);
    del(&node, "two", &two, &of_two);
    // What is closed goes with all else.
    node.kill();
    let (four, of_four) = wire(&node, "four");
    add(&node, "four", &four, &of_four);
    assert!(!is_open(&node));
    node.clean_up();
}

#[test]
fn a_routed_pod_is_opened_when_policyd_comes_back_and_when_it_learns_of_the_pod() {
    opened_when_policyd_comes_back_and_when_it_learns_of_the_pod(false);
}

#[test]
fn a_bridged_pod_is_opened_when_policyd_comes_back_and_when_it_learns_of_the_pod() {
    opened_when_policyd_comes_back_and_when_it_learns_of_the_pod(true);
}

#[test]
fn only_what_has_rules_is_opened_and_what_is_gone_forgotten() {
    let mut node = PolicedNode::new(&["other"]);
    let (a, _) = attach(&node, "a");
    let (_b, _) = attach(&node, "b");
    let [of_a, of_b] = ["a", "b"].map(|name| interface(&node, name));
    node.node.sh("ip link add x0 type bridge; ip link add gone0 type bridge");
    for name in [&of_a, "x0", "gone0"] {
        close(&node, name);
    }
    // With it the chain goes on some kernels, and stays on others.
    node.node.sh("ip link del gone0");
    node.wait("a", |it| it.closed() == set(&["x0"]));
    must_reach_all(&a, node.space("other"), node.addresses("other"));
    // A link that is somebody else's may be about to be a pod's.
    sleep(Duration::from_secs(3));
    assert_eq!(node.closed(), set(&["x0"]));
    node.node.sh("ip link del x0");
    node.wait("all to be open", is_open);

    node.kill();
    close(&node, &of_b);
    let told = differences(&node, "allowed");
    let problem = format!(
        "interface {of_b} is closed: the CNI plugin did so without policyd, and no packet passes until it has opened it"
    );
    assert_eq!(told, [("nf_tables: table netdev podwire".to_owned(), problem)]);
    node.start();
    node.wait("all to be open", is_open);
    assert_eq!(differences(&node, "allowed"), []);
    node.clean_up();
}

/// A pod whose packets would go from port to port without being judged is kept back, and policyd says why.
#[test]
fn a_bridged_pod_is_opened_only_where_the_frames_of_its_bridge_are_seen() {
    let node = PolicedNode::bridged(&[]);
    let are_seen = node.node.sysctl("net/bridge/bridge-nf-call-iptables").is_some();
    write_pod(&node, "one");
    let (pod, result) = wire(&node, "one");
    let reply = begin(&node, "one", &pod, &result, 20_000).finish();
    assert_eq!(reply.ok(), result);
    let readiness =
        |it: &PolicedNode| it.node.sh("curl -s --max-time 5 http://127.0.0.1:9099/readyz");
    if are_seen {
        assert_eq!((reply.stderr.as_str(), readiness(&node).as_str()), ("", "ok\n"));
        assert!(is_open(&node));
    } else {
        assert!(reply.stderr.contains("the gate keeps the pod's traffic back"), "{reply}");
        node.wait("the reason", |it| readiness(it).contains("br_netfilter"));
        sleep(Duration::from_secs(3));
        assert_eq!(node.closed(), set(&[&interface(&node, "one")]));
    }
    del(&node, "one", &pod, &result);
    node.wait("all to be well", |it| is_open(it) && it.is_ready());
    node.clean_up();
}
