//! What goes wrong between the plugin and policyd.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why there is no answer, or no file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens, or who listened has gone without an answer.
    #[error("policyd does not answer at {} (is it running?)", socket.display())]
    Away {
        /// Its socket.
        socket: PathBuf,
        /// What connecting, or the connection, ended with.
        #[source]
        source: io::Error,
    },
    /// The answer did not come in time.
    #[error("policyd did not answer within {} ms (is the node overloaded?)", .0.as_millis())]
    Late(Duration),
    /// A document is not one of the protocol.
    #[error("cannot decode {what}")]
    Json {
        /// Which document.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A document decodes, but is not to be used.
    #[error("cannot use {what}: {problem}")]
    Invalid {
        /// Which document.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A file, or the folder of all, cannot be used.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The folder is locked by somebody who does not give it back.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: flock::Error,
    },
    /// A file holds no attachment.
    #[error("{} holds no attachment", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<Self>,
    },
}
