//! The nodes' own network in a real cluster: three nodes, policyd on each, and pods that a runtime wires
//! by the list that it wrote.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use lab::cluster::{Cluster, Version};
use lab::probe::{must_not_reach, must_reach};
use lab::{
    Daemon, Node, Pod, Suite, Switch, addresses, by_nftables, peer, policy_rules, policyd, program,
};
use serde_json::{Value, json};

use crate::deployed::{PATIENCE, PODWIRE, container, deployed, host_paths, is_ready, texts};
use crate::objects::{NODE, cluster, pod};

fn folder(node: &Node) -> PathBuf {
    node.home().join("net.d")
}

fn list(node: &Node) -> PathBuf {
    folder(node).join("10-podwire.conflist")
}

fn start(node: &Node, cluster: &Cluster<'_>, name: &str) -> Daemon {
    let file = cluster.kubeconfig_at("agent", [192, 0, 2, 1].into());
    let mut command = program(policyd());
    command.arg("--kubeconfig").arg(file).args(["--node-name", name, "--deny", "reject"]);
    command.arg("--run-dir").arg(node.run_dir().join("podwire"));
    command.arg("--node-network").arg("--cni-conf-dir").arg(folder(node));
    Daemon::start("policyd", command, node, node.home().join("policyd.log"))
}

fn answer(node: &Node) -> String {
    node.sh("curl -s --max-time 5 http://127.0.0.1:9099/readyz || true")
}

fn metric(node: &Node, name: &str) -> u64 {
    let text = node.sh("curl -sf --max-time 5 http://127.0.0.1:9099/metrics");
    let name = format!("policyd_node_network_{name}");
    let line = text.lines().find(|line| line.split(' ').next() == Some(&name));
    line.and_then(|it| it.split(' ').nth(1)?.parse().ok())
        .unwrap_or_else(|| panic!("{name}: {text}"))
}

/// A node as its kubelet and the controller manager make it.
fn join(cluster: &Cluster<'_>, number: usize) -> Value {
    let object = json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": format!("node-{number}")},
        "spec": {"podCIDRs": [format!("10.244.{number}.0/24"), format!("fd00:{number}::/64")]}});
    cluster.apply(&object);
    cluster.set_status(
        &object,
        &json!({"addresses": [
        {"type": "InternalIP", "address": format!("192.0.2.{number}")},
        {"type": "InternalIP", "address": format!("2001:db8::{number}")}]}),
    );
    object
}

/// A pod as a runtime wires it, by the whole list.
fn wire(node: &Node, cluster: &Cluster<'_>, number: usize, name: &str) -> (Pod, Vec<IpAddr>) {
    let mut object = pod(name);
    object["spec"]["nodeName"] = json!(format!("node-{number}"));
    cluster.apply(&object);
    let space = node.pod(name);
    space.sh("ip link set lo up");
    let result = cnitool(node, "add", name, &space);
    let result: Value = serde_json::from_str(&result).unwrap();
    // The runtime took the newer of the versions.
    assert_eq!(result["cniVersion"], "1.1.0");
    let addresses = addresses(&result);
    let ips: Vec<_> = addresses.iter().map(|it| json!({"ip": it})).collect();
    let status = json!({"phase": "Running", "podIP": addresses[0], "podIPs": ips});
    cluster.set_status(&object, &status);
    (space, addresses)
}

fn cnitool(node: &Node, verb: &str, name: &str, space: &Pod) -> String {
    let mut command = program(peer("cnitool"));
    command.arg(verb).arg("podwire").arg(space.path());
    command.env("CNI_PATH", Suite::podwire().dir()).env("NETCONFPATH", folder(node));
    let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name}");
    let ended = node.run({
        command.env("CNI_ARGS", args);
        command
    });
    assert!(ended.status.success(), "{verb} {name}: {} {}", ended.stdout, ended.stderr);
    ended.stdout
}

/// Routes and rules of ours in table filter, and the list.
fn state(node: &Node) -> String {
    let lines = "for f in -4 -6; do ip $f route | grep 'proto 112 ' || :; done
        for p in iptables ip6tables; do $p-save -t filter | grep -e '-A'; done";
    node.sh(lines) + &fs::read_to_string(list(node)).unwrap_or_default()
}

#[test]
fn pods_of_three_nodes_reach_each_other_as_policy_says() {
    let nodes = [Node::quick(), Node::quick(), Node::quick()];
    let all: Vec<&Node> = nodes.iter().collect();
    let _switch = Switch::of(&all);
    // As Docker leaves a node.
    for node in &nodes {
        node.sh("for p in iptables ip6tables; do $p -P FORWARD DROP; done");
    }
    let cluster = cluster(&nodes[0], Version::New);
    let objects: Vec<Value> = (1..=3).map(|number| join(&cluster, number)).collect();
    let mut daemons: Vec<Daemon> = all
        .iter()
        .zip(1..)
        .map(|(node, it)| start(node, &cluster, &format!("node-{it}")))
        .collect();
    for (daemon, node) in daemons.iter_mut().zip(&nodes) {
        daemon.wait_until(PATIENCE, || is_ready(node, 9099));
        assert!(list(node).exists());
        assert_eq!(metric(node, "in_place") + metric(node, "routes"), 1 + 6);
    }
    let pods: Vec<_> = all
        .iter()
        .zip(1..)
        .map(|(node, it)| wire(node, &cluster, it, &format!("pod-{it}")))
        .collect();
    for ((from, _), (to, addresses)) in pods.iter().zip(pods.iter().cycle().skip(1)) {
        for address in addresses {
            must_reach(from, to, &address.to_string());
        }
    }
    // What policy denies is denied, though table filter accepts it.
    let deny = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "shop", "name": "deny"}, "spec": {
            "podSelector": {"matchLabels": {"app": "pod-2"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "pod-3"}}}]}]}});
    cluster.apply(&deny);
    daemons[1].wait_until(PATIENCE, || policy_rules(&nodes[1]).contains(":PODWIRE-TO-"));
    for address in &pods[1].1 {
        must_not_reach(&pods[0].0, &pods[1].0, &address.to_string());
        must_reach(&pods[2].0, &pods[1].0, &address.to_string());
    }
    // By iptables both kinds of rules stand in one chain, and neither module takes the other's for damage.
    if !by_nftables() {
        let forward = nodes[1].sh("iptables -S FORWARD");
        let [refusal, passing] = ["REJECT", "PODWIRE-ACCEPT"].map(|it| forward.find(it).unwrap());
        assert!(refusal < passing, "{forward}");
    }
    explained(&nodes[1], &cluster);
    // A node goes, and comes again.
    cluster.delete(&objects[2]);
    daemons[0].wait_until(PATIENCE, || !state(&nodes[0]).contains("192.0.2.3"));
    join(&cluster, 3);
    daemons[0].wait_until(PATIENCE, || state(&nodes[0]).contains("via 2001:db8::3"));
    for address in &pods[2].1 {
        must_reach(&pods[0].0, &pods[2].0, &address.to_string());
    }
    killed_at_any_time(&nodes[0], &cluster, &mut daemons[0]);
    for (node, (space, _)) in all.iter().zip(&pods) {
        let name = space.name().to_owned();
        cnitool(node, "del", &name, space);
    }
    ended(&nodes, daemons);
}

/// The kernel holds what the objects say, also beside the rules of the node's network.
fn explained(node: &Node, cluster: &Cluster<'_>) {
    let file = cluster.kubeconfig_at("agent", [192, 0, 2, 1].into());
    let mut command = program(policyd());
    command.args(["--node-name", "node-2", "--deny", "reject", "--run-dir"]);
    command.arg(node.run_dir().join("podwire")).args(["explain", "--live", "--kubeconfig"]);
    command.arg(file).args(["--from", "shop/pod-1", "--to", "shop/pod-2", "--port", "80/TCP"]);
    let ended = node.run(command);
    assert_eq!(ended.status.code(), Some(0), "{}{}", ended.stdout, ended.stderr);
}

/// Whenever it is killed, the next one makes what it should be, and the list is whole or not there.
fn killed_at_any_time(node: &Node, cluster: &Cluster<'_>, daemon: &mut Daemon) {
    daemon.wait_until(PATIENCE, || is_ready(node, 9099));
    let good = state(node);
    for turn in 0..12_u64 {
        daemon.kill();
        node.sh("ip route flush proto 112; ip -6 route flush proto 112
            ip route add 10.244.99.0/24 via 192.0.2.2 proto 112
            iptables -F FORWARD; ip6tables -F PODWIRE-ACCEPT 2>/dev/null || :");
        fs::remove_file(list(node)).ok();
        *daemon = start(node, cluster, NODE);
        sleep(Duration::from_millis(turn * 120));
        let text = fs::read(list(node)).unwrap_or_default();
        assert!(text.is_empty() || serde_json::from_slice::<Value>(&text).is_ok(), "{text:?}");
    }
    daemon.wait_until(PATIENCE, || is_ready(node, 9099) && state(node) == good);
}

/// What is in place stays when policyd ends, and goes when that is asked for.
fn ended(nodes: &[Node], daemons: Vec<Daemon>) {
    for (mut daemon, node) in daemons.into_iter().zip(nodes) {
        let before = state(node);
        daemon.terminate(PATIENCE);
        assert_eq!(state(node), before);
        for (words, has_list) in [(&["cleanup"][..], true), (&["cleanup", "--all"], false)] {
            let mut command = program(policyd());
            command.env_remove("KUBECONFIG").arg("--cni-conf-dir").arg(folder(node)).args(words);
            let ended = node.run(command);
            assert!(ended.status.success(), "{}", ended.stderr);
            assert_eq!(list(node).exists(), has_list);
            let left = node
                .sh("iptables-save; ip6tables-save; ipset save; nft list ruleset")
                .to_lowercase();
            assert!(!left.contains("podwire"), "{left}");
            assert_eq!(node.sh("ip route show proto 112; ip -6 route show proto 112"), "");
        }
        assert_eq!(fs::read_dir(folder(node)).unwrap().count(), 0);
    }
}

#[test]
fn until_the_network_is_in_place_policyd_says_why_it_is_not() {
    let node = Node::quick();
    let _switch = Switch::of(&[&node]);
    let cluster = cluster(&node, Version::New);
    let own = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-7"}});
    let mut command = program(policyd());
    command.arg("--kubeconfig").arg(cluster.kubeconfig("agent")).args(["--node-name", "node-7"]);
    command.arg("--run-dir").arg(node.run_dir().join("podwire")).args(["--gate", "off"]);
    command.arg("--node-network").arg("--cni-conf-dir").arg(folder(&node));
    cluster.apply(&own);
    let mut daemon = Daemon::start("policyd", command, &node, node.home().join("policyd.log"));
    daemon.wait_until(PATIENCE, || answer(&node).contains("node node-7 has no spec.podCIDRs"));
    cluster
        .patch(&own, &json!({"spec": {"podCIDR": "10.244.7.0/24", "podCIDRs": ["10.244.7.0/24"]}}));
    daemon.wait_until(PATIENCE, || answer(&node).contains("no InternalIP"));
    let at = |address: &str| json!({"addresses": [{"type": "InternalIP", "address": address}]});
    cluster.set_status(&own, &at("192.0.2.99"));
    daemon.wait_until(PATIENCE, || answer(&node).contains("192.0.2.99 is on no link"));
    assert!(!list(&node).exists());
    assert_eq!(metric(&node, "in_place"), 0);
    cluster.set_status(&own, &at("192.0.2.1"));
    daemon.wait_until(PATIENCE, || is_ready(&node, 9099));
    assert!(list(&node).exists());
    // Started without, it removes what it had made, but for the list.
    daemon.terminate(PATIENCE);
    let mut command = program(policyd());
    command.arg("--kubeconfig").arg(cluster.kubeconfig("agent")).args(["--node-name", "node-7"]);
    command.arg("--run-dir").arg(node.run_dir().join("podwire")).args(["--gate", "off"]);
    let mut daemon = Daemon::start("policyd", command, &node, node.home().join("policyd.log"));
    daemon.wait_until(PATIENCE, || {
        !node.sh("ip route; iptables-save -t filter").contains("PODWIRE-ACCEPT")
            && node.sh("ip route show proto 112").is_empty()
    });
    assert!(list(&node).exists());
    daemon.terminate(PATIENCE);
}

#[test]
fn the_manifest_grants_what_the_nodes_network_needs() {
    let node = Node::quick();
    let _switch = Switch::of(&[&node]);
    // The pods' own network is IPv6's too, other than in that manifest.
    let (cluster, config, daemons) = deployed(&node, PODWIRE);
    let paths = ["/run/xtables.lock", "/run/podwire", "/opt/cni/bin", "/etc/cni/net.d"];
    assert_eq!(host_paths(&daemons), paths);
    let spec = &daemons["spec"]["template"]["spec"];
    let own = &spec["containers"][0];
    let mounts = own["volumeMounts"].as_array().unwrap();
    assert!(
        mounts.iter().any(|it| it["mountPath"] == "/etc/cni/net.d" && it["readOnly"].is_null())
    );
    assert!(texts(&own["args"]).contains(&"--node-network"));
    join(&cluster, 1);
    cluster.grant("kube-system", "policyd", &node.home().join("account"));
    fs::create_dir(folder(&node)).unwrap();
    let log = node.home().join("policyd.log");
    let mut daemon =
        Daemon::start("policyd", container(&node, &config, &daemons), &node, log.clone());
    // The container cannot have the node forward, and says what to do.
    let cure = "set net.ipv4.ip_forward=1 on the node itself";
    daemon.wait_until(PATIENCE, || answer(&node).contains(cure));
    assert!(!list(&node).exists());
    let forwarding = &spec["initContainers"][0];
    assert_eq!(forwarding["securityContext"]["privileged"], true);
    let run = |words: &[&str]| {
        let mut command = program(policyd());
        command.env_remove("KUBECONFIG").args(words);
        let ended = node.run(command);
        assert!(ended.status.success(), "{}", ended.stderr);
    };
    run(&texts(&forwarding["args"]));
    assert_eq!(node.sysctl("net/ipv4/ip_forward").unwrap(), "1");
    assert_eq!(node.sysctl("net/ipv6/conf/all/forwarding").unwrap(), "0");
    daemon.wait_until(PATIENCE, || answer(&node).contains("accept_ra=2 on the node itself"));
    // The uplink is known by its route.
    node.sh("ip route add default via 192.0.2.254");
    for _ in 0..2 {
        run(&["enable-forwarding", "ipv4", "ipv6"]);
        assert_eq!(node.sysctl("net/ipv6/conf/eth0/accept_ra").unwrap(), "2");
        assert_eq!(node.sysctl("net/ipv6/conf/lo/accept_ra").unwrap(), "1");
        assert_eq!(node.sysctl("net/ipv6/conf/all/forwarding").unwrap(), "1");
    }
    daemon.wait_until(PATIENCE, || is_ready(&node, 9099));
    assert!(list(&node).exists());
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("CapEff:\t0000000000003000") && !said.contains("forbidden"), "{said}");
    drop(daemon);
    let mut command = program(policyd());
    command.env_remove("KUBECONFIG").arg("--cni-conf-dir").arg(folder(&node));
    let ended = node.run({
        command.args(["cleanup", "--all"]);
        command
    });
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(!list(&node).exists());
}
