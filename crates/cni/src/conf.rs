//! The network configuration: the keys that every plugin has.

use serde_json::{Map, Value};

use crate::decode::{Fields, Problems};
use crate::{AddResult, Dns, Error, Version};

/// A network configuration with its common keys read; each plugin reads its own from [`Self::raw`].
#[derive(Debug, Clone)]
pub struct NetConf {
    /// `cniVersion`.
    pub version: Version,
    /// `name`: the network's, valid as a file name.
    pub name: String,
    /// The whole document.
    pub raw: Map<String, Value>,
}

/// A container's attachment, as GC lists the valid ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attachment {
    /// Container id.
    pub container_id: String,
    /// Interface's name in the container.
    pub ifname: String,
}

impl NetConf {
    /// `dns` of the configuration; `None` unless one of its four keys is present, even if empty.
    #[must_use]
    pub fn dns(fields: &Fields<'_>) -> Option<Dns> {
        let dns = fields.object("dns")?;
        let present = ["nameservers", "domain", "search", "options"].map(|key| dns.has(key));
        let read = Dns::read(&dns);
        dns.finish();
        present.contains(&true).then_some(read)
    }

    /// `ipam.type`; `None` when there is no `ipam` or no type in it.
    #[must_use]
    pub fn ipam_type(&self) -> Option<&str> {
        let ipam = crate::decode::lookup(&self.raw, "ipam")?.as_object()?;
        crate::decode::lookup(ipam, "type")?.as_str().filter(|name| !name.is_empty())
    }

    /// The result of the plugin before this one, if the runtime sent one.
    ///
    /// # Errors
    /// [`Error::PrevResult`] when it is not a result of the configuration's version family.
    pub fn prev_result(&self) -> Result<Option<AddResult>, Error> {
        match crate::decode::lookup(&self.raw, "prevResult") {
            None => Ok(None),
            Some(document) => AddResult::from_prev_result(document, self.version).map(Some),
        }
    }

    /// The attachments that GC must keep; a key of an older runtime is accepted beside the
    /// specification's.
    ///
    /// # Errors
    /// [`Error::NoValidAttachments`] when the list is absent: an absent list never means that
    /// nothing is valid. [`Error::Undecodable`] when it is not a list of attachments.
    pub fn valid_attachments(&self) -> Result<Vec<Attachment>, Error> {
        let problems = Problems::default();
        let fields = Fields::root(&self.raw, &problems);
        let listed = fields
            .array("cni.dev/valid-attachments")
            .or_else(|| fields.array("cni.dev/attachments"));
        let attachments = listed.map(|elements| {
            let read = |element: &crate::decode::Element<'_>| {
                let object = element.object()?;
                let text = |key| {
                    object.string(key).filter(|text| !text.is_empty()).map(str::to_owned).or_else(
                        || {
                            object.invalid(key, "missing or empty");
                            None
                        },
                    )
                };
                Some(Attachment { container_id: text("containerID")?, ifname: text("ifname")? })
            };
            elements.iter().filter_map(read).collect()
        });
        problems.into_result()?;
        attachments.ok_or(Error::NoValidAttachments)
    }

    /// Reads the keys that every configuration may have and no plugin reads itself, so that they
    /// are known, and typed.
    pub fn read_common(fields: &Fields<'_>) {
        for key in ["cniVersion", "name", "type"] {
            let _ = fields.string(key);
        }
        let _ = fields.object("capabilities");
        let _ = fields.object("runtimeConfig");
        let _ = fields.object("args");
        let _ = fields.object("prevResult");
        let _ = fields.array("cni.dev/valid-attachments");
        let _ = fields.array("cni.dev/attachments");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> NetConf {
        NetConf {
            version: Version::LATEST,
            name: "net".into(),
            raw: serde_json::from_str(text).unwrap(),
        }
    }

    #[test]
    fn an_absent_list_is_not_an_empty_one() {
        let error = conf("{}").valid_attachments().unwrap_err();
        assert_eq!(error.code(), 7);
        let error = conf(r#"{"cni.dev/valid-attachments":null}"#).valid_attachments().unwrap_err();
        assert_eq!(error.code(), 7);
        let empty = conf(r#"{"cni.dev/valid-attachments":[]}"#).valid_attachments().unwrap();
        assert!(empty.is_empty());
    }

    #[test]
    fn half_an_attachment_is_refused_rather_than_dropped() {
        let text = r#"{"cni.dev/valid-attachments":[{"containerID":"a"}]}"#;
        assert_eq!(conf(text).valid_attachments().unwrap_err().code(), 7);
        let text = r#"{"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}]}"#;
        let expected = Attachment { container_id: "a".into(), ifname: "eth0".into() };
        assert_eq!(conf(text).valid_attachments().unwrap(), [expected]);
    }

    #[test]
    fn dns_counts_when_a_key_is_there_even_if_empty() {
        for (text, counts) in
            [(r#"{}"#, false), (r#"{"dns":{}}"#, false), (r#"{"dns":{"search":[]}}"#, true)]
        {
            let (problems, conf) = (Problems::default(), conf(text));
            let dns = NetConf::dns(&Fields::root(&conf.raw, &problems));
            assert_eq!(dns.is_some(), counts, "{text}");
        }
    }
}
