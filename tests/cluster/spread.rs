//! From a new pod's address being known to the first packet of it that an isolated pod of another
//! node gets.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use lab::cluster::{Cluster, Version};
use lab::{Call, Daemon, Node, Pod, Suite, policyd, program};
use serde_json::json;

use crate::deployed::{PATIENCE, is_ready};
use crate::objects::{NODE, cluster, pod};

const OTHER: &str = "node-2";
const ROUNDS: usize = 40;
const PORT: u16 = 7000;

/// Two nodes on one link, each with a route to the pods of the other.
fn join(one: &Node, two: &Node) {
    let path = two.path();
    one.sh(&format!("ip link add link0 type veth peer name link1 netns {}", path.display()));
    for (node, link, own, peer, pods) in [
        (one, "link0", "192.0.2.1", "192.0.2.2", "10.244.2.0/24"),
        (two, "link1", "192.0.2.2", "192.0.2.1", "10.244.1.0/24"),
    ] {
        node.sh(&format!(
            "ip address add {own}/24 dev {link}; ip link set {link} up; ip route add {pods} via {peer}"
        ));
    }
}

fn start(node: &Node, cluster: &Cluster<'_>, name: &str) -> Daemon {
    let file = cluster.kubeconfig_at("agent", [192, 0, 2, 1].into());
    let mut command = program(policyd());
    command.arg("--kubeconfig").arg(file).args(["--node-name", name]);
    command.arg("--run-dir").arg(node.run_dir().join("podwire"));
    let mut daemon = Daemon::start("policyd", command, node, node.home().join("policyd.log"));
    daemon.wait_until(PATIENCE, || is_ready(node, 9099));
    daemon
}

/// A pod that is wired, and that the API server knows without its address.
fn wire(node: &Node, on: &str, range: &str, name: &str, cluster: &Cluster<'_>) -> (Pod, IpAddr) {
    let space = node.pod(name);
    space.sh("ip link set lo up");
    let conf = json!({"cniVersion": "1.0.0", "name": "net", "type": "ptp",
        "ipam": {"type": "host-local", "dataDir": node.data(),
            "ranges": [[{"subnet": range}]], "routes": [{"dst": "0.0.0.0/0"}]}});
    let call = Call::new("ptp", "ADD").container(name).netns(&space.path()).conf(&conf);
    let result = call.run(node, &Suite::podwire()).ok();
    let address = result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap();
    let mut object = pod(name);
    object["spec"]["nodeName"] = json!(on);
    object["metadata"]["labels"]["role"] = json!(if on == NODE { "new" } else { "server" });
    cluster.apply(&object);
    (space, address.parse().unwrap())
}

fn tell_address(cluster: &Cluster<'_>, name: &str, address: IpAddr) {
    let status = json!({"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]});
    cluster.set_status(&pod(name), &status);
}

/// How long it took from the API server's answer until a packet was there.
fn round(
    cluster: &Cluster<'_>,
    name: &str,
    new: (&Pod, IpAddr),
    server: (&UdpSocket, IpAddr),
) -> Duration {
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, target) = (Arc::clone(&stop), server.1);
    let sender = new.0.spawn(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        while !stopped.load(Ordering::Relaxed) {
            _ = socket.send_to(b"new", (target, PORT));
            sleep(Duration::from_millis(1));
        }
    });
    sleep(Duration::from_millis(100));
    server.0.set_nonblocking(true).unwrap();
    let early = server.0.recv_from(&mut [0; 64]);
    assert!(early.is_err(), "{name} came through before it was known: {early:?}");
    server.0.set_nonblocking(false).unwrap();
    tell_address(cluster, name, new.1);
    let told = Instant::now();
    server.0.recv_from(&mut [0; 64]).unwrap_or_else(|error| panic!("{name}: {error}"));
    let took = told.elapsed();
    stop.store(true, Ordering::Relaxed);
    sender.join().unwrap();
    server.0.set_nonblocking(true).unwrap();
    while server.0.recv_from(&mut [0; 64]).is_ok() {}
    took
}

#[test]
fn a_new_pod_soon_reaches_an_isolated_one_of_another_node() {
    let (one, two) = (Node::quick(), Node::quick());
    join(&one, &two);
    let cluster = cluster(&one, Version::New);
    cluster.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": OTHER},
        "spec": {"podCIDRs": ["10.244.2.0/24"]}}));
    let (server, at) = wire(&two, OTHER, "10.244.2.0/24", "server", &cluster);
    tell_address(&cluster, "server", at);
    let selected = json!({"podSelector": {"matchLabels": {"role": "new"}}});
    cluster.apply(&json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "shop", "name": "new"},
        "spec": {"podSelector": {"matchLabels": {"role": "server"}},
            "ingress": [{"from": [selected]}]}}));
    let agents = [start(&one, &cluster, NODE), start(&two, &cluster, OTHER)];
    let socket = server.enter(|| UdpSocket::bind((at, PORT)).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut took: Vec<_> = (0..ROUNDS)
        .map(|number| {
            let name = format!("new-{number}");
            let (space, address) = wire(&one, NODE, "10.244.1.0/24", &name, &cluster);
            round(&cluster, &name, (&space, address), (&socket, at))
        })
        .collect();
    took.sort();
    let (median, most) = (took[ROUNDS / 2], took[ROUNDS - 1]);
    println!("address known to first packet, {ROUNDS} pods: median {median:?}, longest {most:?}");
    drop(agents);
    for node in [&one, &two] {
        let mut command = program(policyd());
        command.env_remove("KUBECONFIG").arg("cleanup");
        assert!(node.run(command).status.success());
        let left =
            node.sh("iptables-save; ip6tables-save; ipset save; nft list ruleset").to_lowercase();
        assert!(!left.contains("podwire"), "{left}");
    }
}
