//! The documents.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni::decode::{Fields, Problems};
use serde_json::{Value, json};

use crate::Error;

/// The version of the protocol, and of the files.
pub const VERSION: i64 = 1;
/// Addresses of one interface; more are no pod's.
const ADDRESS_LIMIT: usize = 64;
/// Bytes of a container's id: with an ending it is a file's name, of at most 255.
const ID_LIMIT: usize = 250;
/// Bytes of a pod's name, as Kubernetes allows them.
const NAME_LIMIT: usize = 253;

/// One interface of one container, on the pod's default network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The runtime's id of the container, or of the pod's sandbox.
    pub container_id: String,
    /// The interface's name in the container.
    pub ifname: String,
    /// Path of the container's network namespace.
    pub netns: String,
    /// Name of the network.
    pub network: String,
    /// The pod, where the runtime tells of one.
    pub pod: Option<Pod>,
    /// The interface's addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// The host's end of its link, where it has one.
    pub host_interface: Option<HostInterface>,
}

/// How a runtime names a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// `K8S_POD_NAMESPACE`
    pub namespace: String,
    /// `K8S_POD_NAME`
    pub name: String,
    /// `K8S_POD_UID`, where it is given.
    pub uid: Option<String>,
}

/// The host's end of a container's link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostInterface {
    /// Its name.
    pub name: String,
    /// The bridge that it is a port of; `None` where traffic is routed.
    pub bridge: Option<String>,
}

/// Which attachment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The container.
    pub container_id: String,
    /// The interface's name in it.
    pub ifname: String,
}

/// What the plugin wants of policyd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Take this in; [`Answer::Done`] when its rules are in the kernel.
    Attach(Attachment),
    /// Forget this; [`Answer::Done`] when its addresses pass the gate no more.
    Detach(Key),
    /// Is it attached with these addresses? [`Answer::Refused`] when it is not.
    Check {
        /// Which.
        key: Key,
        /// The addresses.
        addresses: BTreeSet<IpAddr>,
    },
    /// Forget what is of this network and not valid.
    Gc {
        /// The network.
        network: String,
        /// The attachments of the network that are valid.
        valid: Vec<Key>,
    },
    /// Can rules be brought into the kernel?
    Status {},
}

/// What policyd says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is done, or so.
    Done {},
    /// It could not be done by now; policyd goes on trying.
    NotYet {
        /// Why.
        problem: String,
    },
    /// It will not be done, or is not so.
    Refused {
        /// Why.
        problem: String,
    },
}

impl Request {
    /// The line to send.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(&match self {
            Self::Attach(attachment) => json!({"attach": attachment.to_json()}),
            Self::Detach(key) => json!({"detach": key.to_json()}),
            Self::Check { key, addresses } => {
                json!({"check": {"key": key.to_json(), "addresses": texts(addresses)}})
            }
            Self::Gc { network, valid } => {
                let valid: Vec<Value> = valid.iter().map(Key::to_json).collect();
                json!({"gc": {"network": network, "valid": valid}})
            }
            Self::Status {} => json!({"status": {}}),
        })
    }

    /// Reads a line that was received.
    ///
    /// # Errors
    /// [`Error::Json`], [`Error::Invalid`].
    pub fn decode(line: &[u8]) -> Result<Self, Error> {
        decode("a request", line, |content| {
            if let Some(fields) = content.object("attach") {
                return Some(Self::Attach(Attachment::read(&fields)?));
            }
            if let Some(fields) = content.object("detach") {
                return Some(Self::Detach(Key::read(&fields)?));
            }
            if let Some(fields) = content.object("check") {
                let key = Key::read(&fields.object("key")?)?;
                return Some(Self::Check { key, addresses: read_addresses(&fields)? });
            }
            if let Some(fields) = content.object("gc") {
                let keys = fields.array("valid")?;
                let valid = keys.iter().map(|key| Key::read(&key.object()?));
                let network = fields.string("network")?.to_owned();
                return Some(Self::Gc { network, valid: valid.collect::<Option<_>>()? });
            }
            content.object("status").map(|_| Self::Status {})
        })
    }
}

impl Answer {
    /// The line to send.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(&match self {
            Self::Done {} => json!({"done": {}}),
            Self::NotYet { problem } => json!({"notYet": {"problem": problem}}),
            Self::Refused { problem } => json!({"refused": {"problem": problem}}),
        })
    }

    /// Reads a line that was received.
    ///
    /// # Errors
    /// [`Error::Json`], [`Error::Invalid`].
    pub fn decode(line: &[u8]) -> Result<Self, Error> {
        decode("policyd's answer", line, |content| {
            let problem = |key| Some(content.object(key)?.string("problem")?.to_owned());
            if let Some(problem) = problem("notYet") {
                return Some(Self::NotYet { problem });
            }
            if let Some(problem) = problem("refused") {
                return Some(Self::Refused { problem });
            }
            content.object("done").map(|_| Self::Done {})
        })
    }
}

/// A document: the version, and what it holds.
fn encode(content: &Value) -> Vec<u8> {
    format!("{}\n", json!({"version": VERSION, "content": content})).into_bytes()
}

fn decode<T>(
    what: &'static str,
    line: &[u8],
    read: impl FnOnce(&Fields<'_>) -> Option<T>,
) -> Result<T, Error> {
    let document: Value =
        serde_json::from_slice(line).map_err(|source| Error::Json { what, source })?;
    let version = document.get("version").and_then(Value::as_i64);
    if version.is_some_and(|version| version != VERSION) {
        let problem = format!(
            "it is in another version than this program's, {VERSION} (is only one of podwire and policyd new?)"
        );
        return Err(Error::Invalid { what, problem });
    }
    let problems = Problems::default();
    let members = document.get("content").and_then(Value::as_object);
    let found = members.filter(|_| version.is_some()).and_then(|members| {
        let content = Fields::root(members, &problems);
        read(&content)
    });
    match (problems.into_vec().first(), found) {
        (None, Some(found)) => Ok(found),
        (Some(problem), _) => Err(Error::Invalid { what, problem: problem.to_string() }),
        (None, None) => Err(Error::Invalid { what, problem: "a part is missing".into() }),
    }
}

fn texts(addresses: &BTreeSet<IpAddr>) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

fn read_addresses(fields: &Fields<'_>) -> Option<BTreeSet<IpAddr>> {
    let texts = fields.strings("addresses")?;
    // Collecting them would sort them first, and that code is more than all the rest of this file.
    let mut addresses = BTreeSet::new();
    addresses.extend(texts.iter().filter_map(|text| text.parse::<IpAddr>().ok()));
    if addresses.len() != texts.len() || !(1..=ADDRESS_LIMIT).contains(&texts.len()) {
        fields.invalid("addresses", "not from one to 64 addresses, all different");
    }
    Some(addresses)
}

/// Names become those of files, chains and comments.
fn read_name(fields: &Fields<'_>, key: &'static str, limit: usize) -> Option<String> {
    let name = fields.string(key)?;
    if !is_name(name, limit) {
        fields.invalid(key, format!("{name:?} is no id, and no name"));
    }
    Some(name.to_owned())
}

fn read_interface(fields: &Fields<'_>, key: &'static str) -> Option<String> {
    let name = fields.string(key)?;
    if let Some(problem) = cni::ifname_problem(name) {
        fields.invalid(key, format!("{problem}: {name:?}"));
    }
    Some(name.to_owned())
}

fn is_name(text: &str, limit: usize) -> bool {
    cni::name_is_valid(text) && text.len() <= limit
}

pub(crate) fn is_container_id(text: &str) -> bool {
    is_name(text, ID_LIMIT)
}

impl Attachment {
    /// Which it is.
    #[must_use]
    pub fn key(&self) -> Key {
        Key { container_id: self.container_id.clone(), ifname: self.ifname.clone() }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(&self.to_json())
    }

    pub(crate) fn decode(line: &[u8]) -> Result<Self, Error> {
        decode("an attachment", line, Self::read)
    }

    fn to_json(&self) -> Value {
        let pod = self.pod.as_ref();
        let interface = self.host_interface.as_ref();
        json!({
            "containerId": self.container_id,
            "ifname": self.ifname,
            "netns": self.netns,
            "network": self.network,
            "pod": pod.map(|it| json!({"namespace": it.namespace, "name": it.name, "uid": it.uid})),
            "addresses": texts(&self.addresses),
            "hostInterface": interface.map(|it| json!({"name": it.name, "bridge": it.bridge})),
        })
    }

    fn read(fields: &Fields<'_>) -> Option<Self> {
        let Key { container_id, ifname } = Key::read(fields)?;
        let text = |key| fields.string(key).map(str::to_owned);
        let pod = match fields.object("pod") {
            None => None,
            Some(pod) => Some(Pod {
                namespace: read_name(&pod, "namespace", NAME_LIMIT)?,
                name: read_name(&pod, "name", NAME_LIMIT)?,
                uid: read_name(&pod, "uid", NAME_LIMIT),
            }),
        };
        let host_interface = match fields.object("hostInterface") {
            None => None,
            Some(interface) => Some(HostInterface {
                name: read_interface(&interface, "name")?,
                bridge: read_interface(&interface, "bridge"),
            }),
        };
        Some(Self {
            container_id,
            ifname,
            netns: text("netns")?,
            network: text("network")?,
            pod,
            addresses: read_addresses(fields)?,
            host_interface,
        })
    }
}

impl Key {
    fn to_json(&self) -> Value {
        json!({"containerId": self.container_id, "ifname": self.ifname})
    }

    fn read(fields: &Fields<'_>) -> Option<Self> {
        Some(Self {
            container_id: read_name(fields, "containerId", ID_LIMIT)?,
            ifname: read_interface(fields, "ifname")?,
        })
    }
}

#[cfg(test)]
mod tests;
