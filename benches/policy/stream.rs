//! Hundreds of changes of pods a second, out of a recorded watch.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc::{Sender, channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

use measuring::{Memory, Series};
use netlink::{ipset, nftables};
use ruleset::nft::{Encoded, Table};
use serde_json::{Value, json};

use crate::contestant::Contestant;
use crate::server;
use crate::site::Site;
use crate::world::{NODE, OUTSIDE, Size, numbered_pod, objects, pod};

/// Each of so many is one that is waited for.
const MARKED: usize = 50;
/// Each of so many is one of a pod of the node.
const LOCAL: usize = 100;
/// What has been streamed must be in the kernel after this time.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came of it.
#[derive(Debug)]
pub(crate) struct Streamed {
    pub(crate) contestant: Contestant,
    pub(crate) seconds: u32,
    /// How many changes a second were sent.
    pub(crate) rate: f64,
    /// From the writing of a change to its address being in the kernel's set.
    pub(crate) event_to_kernel: Series,
    /// Processor time, of one processor's.
    pub(crate) processor: f64,
    pub(crate) memory: Memory,
}

pub(crate) fn run(
    contestant: Contestant,
    wanted: u32,
    site: &Site,
    control: &lab::Node,
    size: Size,
    seconds: u32,
) -> Streamed {
    let mut objects = objects(size);
    for (number, object) in objects.iter_mut().enumerate() {
        complete(object, &format!("uid-{number}"));
    }
    let (changes, received) = channel();
    server::serve(control, &objects, received);
    let file = site.node.home().join("stream.json");
    let server = format!("http://{}:{}", site.control, server::PORT);
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "stream",
        "contexts": [{"name": "stream", "context": {"cluster": "stream", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
        "clusters": [{"name": "stream", "cluster": {"server": server}}]});
    std::fs::write(&file, config.to_string()).expect("a file of ours");
    let running = contestant.start(site, &file);
    let set = find_set(contestant, site, &changes);
    let recorded: Vec<_> = (0..(wanted * seconds) as usize).map(change).collect();
    let before = running.processor_time();
    let started = Instant::now();
    let (marks, written) = channel();
    let poller = site.node.spawn(move || {
        let mut sets = Sets::open(contestant);
        let mut times = Series::default();
        for (address, at) in written {
            let at: Instant = at;
            while !sets.contain(&set, address) {
                assert!(at.elapsed() < PATIENCE, "{address} is not in the kernel");
                sleep(Duration::from_micros(300));
            }
            times.push(at.elapsed());
        }
        times
    });
    for (number, (line, address)) in (0..).zip(recorded) {
        let due = started + Duration::from_secs(1) * number / wanted;
        sleep(due.saturating_duration_since(Instant::now()));
        changes.send(line).expect("policyd watches");
        if let Some(address) = address {
            marks.send((address, Instant::now())).expect("it is polled");
        }
    }
    let took = started.elapsed();
    drop(marks);
    let event_to_kernel = poller.join().expect("all were seen");
    let processor = (running.processor_time() - before).as_secs_f64() / took.as_secs_f64();
    let memory = running.memory();
    running.end();
    let rate = f64::from(wanted * seconds) / took.as_secs_f64();
    Streamed { contestant, seconds, rate, event_to_kernel, processor, memory }
}

/// What the kernel's sets have.
enum Sets {
    Ipset(ipset::Client),
    Nftables(nftables::Client),
}

const TABLE: Table<'static> = Table { family: ruleset::nft::Family::Inet, name: "podwire" };

impl Sets {
    fn open(contestant: Contestant) -> Self {
        let kernel = "a kernel with netfilter";
        if contestant == Contestant::Nftables {
            return Self::Nftables(nftables::Client::open().expect("a socket").expect(kernel));
        }
        Self::Ipset(ipset::Client::open().expect("a socket").expect(kernel))
    }

    fn contain(&mut self, set: &str, address: IpAddr) -> bool {
        match self {
            Self::Ipset(it) => it.contains(set, address).expect("the kernel answers") == Some(true),
            Self::Nftables(it) => {
                let key = match address {
                    IpAddr::V4(address) => address.octets().to_vec(),
                    IpAddr::V6(address) => address.octets().to_vec(),
                };
                let element = Encoded { key, ..Encoded::default() };
                it.element(TABLE, set, &element).expect("the kernel answers").is_some()
            }
        }
    }

    /// A set of addresses that has this one.
    fn having(&mut self, address: IpAddr) -> Option<String> {
        let names: Vec<String> = match self {
            Self::Ipset(it) => {
                it.sets().expect("the kernel answers").into_iter().map(|it| it.name).collect()
            }
            Self::Nftables(it) => {
                it.sets(TABLE).expect("the kernel answers").into_iter().map(|it| it.name).collect()
            }
        };
        let names = names.into_iter().filter(|it| it.starts_with("podwire-4-"));
        names.into_iter().find(|it| self.contain(it, address))
    }
}

/// The set that marked pods are in: found by one of them.
fn find_set(contestant: Contestant, site: &Site, changes: &Sender<String>) -> String {
    let (line, address) = mark(usize::MAX);
    changes.send(line).expect("it is served");
    let started = Instant::now();
    loop {
        if let Some(set) = site.node.enter(|| Sets::open(contestant).having(address)) {
            return set;
        }
        assert!(started.elapsed() < PATIENCE, "no set has {address}");
        sleep(Duration::from_millis(50));
    }
}

/// The line of a change, and the address that it brings into a set.
fn change(number: usize) -> (String, Option<IpAddr>) {
    if number.is_multiple_of(MARKED) {
        let (line, address) = mark(number);
        return (line, Some(address));
    }
    if number % LOCAL == 1 {
        // Another tier: it is in other sets then.
        let mut pod = numbered_pod(number / LOCAL % 100);
        pod["metadata"]["labels"]["tier"] = json!(format!("x{}", number / LOCAL % 3));
        complete(&mut pod, &format!("local-{}", number / LOCAL % 100));
        return (event("MODIFIED", &pod, number), None);
    }
    let turn = number / 3;
    let (kind, which, tier) = match number % 3 {
        0 => ("ADDED", turn, "x0"),
        1 => ("MODIFIED", turn, "x1"),
        _ => ("DELETED", turn.saturating_sub(500), "x1"),
    };
    let mut pod = numbered_pod(20_000 + which);
    pod["metadata"]["labels"]["tier"] = json!(tier);
    complete(&mut pod, &format!("passing-{which}"));
    (event(kind, &pod, number), None)
}

fn mark(number: usize) -> (String, IpAddr) {
    let turn = (number / MARKED) % 60_000;
    let address = Ipv4Addr::new(10, 201, (turn / 250) as u8, (turn % 250 + 2) as u8);
    let name = format!("mark-{turn}");
    let mut pod = pod(OUTSIDE, &name, "node-2", &json!({"role": "peer"}), address);
    complete(&mut pod, &name);
    (event("ADDED", &pod, number), address.into())
}

fn event(kind: &str, object: &Value, number: usize) -> String {
    let mut object = object.clone();
    object["metadata"]["resourceVersion"] = json!((number % 1_000_000 + 10).to_string());
    json!({"type": kind, "object": object}).to_string()
}

/// Adds what a server adds, and about as much as it does.
fn complete(object: &mut Value, uid: &str) {
    let is_pod_of_list = object["kind"] == "Pod" && object["spec"]["nodeName"] == NODE;
    object["metadata"]["uid"] = json!(uid);
    object["metadata"]["resourceVersion"] = json!("1");
    object["metadata"]["creationTimestamp"] = json!("2026-11-01T00:00:00Z");
    if object["kind"] == "Pod" {
        object["spec"]["serviceAccountName"] = json!("default");
        object["spec"]["tolerations"] = json!([
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"},
            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}]);
        let condition = |kind: &str| {
            json!({"type": kind, "status": "True",
            "lastTransitionTime": "2026-11-01T00:00:00Z"})
        };
        object["status"]["conditions"] =
            ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition).into();
        object["metadata"]["annotations"] = json!({"is-of-this-node": is_pod_of_list.to_string()});
    }
}
