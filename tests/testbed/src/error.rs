//! What can go wrong with a cluster.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;

/// What came of it, or why nothing did.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be used.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was tried, such as `write`.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} is damaged: what the cluster is made of is not known any more (end its processes, of which the first is `testbed --state ... supervise`, and delete the folder)", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The kernel refused.
    #[error("cannot {0} (root is needed, and a kernel with namespaces)")]
    Kernel(String, #[source] Errno),
    /// A program that is needed is not there.
    #[error("{} is missing: {remedy}", path.display())]
    Missing {
        /// Its file.
        path: PathBuf,
        /// How it comes there.
        remedy: &'static str,
    },
    /// A program could not be run.
    #[error(transparent)]
    Run(#[from] runner::Error),
    /// A program failed.
    #[error("{program} failed with {status}: {said}")]
    Failed {
        /// Its name and arguments.
        program: String,
        /// How it ended.
        status: String,
        /// What it complained.
        said: String,
    },
    /// What a program printed is not what was asked for.
    #[error("what {program} printed cannot be read")]
    Unreadable {
        /// Its name.
        program: &'static str,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The folder holds something else.
    #[error("{} is not a cluster's folder: it has {} in it, and all in it would be deleted", root.display(), name.display())]
    NotOurs {
        /// The folder.
        root: PathBuf,
        /// What is in it.
        name: PathBuf,
    },
    /// There is a cluster already.
    #[error("a cluster is up already, in {} (take it down first)", .0.display())]
    Up(PathBuf),
    /// Somebody else brings one up, or takes one down.
    #[error("another testbed is at work in {}", .0.display())]
    Busy(PathBuf),
    /// There is none.
    #[error("no cluster is up in {}", .0.display())]
    Down(PathBuf),
    /// A node is not there, or has no process.
    #[error("{0} does not run")]
    NoNode(String),
    /// Something did not come about in time.
    #[error("waited for {bound:?} in vain: {what}{}", last.as_deref().map(|it| format!("; at last: {it}")).unwrap_or_default())]
    InVain {
        /// What was to come.
        what: String,
        /// How long was waited.
        bound: Duration,
        /// What was seen instead.
        last: Option<String>,
    },
    /// There is no mounted hierarchy of control groups that could be used.
    #[error("this machine shows no control groups of version 1 below {}", .0.display())]
    NoControlGroups(PathBuf),
}

impl Error {
    /// The error, and below it each cause, in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }

    /// What became of a file, for `map_err`.
    pub fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source }
    }

    pub(crate) fn kernel(doing: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        let doing = doing.into();
        move |errno| Self::Kernel(doing, errno)
    }
}
