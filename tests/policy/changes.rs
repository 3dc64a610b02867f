//! While policies change, there is no moment in which they hold less or more than before and after.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::{by_nftables, slowed};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Wiring, gated};
use crate::node::dataplane;
use crate::objects::{namespace, pod, policy, with_addresses};

const CHANGES: usize = 200;
/// About as long as the breath after it.
const BURST: usize = 100;
const DENIED: u64 = 1 << 62;

/// What comes and what goes at once.
type Change = (Vec<Value>, Vec<Value>);

fn to_b(name: &str, from: &str, ports: Value) -> Value {
    let from = json!([{"podSelector": {"matchLabels": {"pod": from}}}]);
    let spec = json!({"podSelector": {"matchLabels": {"pod": "b"}},
        "policyTypes": ["Ingress"], "ingress": [{"from": from, "ports": ports}]});
    policy(&format!("x/{name}"), spec)
}

/// Before and after each of them `x/c` may send to `x/b`, and `x/a` may not. After the last all is
/// as before the first.
fn changes(cluster: &Cluster) -> Vec<Change> {
    let dns = json!([{"port": 53, "protocol": "UDP"}]);
    let many: Vec<_> = (40..60).map(|it| json!({"port": it, "protocol": "UDP"})).collect();
    let egress = json!({"podSelector": {"matchLabels": {"pod": "c"}}, "policyTypes": ["Egress"],
        "egress": [{"to": [{"podSelector": {}}]}]});
    let labelled = |name: &str, label: &str| {
        let addresses: Vec<_> = cluster.pods[name].attachment.addresses.iter().copied().collect();
        let mut pod = with_addresses(pod(name), &addresses);
        pod["metadata"]["labels"]["pod"] = json!(label);
        pod
    };
    let mut relabelled = namespace("y");
    relabelled["metadata"]["labels"] = json!({"ns": "q"});
    let nobody = policy("x/nobody", json!({"podSelector": {}}));
    let one = |object: Value| (vec![object], Vec::new());
    let gone = |object: Value| (Vec::new(), vec![object]);
    vec![
        one(to_b("p", "c", json!(many))),
        one(to_b("p", "c", json!([{"port": "dns", "protocol": "UDP"}]))),
        one(nobody.clone()),
        (vec![to_b("q", "c", dns.clone())], vec![to_b("p", "c", dns.clone())]),
        // Another label and a policy for it at once: the set that it leaves goes after the rules.
        (vec![labelled("x/c", "d"), to_b("q", "d", dns.clone())], vec![]),
        (vec![labelled("x/c", "c"), to_b("q", "c", json!([]))], vec![]),
        one(labelled("x/a", "q")),
        one(policy("x/out", egress.clone())),
        one(policy("y/other", json!({"podSelector": {}}))),
        one(relabelled),
        gone(policy("x/out", egress)),
        (vec![to_b("p", "c", dns)], vec![to_b("q", "c", json!([]))]),
        (
            vec![labelled("x/a", "a"), namespace("y")],
            vec![policy("y/other", json!({"podSelector": {}}))],
        ),
        gone(nobody),
    ]
}

fn no_moment(wiring: Wiring) {
    let mut cluster = Cluster::new(wiring, gated());
    cluster.tell(&namespace("x"));
    cluster.tell(&namespace("y"));
    for name in ["x/a", "x/b", "x/c", "y/a"] {
        cluster.add(name, pod(name));
    }
    cluster.tell(&to_b("p", "c", json!([{"port": 53, "protocol": "UDP"}])));
    // Another user of the set of c keeps it while nobody asks for it at b.
    let at_a =
        json!({"matchExpressions": [{"key": "pod", "operator": "In", "values": ["a", "q"]}]});
    let mut user = to_b("user", "c", json!([]));
    user["spec"]["podSelector"] = at_a;
    cluster.tell(&user);
    cluster.enforce();
    let target = |is_ipv4| SocketAddr::new(cluster.pods["x/b"].address(is_ipv4), 53);
    let targets = [true, false].map(target);
    let own = |name: &str| [true, false].map(|is_ipv4| cluster.pods[name].address(is_ipv4));
    let (denied, allowed) = (own("x/a"), own("x/c"));
    let sockets = open(&cluster, "x/a", denied);
    let all = changes(&cluster);
    let allowed_space = cluster.pods["x/c"].space.path();
    let stop = AtomicBool::new(false);
    let (sent, asked) = thread::scope(|scope| {
        let sender = scope.spawn(|| send_without_end(&sockets, &targets, &stop));
        let asker = scope.spawn(|| ask_without_end(&allowed_space, allowed, targets, &stop));
        for (number, (come, gone)) in all.iter().cycle().take(CHANGES).enumerate() {
            come.iter().for_each(|it| cluster.tell(it));
            gone.iter().for_each(|it| cluster.forget(it));
            if number % 10 == 9 {
                // As after a start.
                cluster.dataplane = dataplane(&gated());
                cluster.adopt();
            } else {
                cluster.enforce();
            }
        }
        stop.store(true, Ordering::Relaxed);
        (sender.join().unwrap(), asker.join().unwrap())
    });
    let came = cluster.arrivals.lock().unwrap().range(DENIED..).count();
    assert_eq!(came, 0, "{wiring:?}: of {sent} denied packets this many came through");
    assert_eq!(asked.1, 0, "{wiring:?}: of {} allowed packets this many were lost", asked.0);
    assert!(sent > 20 * CHANGES && 2 * asked.0 > CHANGES, "{sent} and {} were sent", asked.0);
    cluster.clean_up();
}

fn open(cluster: &Cluster, name: &str, addresses: [IpAddr; 2]) -> [UdpSocket; 2] {
    cluster.pods[name].space.enter(|| addresses.map(|it| UdpSocket::bind((it, 0)).unwrap()))
}

/// At full pace, but for a breath that lets others have the processor: how many were sent.
fn send_without_end(sockets: &[UdpSocket], targets: &[SocketAddr], stop: &AtomicBool) -> usize {
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        for (socket, target) in sockets.iter().zip(targets).cycle().take(BURST) {
            // A full queue of the sender is no matter.
            sent += usize::from(socket.send_to(&DENIED.to_be_bytes(), target).is_ok());
        }
        thread::sleep(Duration::from_micros(200));
    }
    sent
}

/// Each question from a port that no flow is known of: how many were asked, and how many had no
/// answer.
fn ask_without_end(
    space: &std::path::Path,
    from: [IpAddr; 2],
    targets: [SocketAddr; 2],
    stop: &AtomicBool,
) -> (usize, usize) {
    let space = std::fs::File::open(space).unwrap();
    nix::sched::setns(&space, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    let (mut asked, mut lost) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let (from, target) = (from[asked % 2], targets[asked % 2]);
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.set_read_timeout(Some(slowed(Duration::from_secs(3)))).unwrap();
        asked += 1;
        let answered = socket.send_to(&[0; 8], target).is_ok() && socket.recv(&mut [0; 8]).is_ok();
        lost += usize::from(!answered);
        // The table of connections is not to be filled.
        thread::sleep(Duration::from_micros(500));
    }
    (asked, lost)
}

/// A pod that nobody may reach, and that may reach nobody, comes and goes. By nf_tables a packet meets the rules as they
/// were when it came to a chain the kernel calls, and the maps as they are.
fn who_comes_is_open_at_no_moment(wiring: Wiring) {
    // Each starts programs by iptables.
    let rounds = if by_nftables() { CHANGES } else { CHANGES / 4 };
    let mut cluster = Cluster::new(wiring, gated());
    cluster.tell(&namespace("x"));
    for name in ["x/a", "x/b", "x/c"] {
        cluster.add(name, pod(name));
    }
    let own = |name: &str| [true, false].map(|is_ipv4| cluster.pods[name].address(is_ipv4));
    let [a, b, c] = ["x/a", "x/b", "x/c"].map(own);
    let open_all = |cluster: &Cluster| {
        let [of_a, of_c] = [("x/a", a), ("x/c", c)].map(|(name, own)| open(cluster, name, own));
        [of_a, of_c].into_iter().flatten().collect::<Vec<_>>()
    };
    let targets: Vec<_> = [b, a].concat().into_iter().map(|it| SocketAddr::new(it, 53)).collect();
    let attachment = cluster.pods["x/a"].attachment.clone();
    let told = with_addresses(pod("x/a"), &a);
    let spec = json!({"podSelector": {"matchLabels": {"pod": "a"}},
        "policyTypes": ["Ingress", "Egress"]});
    let stop = AtomicBool::new(false);
    let came = |cluster: &Cluster| cluster.arrivals.lock().unwrap().range(DENIED..).count();
    cluster.enforce();
    let deadline = Instant::now() + slowed(Duration::from_secs(10));
    while came(&cluster) == 0 {
        assert!(Instant::now() < deadline, "nothing comes while all is open");
        for (socket, target) in open_all(&cluster).iter().zip(&targets) {
            socket.send_to(&DENIED.to_be_bytes(), target).unwrap();
        }
        thread::sleep(Duration::from_millis(5));
    }
    cluster.tell(&policy("x/deny", spec));
    cluster.enforce();
    // What was on its way.
    thread::sleep(slowed(Duration::from_millis(200)));
    cluster.arrivals.lock().unwrap().clear();
    // Of flows that nobody knows.
    let sockets = open_all(&cluster);
    thread::scope(|scope| {
        let sender = scope.spawn(|| send_without_end(&sockets, &targets, &stop));
        for _ in 0..rounds {
            cluster.index.detach(&attachment.container_id);
            cluster.forget(&told);
            cluster.enforce();
            cluster.index.attach(attachment.clone());
            cluster.tell(&told);
            cluster.enforce();
        }
        stop.store(true, Ordering::Relaxed);
        let sent = sender.join().unwrap();
        assert!(sent > 20 * rounds, "{sent} were sent");
    });
    assert_eq!(came(&cluster), 0, "{wiring:?}");
    cluster.clean_up();
}

on_both_wirings!(no_moment, who_comes_is_open_at_no_moment);
