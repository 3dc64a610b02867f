//! What a folder's administrator is told.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Something about the manifests that their author should know. As long as it stands it is told
/// once.
#[derive(Debug, thiserror::Error)]
pub enum Report {
    /// The folder cannot be listed. What was read before stays.
    #[error("folder {}: cannot be listed: {source} (does it exist? what was read before stays)", dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder has more manifests than are read. What was read before stays.
    #[error("folder {}: more than {limit} manifests (several objects can share one; what was read before stays)", dir.display())]
    TooMany {
        /// The folder.
        dir: PathBuf,
        /// The most that are read.
        limit: usize,
    },
    /// Changes of the folder are not told by the kernel, so that they are found later.
    #[error("folder {}: cannot be watched: {source} (too many inotify watches? it is read every {seconds} s instead)", dir.display())]
    Watch {
        /// The folder.
        dir: PathBuf,
        /// How often it is read.
        seconds: u64,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}; {state}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What of it is in force.
        state: State,
        /// Why.
        source: io::Error,
    },
    /// Somebody is writing a file of which nothing is known, and so there is no first list.
    #[error("{}: somebody is writing it, and nothing is known of it: until that has ended{} all stays as it is", file.display(), .limit.map(|it| format!(", for {} s at most,", it.as_secs())).unwrap_or_default())]
    BeingWritten {
        /// The file.
        file: PathBuf,
        /// For how long that is waited for at most; `None`: for as long as it takes.
        limit: Option<Duration>,
    },
    /// Something in a file is wrong.
    #[error("{}: {defect}; {state}", file.display())]
    Bad {
        /// The file.
        file: PathBuf,
        /// What of it is in force.
        state: State,
        /// What and where.
        defect: Defect,
    },
    /// An object of a kind that is not needed.
    #[error(
        "{place}: {kind} is not needed and passed over, as are others of that kind in this file"
    )]
    OtherKind {
        /// Where the first of them is.
        place: Place,
        /// API version and kind.
        kind: String,
    },
    /// An object that another manifest has as well.
    #[error("{kind} {name}: {kept} and {ignored} have it; the first one counts")]
    Duplicate {
        /// Its kind.
        kind: &'static str,
        /// Its namespace and name.
        name: String,
        /// Where the one is that counts.
        kept: Place,
        /// Where the other one is.
        ignored: Place,
    },
}

impl Report {
    /// Whether objects may be there that could not be read.
    #[must_use]
    pub const fn hides_objects(&self) -> bool {
        match self {
            Self::Folder { .. } | Self::TooMany { .. } => true,
            Self::Unreadable { .. } | Self::BeingWritten { .. } | Self::Bad { .. } => true,
            Self::Watch { .. } | Self::OtherKind { .. } | Self::Duplicate { .. } => false,
        }
    }
}

/// What of a bad file is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// What it said when it was last good.
    LastGood,
    /// Nothing: it was never good, and came after the first list.
    Nothing,
    /// Nothing is known of it, and so there is no first list.
    Awaited,
    /// What can be read of it: it was never good.
    Rest,
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::LastGood => "what it said before stays in force",
            Self::Nothing => "nothing of this file is in force",
            Self::Rest => "what else this file says is in force",
            Self::Awaited => {
                "what it should say is not known: until it is good or gone, all stays as it is"
            }
        })
    }
}

/// A document of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The document in it: 1 is the first. Empty ones do not count.
    pub document: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} document {}", self.file.display(), self.document)
    }
}

/// What is wrong in a file, and where.
#[derive(Debug, thiserror::Error)]
#[error("document {document}: {}{problem}", .path.as_deref().map(|path| format!("{path}: ")).unwrap_or_default())]
pub struct Defect {
    /// The document: 1 is the first. Empty ones do not count.
    pub document: usize,
    /// The JSON path of the field, such as `spec.ingress[0].from`; `None`: all of the document.
    pub path: Option<String>,
    /// What is wrong there.
    pub problem: Problem,
}

/// What can be wrong in a file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It is not YAML, or more than its bounds allow.
    #[error("{0}")]
    Yaml(String),
    /// It is not JSON.
    #[error("{0}")]
    Json(#[source] serde_json::Error),
    /// A field has the wrong type, or is missing.
    #[error("{0}")]
    Type(#[source] serde_json::Error),
    /// A field that the kind does not have. It is not passed over: a misspelt `ports` would allow
    /// every port.
    #[error("there is no such field (is it misspelt?)")]
    UnknownField,
    /// The document is no object of Kubernetes.
    #[error("no object of Kubernetes: apiVersion and kind are needed")]
    NotAnObject,
    /// A kind that is read, in a version that is not, or misspelt.
    #[error("{found} is not read; {wanted} is")]
    Version {
        /// What it says.
        found: String,
        /// What it should say.
        wanted: String,
    },
    /// An object without a name.
    #[error("an object needs a name")]
    NameMissing,
    /// Lists in lists.
    #[error("lists are nested too deeply")]
    TooDeep,
    /// The file is too long.
    #[error("longer than {0} bytes")]
    TooLong(u64),
}
