//! What can go wrong with a virtual machine and its tests.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

/// What came of it, or why nothing did.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file or folder cannot be used.
    #[error("cannot {doing} {}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The kernel refused.
    #[error("cannot {0}")]
    Kernel(String, #[source] Errno),
    /// A program could not be run.
    #[error(transparent)]
    Run(#[from] runner::Error),
    /// A program failed.
    #[error("{program} failed with {status}: {said}")]
    Failed { program: String, status: String, said: String },
    /// What was written for the virtual machine, or by cargo, is something else.
    #[error("{what} cannot be read (was it written by this version?)")]
    Unreadable {
        what: String,
        #[source]
        source: serde_json::Error,
    },
    /// The folder of a kernel is not what it should be.
    #[error("no kernel in {} (scripts/kernels puts it there): {why}", folder.display())]
    NoKernel { folder: PathBuf, why: String },
    /// A module that the virtual machine cannot do without.
    #[error(
        "the kernel {kernel} has no module {module}, built in or in its folder (scripts/kernels chooses what is unpacked)"
    )]
    NoModule { kernel: String, module: String },
    /// A kernel has built in what a lane is to be without.
    #[error("the kernel {kernel} has {module} built in: it cannot be left out")]
    BuiltIn { kernel: String, module: String },
    /// A suite of the table was not built.
    #[error("cargo built no test {0} (is it in the table under its old name?)")]
    NotBuilt(String),
    /// A binary tells of no tests.
    #[error("{0} lists no tests")]
    NoTests(String),
    /// Part of the table is about nothing.
    #[error("the table names tests of {suite} that are not there: {names:?}")]
    Unmatched { suite: String, names: Vec<String> },
    /// Tests that would never run, or that the table says nothing true of.
    #[error(
        "the table must say of {0:?} where they run, or why they do not (`LEFT_OUT`), and not both"
    )]
    Untold(Vec<String>),
    /// No suite has such a name.
    #[error("no suite of the table has {0:?} in its name")]
    NoSuite(String),
    /// No test has such a name.
    #[error("no test of these suites has {0:?} in its name")]
    NoTest(String),
    /// In the virtual machine something is not as the lane promises.
    #[error("{0}")]
    Broken(String),
}

impl Error {
    /// The error, and below it each cause, in one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }

    pub(crate) fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source }
    }

    pub(crate) fn kernel(doing: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        let doing = doing.into();
        move |errno| Self::Kernel(doing, errno)
    }
}
