//! What the tests of the verbs share: a data directory, and calls on it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use cni::{AddResult, Call, Command, NetConf, Version};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Error, host_local};

/// A call with `conf`, whose `name` is `n` if it has none.
pub(crate) fn call(command: Command, mut conf: Value, container_id: &str, ifname: &str) -> Call {
    let raw = conf.as_object_mut().unwrap();
    raw.entry("name").or_insert_with(|| "n".into());
    let version = raw.get("cniVersion").and_then(Value::as_str).unwrap_or("1.1.0");
    let conf = NetConf {
        version: Version::parse(version).unwrap(),
        name: raw["name"].as_str().unwrap().to_owned(),
        raw: raw.clone(),
    };
    Call {
        command,
        container_id: container_id.into(),
        netns: None,
        ifname: ifname.into(),
        args: String::new(),
        path: String::new(),
        stdin: Vec::new(),
        conf,
    }
}

/// A data directory with a network `n`, and host-local's verbs on it.
pub(crate) struct Lab {
    pub(crate) folder: TempDir,
    pub(crate) conf: Value,
    /// What the verbs told, one after the other.
    pub(crate) notes: Vec<String>,
}

impl Lab {
    /// With these keys in `ipam`, besides `dataDir`.
    pub(crate) fn new(ipam: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut ipam = ipam;
        ipam["dataDir"] = folder.path().to_str().unwrap().into();
        let conf = json!({"cniVersion": "1.1.0", "name": "n", "ipam": ipam});
        Self { folder, conf, notes: Vec::new() }
    }

    /// With one IPv4 subnet.
    pub(crate) fn subnet(subnet: &str) -> Self {
        Self::new(json!({"subnet": subnet}))
    }

    pub(crate) fn call(&self, command: Command, container_id: &str) -> Call {
        call(command, self.conf.clone(), container_id, "eth0")
    }

    pub(crate) fn try_add(&mut self, container_id: &str) -> Result<AddResult, Error> {
        host_local::add(&self.call(Command::Add, container_id), &mut self.notes)
    }

    /// ADD; the addresses without prefix length.
    pub(crate) fn add(&mut self, container_id: &str) -> Vec<String> {
        let result = self.try_add(container_id).unwrap();
        result.ips.iter().map(|ip| ip.address.ip().to_string()).collect()
    }

    /// ADD with `CNI_ARGS`.
    pub(crate) fn add_with(&mut self, container_id: &str, args: &str) -> Result<AddResult, Error> {
        let call = Call { args: args.into(), ..self.call(Command::Add, container_id) };
        host_local::add(&call, &mut self.notes)
    }

    pub(crate) fn del(&mut self, container_id: &str) {
        host_local::del(&self.call(Command::Del, container_id), &mut self.notes).unwrap();
    }

    pub(crate) fn check(&self, container_id: &str) -> Result<(), Error> {
        host_local::check(&self.call(Command::Check, container_id))
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.folder.path().join("n")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.folder.path().join(".podwire/n")
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) {
        fs::create_dir_all(self.directory()).unwrap();
        fs::write(self.directory().join(name), content).unwrap();
    }

    /// All files of the network but the lock, with their contents.
    pub(crate) fn files(&self) -> BTreeMap<String, String> {
        let Ok(entries) = fs::read_dir(self.directory()) else { return BTreeMap::new() };
        let file = |entry: fs::DirEntry| {
            let content = fs::read(entry.path()).unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, String::from_utf8_lossy(&content).into_owned())
        };
        let mut files: BTreeMap<_, _> = entries.map(|entry| file(entry.unwrap())).collect();
        files.remove("lock");
        files
    }

    /// The lease files.
    pub(crate) fn leases(&self) -> BTreeMap<String, String> {
        let mut files = self.files();
        files.retain(|name, _| !name.starts_with("last_reserved_ip."));
        files
    }
}
