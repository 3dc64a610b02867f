//! What others do to a running node's network.

use std::sync::Arc;
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use lab::{has_iptables, slowed};
use policyd::agent::{Readiness, Status};
use policyd::metrics::Metrics;
use policyd::node_network::{self, Members};
use tokio::runtime::Builder;
use tokio::sync::watch;

use crate::nodes::{Host, Nodes, are_joined};

/// Within this time everything happens; on a quiet machine it is a second.
const PATIENCE: Duration = Duration::from_secs(20);

/// What tells of nodes, what shows the state, and the thread of a keeper.
type Running = (watch::Sender<Option<Arc<Members>>>, Arc<Status>, JoinHandle<()>);

/// Lets the first node's keeper run until the sender of nodes has gone.
fn start(nodes: &mut Nodes) -> Running {
    let (sender, members) = watch::channel(None);
    let status = Arc::new(Status::new(Metrics::new()));
    let host = &mut nodes.all[0];
    let keeper = host.keeper.take().unwrap();
    let shown = Arc::clone(&status);
    let thread = host.node.spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(node_network::run(keeper, members, shown));
    });
    (sender, status, thread)
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < slowed(PATIENCE), "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(10));
    }
    println!("{what}: {:?}", started.elapsed());
}

fn metric(status: &Status, name: &str) -> u64 {
    let text = status.metrics.text();
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    line.and_then(|it| it.split(' ').nth(1)?.parse().ok())
        .unwrap_or_else(|| panic!("{name}: {text}"))
}

fn state(host: &Host) -> String {
    if !has_iptables() {
        return host.routes(true);
    }
    let rules = host.node.sh(
        "iptables-save -t filter | grep -v '^[:#]'; ip6tables-save -t filter | grep -v '^[:#]'",
    );
    host.routes(true) + &rules
}

#[test]
fn whatever_others_change_is_as_before_soon_after() {
    let mut nodes = Nodes::new(2);
    let (sender, status, thread) = start(&mut nodes);
    let host = &nodes.all[0];
    wait("a reason", || status.network_problem().is_some_and(|it| it.contains("nodes are known")));
    sender.send_replace(Some(Arc::new(nodes.members.clone())));
    wait("policies are waited for", || {
        status.network_problem().is_some_and(|it| it.contains("waits for policies"))
    });
    assert!(!host.list_file().exists());
    status.set_unready(Readiness::Ready);
    wait("all is in place", || status.network_problem().is_none());
    let good = state(host);
    let file = std::fs::read(host.list_file()).unwrap();
    let of_routes = [
        "ip route flush proto 112",
        "ip -6 route flush proto 112",
        "ip route del 10.244.2.0/24",
        "ip route replace 10.244.2.0/24 via 192.0.2.99 metric 112 proto 112",
        "ip route add 10.244.77.0/24 via 192.0.2.2 proto 112",
        "ip link set eth0 down; ip link set eth0 up; ip -6 addr replace 2001:db8::1/64 dev eth0 nodad",
    ];
    let of_rules: &[_] = &[
        "iptables -F FORWARD; iptables -F PODWIRE-ACCEPT",
        "ip6tables -F; ip6tables -X",
        "iptables -A PODWIRE-ACCEPT -j DROP",
    ];
    // Where the tables of iptables are not, there is nothing to accept in them.
    let of_rules = if has_iptables() { of_rules } else { &[] };
    for damage in of_routes.iter().chain(of_rules) {
        host.node.sh(damage);
        wait(damage, || state(host) == good);
    }
    for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        host.node.set_sysctl(key, "0");
        wait(key, || host.node.sysctl(key).unwrap() == "1");
    }
    std::fs::remove_file(host.list_file()).unwrap();
    wait("the file", || std::fs::read(host.list_file()).is_ok_and(|it| it == file));
    for (name, least) in
        [("route", 4), ("rule", of_rules.len() as u64), ("forwarding", 1), ("file", 1)]
    {
        let name = format!("policyd_node_network_{name}_repairs_total");
        wait(&name, || metric(&status, &name) >= least);
    }
    wait("all is in place", || status.network_problem().is_none());
    assert_eq!(metric(&status, "policyd_node_network_in_place"), 1);
    assert_eq!(metric(&status, "policyd_node_network_routes"), 4);
    // A node that goes, and one that comes.
    let mut members = nodes.members.clone();
    let other = members.remove("node-2").unwrap();
    sender.send_replace(Some(Arc::new(members.clone())));
    wait("its routes go", || !host.routes(true).contains("via"));
    members.insert(other.name.clone(), other);
    sender.send_replace(Some(Arc::new(members)));
    wait("its routes come", || state(host) == good);
    drop(sender);
    thread.join().unwrap();
    let members = nodes.members.clone();
    assert_eq!(nodes.all[1].reconcile(&members, true).state(), Ok(()));
    let pods: Vec<_> = nodes.all.iter().map(|it| it.pod(&format!("pod-{}", it.name))).collect();
    are_joined(&pods[0], &pods[1]);
    for (host, (pod, _)) in nodes.all.iter().zip(&pods) {
        host.remove(pod);
    }
    nodes.clean_up();
}
