//! The documents.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// The version of the protocol, and of the files.
pub const VERSION: u32 = 1;
/// Addresses of one interface; more are no pod's.
const ADDRESS_LIMIT: usize = 64;
/// Bytes of an id or of a pod's name (Kubernetes allows 253); with an ending it is a file's name, of
/// at most 255.
const NAME_LIMIT: usize = 250;

/// One interface of one container, on the pod's default network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// `K8S_POD_NAMESPACE`
    pub namespace: String,
    /// `K8S_POD_NAME`
    pub name: String,
    /// `K8S_POD_UID`, where it is given.
    pub uid: Option<String>,
}

/// The host's end of a container's link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInterface {
    /// Its name.
    pub name: String,
    /// The bridge that it is a port of; `None` where traffic is routed.
    pub bridge: Option<String>,
}

/// Which attachment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    /// The container.
    pub container_id: String,
    /// The interface's name in it.
    pub ifname: String,
}

/// What the plugin wants of policyd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// Take this in; [`Answer::Done`] when its rules are in the kernel.
    Attach(Attachment),
    /// Forget this; [`Answer::Done`] when its addresses pass the gate no more.
    Detach(Key),
    /// Is it attached with these addresses? [`Answer::Refused`] when it is not.
    #[serde(rename_all = "camelCase")]
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
        valid: BTreeSet<Key>,
    },
    /// Can rules be brought into the kernel?
    Status {},
}

/// What policyd says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
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

/// A document with its version.
#[derive(Serialize, Deserialize)]
struct Document<T> {
    version: u32,
    content: T,
}

/// As much of a document as every version has.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

fn encode<T: Serialize>(content: &T) -> Vec<u8> {
    // Strings, numbers and addresses always have a JSON form.
    let mut line = serde_json::to_vec(&Document { version: VERSION, content }).unwrap_or_default();
    line.push(b'\n');
    line
}

fn decode<'a, T: Deserialize<'a>>(what: &'static str, line: &'a [u8]) -> Result<T, Error> {
    let failed = |source| Error::Json { what, source };
    let Version { version } = serde_json::from_slice(line).map_err(failed)?;
    if version != VERSION {
        let problem = format!(
            "it is in version {version}, this program speaks {VERSION} (is only one of podwire and policyd new?)"
        );
        return Err(Error::Invalid { what, problem });
    }
    let Document { content, .. } = serde_json::from_slice(line).map_err(failed)?;
    Ok(content)
}

impl Request {
    /// The line to send.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a line that was received.
    ///
    /// # Errors
    /// [`Error::Json`], [`Error::Invalid`].
    pub fn decode(line: &[u8]) -> Result<Self, Error> {
        let what = "a request";
        let request = decode(what, line)?;
        let problem = match &request {
            Self::Attach(attachment) => attachment.problem(),
            Self::Detach(key) | Self::Check { key, .. } => key.problem(),
            Self::Gc { valid, .. } => valid.iter().find_map(Key::problem),
            Self::Status {} => None,
        };
        problem.map_or(Ok(request), |problem| Err(Error::Invalid { what, problem }))
    }
}

impl Answer {
    /// The line to send.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a line that was received.
    ///
    /// # Errors
    /// [`Error::Json`], [`Error::Invalid`].
    pub fn decode(line: &[u8]) -> Result<Self, Error> {
        decode("policyd's answer", line)
    }
}

impl Attachment {
    /// Which it is.
    #[must_use]
    pub fn key(&self) -> Key {
        Key { container_id: self.container_id.clone(), ifname: self.ifname.clone() }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub(crate) fn decode(line: &[u8]) -> Result<Self, Error> {
        let what = "an attachment";
        let attachment: Self = decode(what, line)?;
        let problem = attachment.problem();
        problem.map_or(Ok(attachment), |problem| Err(Error::Invalid { what, problem }))
    }

    /// Why it cannot be one. Its names become those of files, chains and comments.
    fn problem(&self) -> Option<String> {
        let interfaces =
            self.host_interface.iter().flat_map(|it| [Some(&it.name), it.bridge.as_ref()]);
        let wrong_interface = interfaces.flatten().find(|name| cni::ifname_problem(name).is_some());
        if let Some(name) = wrong_interface {
            return Some(format!("{name:?} is no interface's name"));
        }
        let names =
            self.pod.iter().flat_map(|it| [Some(&it.namespace), Some(&it.name), it.uid.as_ref()]);
        if let Some(name) = names.flatten().find(|name| !is_name(name)) {
            return Some(format!("{name:?} is no pod's namespace, name or uid"));
        }
        if !(1..=ADDRESS_LIMIT).contains(&self.addresses.len()) {
            return Some(format!("it has {} addresses", self.addresses.len()));
        }
        self.key().problem()
    }
}

impl Key {
    fn problem(&self) -> Option<String> {
        if !is_name(&self.container_id) {
            return Some(format!("{:?} is no container's id", self.container_id));
        }
        let problem = cni::ifname_problem(&self.ifname)?;
        Some(format!("{problem}: {:?}", self.ifname))
    }
}

pub(crate) fn is_name(text: &str) -> bool {
    cni::name_is_valid(text) && text.len() <= NAME_LIMIT
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attachment() -> Attachment {
        Attachment {
            container_id: "c1".into(),
            ifname: "eth0".into(),
            netns: "/run/netns/c1".into(),
            network: "net".into(),
            pod: Some(Pod { namespace: "x".into(), name: "a.b-c".into(), uid: None }),
            addresses: ["10.1.0.2".parse().unwrap(), "fd00::2".parse().unwrap()].into(),
            host_interface: Some(HostInterface {
                name: "veth1".into(),
                bridge: Some("br0".into()),
            }),
        }
    }

    #[test]
    fn a_request_is_one_line_and_reads_back() {
        let key = attachment().key();
        for request in [
            Request::Attach(attachment()),
            Request::Detach(key.clone()),
            Request::Check { key: key.clone(), addresses: attachment().addresses },
            Request::Gc { network: "net".into(), valid: [key].into() },
            Request::Status {},
        ] {
            let line = request.encode();
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert_eq!(line.last(), Some(&b'\n'));
            assert_eq!(Request::decode(&line).unwrap(), request);
        }
    }

    #[test]
    fn an_answer_reads_back() {
        let problem = "no\nmore".to_owned();
        for answer in [
            Answer::Done {},
            Answer::NotYet { problem: problem.clone() },
            Answer::Refused { problem },
        ] {
            assert_eq!(Answer::decode(&answer.encode()).unwrap(), answer);
        }
    }

    #[test]
    fn the_form_stays_as_older_programs_know_it() {
        let expected = r#"{"version":1,"content":{"attach":{"containerId":"c1","ifname":"eth0","netns":"/run/netns/c1","network":"net","pod":{"namespace":"x","name":"a.b-c","uid":null},"addresses":["10.1.0.2","fd00::2"],"hostInterface":{"name":"veth1","bridge":"br0"}}}}"#;
        let line = String::from_utf8(Request::Attach(attachment()).encode()).unwrap();
        assert_eq!(line.trim_end(), expected);
    }

    #[test]
    fn unknown_fields_are_ignored_and_other_versions_refused() {
        let newer = br#"{"version":1,"new":[],"content":{"detach":{"containerId":"c","ifname":"e","x":1}}}"#;
        assert!(matches!(Request::decode(newer).unwrap(), Request::Detach(_)));
        let other = br#"{"version":2,"content":{"anything":1}}"#;
        let error = Request::decode(other).unwrap_err().to_string();
        assert!(error.contains("version 2"), "{error}");
        let unknown = br#"{"version":1,"content":{"dance":{}}}"#;
        assert!(matches!(Request::decode(unknown), Err(Error::Json { .. })));
    }

    #[test]
    fn names_that_would_lead_elsewhere_are_refused() {
        let long = "a".repeat(NAME_LIMIT + 1);
        let wrong: [fn(&mut Attachment, &str); 4] = [
            |it, name| it.container_id = name.into(),
            |it, name| it.ifname = name.into(),
            |it, name| it.host_interface.as_mut().unwrap().name = name.into(),
            |it, name| it.pod.as_mut().unwrap().name = name.into(),
        ];
        for change in wrong {
            for name in ["", "../x", "a/b", "a b", &long] {
                let mut attachment = attachment();
                change(&mut attachment, name);
                let decoded = Request::decode(&Request::Attach(attachment).encode());
                assert!(matches!(decoded, Err(Error::Invalid { .. })), "{name:?}: {decoded:?}");
            }
        }
        let mut none = attachment();
        none.addresses.clear();
        assert!(Request::decode(&Request::Attach(none).encode()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Request::decode(&bytes);
            let _ = Answer::decode(&bytes);
            let _ = Attachment::decode(&bytes);
        }

        #[test]
        fn a_damaged_line_never_reads_as_another_container(at in 0..200usize, byte: u8) {
            let mut line = Request::Attach(attachment()).encode();
            let at = at % line.len();
            line[at] = byte;
            if let Ok(Request::Attach(read)) = Request::decode(&line) {
                prop_assert!(is_name(&read.container_id));
                prop_assert!(!read.addresses.is_empty());
            }
        }
    }
}
