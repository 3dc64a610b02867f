//! What goes wrong in the protocol, and the object that tells the runtime so.

use std::error::Error as StdError;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::Version;

/// The error codes that the specification reserves (SPEC 1.1, "Error").
pub mod code {
    /// The configuration's version is not supported.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// A field of the configuration asks for what is not supported.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// The container is not known.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// An environment variable, `CNI_ARGS` included, is missing or wrong.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Reading or writing failed.
    pub const IO_FAILURE: u32 = 5;
    /// The content cannot be decoded.
    pub const DECODING_FAILURE: u32 = 6;
    /// The network configuration decodes, but is wrong.
    pub const INVALID_CONFIG: u32 = 7;
    /// The network namespace is wrong (libcni's number; the specification leaves it free).
    pub const INVALID_NETNS: u32 = 8;
    /// A transient condition: the runtime should try again.
    pub const TRY_AGAIN_LATER: u32 = 11;
    /// STATUS: the plugin cannot serve ADD.
    pub const PLUGIN_NOT_AVAILABLE: u32 = 50;
    /// STATUS: the plugin serves ADD, but connectivity is limited.
    pub const LIMITED_CONNECTIVITY: u32 = 51;
    /// What is really internal: a bug, or a kernel that answered what it never should.
    pub const INTERNAL: u32 = 999;

    // The specification leaves the numbers from 100 on to the plugins. These are podwire's.

    /// The kernel refused what was asked of it.
    pub const KERNEL_REFUSED: u32 = 100;
    /// Something on the host is in the way.
    pub const CONFLICT: u32 = 101;
    /// CHECK found the attachment changed. Not [`UNKNOWN_CONTAINER`]: that tells the runtime that
    /// it need not call DEL.
    pub const CHANGED: u32 = 102;
    /// Another program failed.
    pub const PROGRAM_FAILED: u32 = 103;
}

/// The error document that a plugin prints (SPEC 1.1, "Error").
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{msg}{}{details}", if details.is_empty() { "" } else { "; " })]
pub struct ErrorObject {
    /// One of [`code`], or a plugin's own from 100 on.
    pub code: u32,
    /// One sentence: the object, what was tried, the likely cause.
    pub msg: String,
    /// What helps to find the cause; may be empty.
    pub details: String,
}

impl ErrorObject {
    /// The object for an error and all its sources, joined by `: `.
    #[must_use]
    pub fn from_error(code: u32, error: &dyn StdError) -> Self {
        Self { code, msg: chain(error), details: String::new() }
    }

    /// The document, with the version that the answer is in.
    #[must_use]
    pub fn to_json(&self, version: Version) -> Value {
        let mut document =
            json!({"cniVersion": version.as_str(), "code": self.code, "msg": self.msg});
        if !self.details.is_empty()
            && let Some(fields) = document.as_object_mut()
        {
            fields.insert("details".into(), self.details.clone().into());
        }
        document
    }

    /// Reads the document that another plugin printed; `None` when it is none.
    #[must_use]
    pub fn from_json(document: &Value) -> Option<Self> {
        let code = document.get("code").and_then(Value::as_u64).unwrap_or(0);
        let text = |key| document.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let object =
            Self { code: u32::try_from(code).ok()?, msg: text("msg"), details: text("details") };
        (object.code != 0 || !object.msg.is_empty()).then_some(object)
    }
}

/// An error and its sources as one line.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

/// What can go wrong between the runtime's call and the plugin's own work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Required variables are not set.
    #[error("required env variables [{}] missing", .0.join(","))]
    MissingEnvironment(Vec<&'static str>),
    /// A variable is not UTF-8.
    #[error("cannot decode env variable {0}: it is not UTF-8")]
    UndecodableEnvironment(String),
    /// `CNI_CONTAINERID` is not a container id.
    #[error("invalid characters in containerID")]
    ContainerId(String),
    /// `CNI_IFNAME` cannot be an interface's name.
    #[error("{problem}")]
    Ifname {
        /// What is wrong with it.
        problem: &'static str,
        /// The value.
        ifname: String,
    },
    /// `CNI_COMMAND` is none of the verbs.
    #[error("unknown CNI_COMMAND: {0}")]
    UnknownCommand(String),
    /// `CNI_ARGS` cannot be parsed.
    #[error("CNI_ARGS: {0}")]
    Args(String),
    /// stdin could not be read, or is larger than any configuration is.
    #[error("cannot read the network configuration from stdin")]
    Stdin(#[source] std::io::Error),
    /// The result could not be printed: the runtime has gone, or its disk is full.
    #[error("cannot print the result to stdout (has the runtime gone?)")]
    Stdout(#[source] std::io::Error),
    /// stdin, or a document from a delegate, is not JSON.
    #[error("cannot decode {what} as JSON")]
    Json {
        /// What was decoded.
        what: &'static str,
        /// Where and why it failed.
        #[source]
        source: serde_json::Error,
    },
    /// A value of the configuration has a type that cannot be decoded.
    #[error("cannot decode the network configuration: {path}: {problem}")]
    Undecodable {
        /// JSON path of the value.
        path: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// A value of the configuration is wrong.
    #[error("invalid network configuration: {path}: {problem}")]
    InvalidConfig {
        /// JSON path of the value.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// `name` is missing.
    #[error("missing network name")]
    MissingName,
    /// `name` has characters that are not allowed.
    #[error("invalid characters found in network name")]
    Name(String),
    /// The configuration is in a version that podwire does not speak.
    #[error("incompatible CNI versions")]
    IncompatibleVersion {
        /// `cniVersion` of the configuration.
        config: String,
        /// What the plugin speaks.
        supported: &'static [Version],
    },
    /// The configuration's version is too old for the verb.
    #[error("config version does not allow {0}")]
    VerbTooNew(&'static str),
    /// The configuration's version is newer than all that podwire speaks.
    #[error("plugin version does not allow {0}")]
    ConfigTooNew(&'static str),
    /// `cniVersion` is not a version.
    #[error("cannot decode cniVersion {0:?} as a version")]
    UnreadableVersion(String),
    /// GC came without the list of what is valid.
    #[error(
        "GC without cni.dev/valid-attachments: refusing to treat every attachment as stale (is the runtime older than CNI 1.1?)"
    )]
    NoValidAttachments,
    /// `prevResult` cannot be read.
    #[error("could not parse prevResult: {0}")]
    PrevResult(String),
    /// A result cannot be expressed in the version that was asked for.
    #[error("cannot convert the result to version {version}: {problem}")]
    Convert {
        /// The version asked for.
        version: Version,
        /// Why not.
        problem: &'static str,
    },
    /// A result document of a delegate is not as the specification says.
    #[error("cannot decode the result of plugin {plugin:?}: {problem}")]
    DelegateResult {
        /// `type` of the delegate.
        plugin: String,
        /// What is wrong.
        problem: String,
    },
    /// The delegate's name cannot be one.
    #[error("invalid plugin name in ipam.type: {0:?}")]
    DelegateName(String),
    /// `CNI_PATH` has no directories.
    #[error("no paths provided in CNI_PATH to look for plugin {0:?}")]
    NoPaths(String),
    /// The delegate is in none of the directories.
    #[error("failed to find plugin {plugin:?} in path [{path}]: is it installed?")]
    DelegateNotFound {
        /// `type` of the delegate.
        plugin: String,
        /// `CNI_PATH`.
        path: String,
    },
    /// The delegate cannot be started or waited for.
    #[error("cannot run plugin {}", file.display())]
    DelegateRun {
        /// Its executable.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The delegate failed without an error document.
    #[error("plugin {plugin:?} failed ({status}): {problem}")]
    DelegateFailed {
        /// `type` of the delegate.
        plugin: String,
        /// How it ended.
        status: String,
        /// What it printed, or that it printed nothing.
        problem: String,
    },
    /// The delegate failed and said why; passed on as it is.
    #[error("{0}")]
    Delegate(ErrorObject),
}

impl Error {
    /// The specification's code for this error.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::MissingEnvironment(_)
            | Self::UndecodableEnvironment(_)
            | Self::ContainerId(_)
            | Self::Ifname { .. }
            | Self::UnknownCommand(_)
            | Self::Args(_)
            | Self::NoPaths(_) => code::INVALID_ENVIRONMENT,
            Self::Stdin(_) | Self::Stdout(_) | Self::DelegateRun { .. } => code::IO_FAILURE,
            Self::Json { .. }
            | Self::Undecodable { .. }
            | Self::UnreadableVersion(_)
            | Self::DelegateResult { .. } => code::DECODING_FAILURE,
            Self::InvalidConfig { .. }
            | Self::MissingName
            | Self::Name(_)
            | Self::NoValidAttachments
            | Self::PrevResult(_)
            | Self::DelegateName(_)
            | Self::DelegateNotFound { .. }
            | Self::Convert { .. } => code::INVALID_CONFIG,
            Self::IncompatibleVersion { .. } | Self::VerbTooNew(_) | Self::ConfigTooNew(_) => {
                code::INCOMPATIBLE_VERSION
            }
            Self::DelegateFailed { .. } => code::INTERNAL,
            Self::Delegate(object) => object.code,
        }
    }

    fn details(&self) -> String {
        match self {
            Self::ContainerId(value) | Self::Name(value) => value.clone(),
            Self::Ifname { problem, .. } if problem.ends_with("too long") => {
                "interface name should be less than 16 characters".into()
            }
            Self::Ifname { ifname, .. } => ifname.clone(),
            Self::IncompatibleVersion { config, supported } => {
                let quoted: Vec<String> = supported.iter().map(|v| format!("\"{v}\"")).collect();
                format!("config is {config:?}, plugin supports [{}]", quoted.join(" "))
            }
            _ => String::new(),
        }
    }
}

impl From<Error> for ErrorObject {
    fn from(error: Error) -> Self {
        match error {
            Error::Delegate(object) => object,
            other => {
                let details = other.details();
                Self { details, ..Self::from_error(other.code(), &other) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delegates_error_passes_unchanged() {
        let object = ErrorObject { code: 123, msg: "no".into(), details: "why".into() };
        assert_eq!(ErrorObject::from(Error::Delegate(object.clone())), object);
        assert_eq!(ErrorObject::from_json(&object.to_json(Version::LATEST)), Some(object));
    }

    #[test]
    fn the_document_carries_its_version() {
        let object = ErrorObject::from(Error::MissingEnvironment(vec!["CNI_NETNS", "CNI_PATH"]));
        let document = object.to_json(Version::V0_4_0);
        assert_eq!(document["cniVersion"], "0.4.0");
        assert_eq!(document["code"], 4);
        assert_eq!(document["msg"], "required env variables [CNI_NETNS,CNI_PATH] missing");
        assert!(document.get("details").is_none());
    }

    #[test]
    fn versions_are_listed_as_the_reference_lists_them() {
        let error = Error::IncompatibleVersion {
            config: "9.9.9".into(),
            supported: &[Version::V0_1_0, Version::V1_1_0],
        };
        let object = ErrorObject::from(error);
        assert_eq!(object.details, "config is \"9.9.9\", plugin supports [\"0.1.0\" \"1.1.0\"]");
    }
}
