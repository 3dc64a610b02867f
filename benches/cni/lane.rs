//! A contestant at one work: with a node of its own, on which pods run already.

use std::cell::RefCell;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::contestant::{Contestant, Programs};
use crate::netns::{self, Netns};
use crate::process::{Prepared, Running};
use crate::work::{HOST_PORT, NETWORK, POD_PORT, Step, Work, tuning_dir};
use crate::world::{self, World};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What the contestants share.
#[derive(Debug)]
pub(crate) struct Bench {
    /// The programs.
    pub(crate) programs: Programs,
    /// A directory that is removed at the end.
    pub(crate) home: PathBuf,
    /// What the programs complain.
    pub(crate) log: File,
    /// Number of namespaces that there were before.
    pub(crate) namespaces: Option<usize>,
}

impl Bench {
    /// Waits until the kernel has done what the last measurement left to it.
    pub(crate) fn settle(&self) {
        netns::wait_until_cleared(self.namespaces);
    }
}

/// A contestant at a work.
#[derive(Debug)]
pub(crate) struct Lane<'a> {
    bench: &'a Bench,
    pub(crate) contestant: Contestant,
    pub(crate) work: Work,
    node: Netns,
    data: String,
    steps: Vec<Step>,
    attachments: u32,
    /// What the node had with its first pods alone.
    at_first: World,
}

/// A container, alive as long as its namespace is open.
#[derive(Debug)]
pub(crate) struct Pod {
    netns: Netns,
    id: String,
    /// The ports of the host that lead to it.
    pub(crate) ports: Range<u16>,
    /// What the last ADD answered: that of the last plugin, in the end.
    result: RefCell<Option<Value>>,
}

impl<'a> Lane<'a> {
    /// A new node with its first pods attached, which are added to `pods`.
    pub(crate) fn new(
        bench: &'a Bench,
        contestant: Contestant,
        work: Work,
        pods: &mut Vec<Pod>,
    ) -> Self {
        let data = tempfile::tempdir_in(&bench.home).expect("the directory is ours").keep();
        let data = data.to_str().expect("temporary names are ASCII").to_owned();
        let steps = work.steps(contestant, &data);
        let node = Netns::new();
        let at_first = World::new();
        let mut lane =
            Self { bench, contestant, work, node, data, steps, attachments: 0, at_first };
        lane.prepare_leases();
        for ports in work.ports_of_first_pods() {
            let pod = lane.pod_with(ports);
            if contestant == Contestant::Floor {
                let first = lane.prepare_first_of_floor(&pod);
                lane.enter();
                pod.keep_result(&first.start().finish().printed);
            } else {
                lane.call("ADD", &pod);
            }
            must_be_a_result(&pod.result(), &work);
            pods.push(pod);
        }
        lane.at_first = lane.world();
        lane
    }

    /// The leases that are there already, and for the floor its index.
    fn prepare_leases(&self) {
        let folder = format!("{}/{NETWORK}", self.data);
        fs::create_dir_all(&folder).expect("the directory is ours");
        let write = |name: String, content: &[u8]| {
            fs::write(format!("{folder}/{name}"), content).expect("the directory is ours");
        };
        // From 10.88.1.0 on: apart from what is leased during the measurement at first.
        for number in 256..256 + self.work.leases {
            let content = format!("owner-{number}\r\neth0");
            write(format!("10.88.{}.{}", number / 256, number % 256), content.as_bytes());
        }
        if self.contestant == Contestant::Floor {
            let index = floor_index(self.work.leases);
            fs::write(format!("{}/.index", self.data), index).expect("the directory is ours");
            write("last_reserved_ip.0".into(), b"10.88.0.2");
            write("last_reserved_ip.1".into(), b"fd00:88::2");
        }
    }

    /// The floor does not make what is there after a node's first ADD (the bridge and its address,
    /// forwarding): podwire attaches that pod, with leases elsewhere.
    fn prepare_first_of_floor(&self, pod: &Pod) -> Prepared {
        let programs = &self.bench.programs;
        let program = programs.program(Contestant::Podwire, self.work.plugin);
        let conf = self.work.conf(&format!("{}/first", self.data));
        self.prepare_program(&program, &conf, "ADD", pod)
    }

    /// Moves this thread to the node.
    pub(crate) fn enter(&self) {
        self.node.enter();
    }

    /// A fresh container.
    pub(crate) fn pod(&mut self) -> Pod {
        self.pod_with(HOST_PORT..HOST_PORT + 1)
    }

    fn pod_with(&mut self, ports: Range<u16>) -> Pod {
        self.attachments += 1;
        Pod {
            netns: Netns::new(),
            id: format!("pod-{}", self.attachments),
            ports,
            result: RefCell::default(),
        }
    }

    /// Calls the plugins as a runtime does, one after the other, and for DEL the last one first; how long those took
    /// that are measured.
    pub(crate) fn call(&self, verb: &str, pod: &Pod) -> Duration {
        let call = |step: &Step| {
            let prepared = self.prepare(step, verb, pod);
            self.enter();
            let finished = prepared.start().finish();
            if verb == "ADD" {
                pod.keep_result(&finished.printed);
            }
            if step.is_measured { finished.took } else { Duration::ZERO }
        };
        match verb {
            "DEL" => self.steps.iter().rev().map(call).sum(),
            _ => self.steps.iter().map(call).sum(),
        }
    }

    /// Starts calls of the first plugin for all pods, one right after the other.
    pub(crate) fn start_all(&self, verb: &str, pods: &[Pod]) -> Vec<Running> {
        let prepared: Vec<_> = pods.iter().map(|pod| self.prepare_first(verb, pod)).collect();
        self.enter();
        prepared.into_iter().map(Prepared::start).collect()
    }

    /// A call of the first plugin, with this thread on the node.
    pub(crate) fn prepare_on_node(&self, verb: &str, pod: &Pod) -> Prepared {
        let prepared = self.prepare_first(verb, pod);
        self.enter();
        prepared
    }

    fn prepare_first(&self, verb: &str, pod: &Pod) -> Prepared {
        self.prepare(self.steps.first().expect("every work has a plugin"), verb, pod)
    }

    fn prepare(&self, step: &Step, verb: &str, pod: &Pod) -> Prepared {
        let program = self.bench.programs.program(self.contestant, step.plugin);
        self.prepare_program(&program, &pod.conf_for(step).to_string(), verb, pod)
    }

    fn prepare_program(&self, program: &Path, conf: &str, verb: &str, pod: &Pod) -> Prepared {
        let programs = &self.bench.programs;
        let cni_path = programs.cni_path(self.contestant).to_str().expect("paths are UTF-8");
        let variables = [
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", &pod.id),
            ("CNI_NETNS", &pod.netns.path()),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", cni_path),
            ("PATH", PATH),
            ("FLOOR_MODE", self.work.floor.unwrap_or_default()),
            ("FLOOR_DATA_DIR", &self.data),
        ];
        Prepared::new(program, &variables, conf, &self.bench.log)
    }

    /// Panics unless only those leases are left that should be: the first pod's, and those that
    /// were there.
    pub(crate) fn must_have_first_leases(&self) {
        if self.work.plugin == "loopback" {
            return;
        }
        let folder = fs::read_dir(format!("{}/{NETWORK}", self.data)).expect("it was created");
        let is_lease = |entry: std::io::Result<fs::DirEntry>| {
            let name = entry.expect("the directory is ours").file_name();
            name.to_str().is_some_and(|name| name.starts_with("10.88."))
        };
        let found = folder.filter_map(|entry| is_lease(entry).then_some(())).count();
        let first = match self.contestant {
            Contestant::Floor => 0,
            _ => self.work.pods as usize,
        };
        let expected = first + self.work.leases as usize;
        assert_eq!(found, expected, "leases of {} after {}", self.contestant, self.work.title);
    }

    /// Panics with the differences unless the node is as it was with its first pods alone.
    pub(crate) fn must_be_as_at_first(&self) {
        let what = format!("{} after {}, beside what was there", self.contestant, self.work.title);
        world::must_be_alike(&what, &self.world(), &self.at_first);
        self.must_have_first_leases();
    }

    /// What the node has that plugins make.
    fn world(&self) -> World {
        self.enter();
        let mut world = world::node();
        // What podwire's and the reference's write is not the same, but it goes.
        let kept = fs::read_dir(tuning_dir(&self.data)).into_iter().flatten();
        world.extend(kept.map(|file| format!("{:?}", file.expect("it is ours").file_name())));
        world
    }
}

impl Pod {
    /// Keeps what ADD printed, as a runtime does.
    pub(crate) fn keep_result(&self, printed: &[u8]) {
        let result = serde_json::from_slice(printed).expect("a plugin prints JSON");
        *self.result.borrow_mut() = Some(result);
    }

    /// What ADD answered.
    pub(crate) fn result(&self) -> Value {
        self.result.borrow().clone().unwrap_or_default()
    }

    /// Its first address.
    pub(crate) fn address(&self) -> Ipv4Addr {
        let result = self.result();
        let address = result["ips"][0]["address"].as_str().and_then(|it| it.split('/').next());
        address.and_then(|it| it.parse().ok()).expect("an address of IPv4 comes first")
    }

    /// The configuration as a runtime sends it: with what the plugin before answered, and DEL with what the last one
    /// did; and with the ports that are published.
    fn conf_for(&self, step: &Step) -> Value {
        let mut conf = step.conf.clone();
        if let Some(result) = &*self.result.borrow() {
            conf["prevResult"] = result.clone();
        }
        if step.plugin == "portmap" {
            let mapping =
                |port| json!({"hostPort": port, "containerPort": POD_PORT, "protocol": "tcp"});
            let mappings: Vec<_> = self.ports.clone().map(mapping).collect();
            conf["runtimeConfig"] = json!({"portMappings": mappings});
        }
        conf
    }

    /// Moves this thread into the container.
    pub(crate) fn enter(&self) {
        self.netns.enter();
    }
}

/// Panics unless a plugin printed a result with the addresses of its work.
fn must_be_a_result(result: &Value, work: &Work) {
    let addresses = result["ips"].as_array().map_or(0, Vec::len);
    let expected = if work.is_dual { 2 } else { 1 };
    assert!(addresses == expected || work.plugin == "loopback", "{result}");
}

/// An empty owner index for the floor (`floor/lease.rs`), as large as podwire's is for so many leases.
fn floor_index(leases: u32) -> Vec<u8> {
    let slots = (2 * leases + 32).next_power_of_two();
    let mut index = slots.to_ne_bytes().to_vec();
    index.resize(4096 + slots as usize * 32, 0);
    index
}
