//! What can fail between a daemon and the API server.

use std::error::Error as _;
use std::path::PathBuf;

use kube::config::{InClusterError, KubeconfigError};

use crate::watch::is_unreadable;

/// What can fail between a daemon and the API server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pod's own account cannot be read.
    #[error(
        "cannot find the API server: {source} (in a cluster the pod's service account tells it; elsewhere a kubeconfig file is needed)"
    )]
    InCluster {
        /// Why.
        source: InClusterError,
    },
    /// A kubeconfig file that cannot be used.
    #[error("kubeconfig {}: {source} (does its current-context exist, and can the files that it names be read?)", file.display())]
    Kubeconfig {
        /// The file.
        file: PathBuf,
        /// Why.
        source: KubeconfigError,
    },
    /// No client can be made of what the configuration says.
    #[error(
        "cannot prepare a client of the API server: {} (are its certificates, keys and tokens good, and is there no proxy?)",
        text(source)
    )]
    Client {
        /// Why.
        source: Box<kube::Error>,
    },
    /// The API server refused a request, or could not be asked.
    #[error("{attempt} {objects}: {} ({})", text(source), cause(source))]
    Request {
        /// What was attempted.
        attempt: Attempt,
        /// With which objects, such as `pods`.
        objects: String,
        /// Why it failed.
        source: Box<kube::Error>,
    },
    /// The API server said nothing for too long.
    #[error(
        "{attempt} {objects}: no answer for {seconds} s (is the API server overloaded, or the network between broken?)"
    )]
    Silence {
        /// What was attempted.
        attempt: Attempt,
        /// With which objects, such as `pods`.
        objects: String,
        /// For how long.
        seconds: u64,
    },
    /// A watch ended as soon as it was begun.
    #[error("watching {objects}: the watch ends at once (is a proxy in front of the API server?)")]
    EndsAtOnce {
        /// Which objects, such as `pods`.
        objects: String,
    },
    /// A list or an object came without the version that a watch begins at.
    #[error("{attempt} {objects}: the answer has no resourceVersion (is this an API server?)")]
    NoVersion {
        /// What was attempted.
        attempt: Attempt,
        /// With which objects, such as `pods`.
        objects: String,
    },
}

/// What was attempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// Listing all objects of a kind.
    List,
    /// Watching them.
    Watch,
    /// Getting one.
    Get,
    /// Creating one.
    Create,
    /// Changing one.
    Patch,
    /// Deleting one.
    Delete,
}

impl std::fmt::Display for Attempt {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::List => "listing",
            Self::Watch => "watching",
            Self::Get => "getting",
            Self::Create => "creating",
            Self::Patch => "changing",
            Self::Delete => "deleting",
        })
    }
}

impl Error {
    /// The error of a request.
    #[must_use]
    pub fn request(attempt: Attempt, objects: impl Into<String>, source: kube::Error) -> Self {
        Self::Request { attempt, objects: objects.into(), source: Box::new(source) }
    }
}

/// What is refused may be answered by a proxy's page of any length, and that every few seconds.
const LONGEST_MESSAGE: usize = 1000;

/// The beginning of a long text.
fn excerpt(text: &str) -> String {
    match text.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => {
            let beginning = text.get(..end).unwrap_or_default();
            format!("{beginning}... ({} bytes in all)", text.len())
        }
        None => text.to_owned(),
    }
}

/// The server's own message, or the whole chain of what went wrong on the way to it.
fn text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.message.is_empty() => {
            return format!("status {}", status.code);
        }
        kube::Error::Api(status) => return excerpt(&status.message),
        kube::Error::SerdeError(source) => return format!("an object cannot be read: {source}"),
        _ => {}
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        // Some errors of kube repeat their source.
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}

/// The likely cause.
fn cause(error: &kube::Error) -> &'static str {
    match error {
        _ if is_unreadable(error) => "is the API server newer than this program knows?",
        kube::Error::Api(status) => match status.code {
            401 => "has the token expired, or is it another cluster's?",
            403 => "does the ClusterRole of this account allow that verb for that resource?",
            404 => "does this API server serve that kind?",
            429 | 503 | 504 => "is the API server overloaded, or just starting?",
            _ => "the API server's log may say more",
        },
        kube::Error::Auth(_) => "can the token or the key be read?",
        _ => "is the API server running, and reachable from this node?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_page_only_the_beginning_is_told() {
        let page = "\u{e9}".repeat(100_000);
        let refusal = kube::core::Status::failure(&page, "").with_code(503).boxed();
        let text = text(&kube::Error::Api(refusal));
        assert!(text.starts_with("\u{e9}\u{e9}") && text.len() < 2100, "{}", text.len());
        assert!(text.ends_with("... (200000 bytes in all)"));
        assert_eq!(excerpt("no"), "no");
    }
}
