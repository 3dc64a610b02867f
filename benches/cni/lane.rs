//! A contestant at one work: with a node of its own, on which one pod runs already.

use std::cell::RefCell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::contestant::{Contestant, Programs};
use crate::netns::{self, Netns};
use crate::process::{Prepared, Running};
use crate::work::{NETWORK, Work};

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
    conf: String,
    attachments: u32,
}

/// A container, alive as long as its namespace is open.
#[derive(Debug)]
pub(crate) struct Pod {
    netns: Netns,
    id: String,
    /// What ADD answered.
    result: RefCell<Option<Value>>,
}

impl<'a> Lane<'a> {
    /// A new node with one pod attached.
    pub(crate) fn new(
        bench: &'a Bench,
        contestant: Contestant,
        work: Work,
        pods: &mut Vec<Pod>,
    ) -> Self {
        let data = tempfile::tempdir_in(&bench.home).expect("the directory is ours").keep();
        let data = data.to_str().expect("temporary names are ASCII").to_owned();
        let conf = work.conf(&data);
        let node = Netns::new();
        let mut lane = Self { bench, contestant, work, node, data, conf, attachments: 0 };
        lane.prepare_leases();
        let pod = lane.pod();
        let first = if contestant == Contestant::Floor {
            lane.prepare_first_of_floor(&pod)
        } else {
            lane.prepare("ADD", &pod)
        };
        lane.enter();
        must_be_a_result(&first.start().finish().printed, &work);
        pods.push(pod);
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
        self.attachments += 1;
        Pod {
            netns: Netns::new(),
            id: format!("pod-{}", self.attachments),
            result: RefCell::default(),
        }
    }

    /// Makes one call and waits for its end; how long it took.
    pub(crate) fn call(&self, verb: &str, pod: &Pod) -> Duration {
        let finished = self.prepare_on_node(verb, pod).start().finish();
        pod.keep_result(verb, &finished.printed);
        finished.took
    }

    /// Starts calls for all pods, one right after the other.
    pub(crate) fn start_all(&self, verb: &str, pods: &[Pod]) -> Vec<Running> {
        let prepared: Vec<_> = pods.iter().map(|pod| self.prepare(verb, pod)).collect();
        self.node.enter();
        prepared.into_iter().map(Prepared::start).collect()
    }

    /// A call, with this thread on the node.
    pub(crate) fn prepare_on_node(&self, verb: &str, pod: &Pod) -> Prepared {
        let prepared = self.prepare(verb, pod);
        self.node.enter();
        prepared
    }

    fn prepare(&self, verb: &str, pod: &Pod) -> Prepared {
        let program = self.bench.programs.program(self.contestant, self.work.plugin);
        let conf = pod.conf_for(verb, &self.conf);
        self.prepare_program(&program, &conf, verb, pod)
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
        let first = usize::from(self.contestant != Contestant::Floor);
        let expected = first + self.work.leases as usize;
        assert_eq!(found, expected, "leases of {} after {}", self.contestant, self.work.title);
    }
}

impl Pod {
    /// Keeps what ADD printed, as a runtime does.
    pub(crate) fn keep_result(&self, verb: &str, printed: &[u8]) {
        if verb == "ADD" {
            *self.result.borrow_mut() = serde_json::from_slice(printed).ok();
        }
    }

    /// The configuration as a runtime sends it: DEL carries the result of ADD.
    fn conf_for(&self, verb: &str, conf: &str) -> String {
        let result = self.result.borrow();
        let (Some(result), true) = (result.as_ref(), verb == "DEL") else { return conf.to_owned() };
        let mut conf: Value = serde_json::from_str(conf).expect("the configuration is ours");
        conf["prevResult"] = result.clone();
        conf.to_string()
    }

    /// Moves this thread into the container.
    pub(crate) fn enter(&self) {
        self.netns.enter();
    }
}

/// Panics unless a plugin printed a result with the addresses of its work.
fn must_be_a_result(printed: &[u8], work: &Work) {
    let result: Value = serde_json::from_slice(printed).expect("a plugin prints JSON");
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
