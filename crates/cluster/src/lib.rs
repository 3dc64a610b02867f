//! What every daemon needs: objects of the API server or of a folder, health checks, a log, and an end.
//!
//! [`connect`] makes a client, from the pod's service account or from a kubeconfig file. [`Watch`]
//! tells all objects of a kind, and then how they change, without a gap. Full objects are not kept.

use std::time::Duration;

mod backoff;
mod client;
mod duration;
mod error;
pub mod folder;
pub mod health;
mod listener;
mod name;
mod page;
mod part;
mod process;
mod terminal;
mod watch;
mod worker;

pub use client::{Object, connect, create, delete, get, patch};
pub use duration::parse_duration;
pub use error::{Attempt, Error};
pub use kube::Client;
pub use listener::Listener;
pub use name::NamespacedName;
pub use part::{Metadata, Moment, NodePart, Part, or_default};
pub use process::{LogFormat, node_name, start_log, told_to_end};
pub use terminal::{Explained, complain, exit_code, print};
pub use watch::{Change, Watch, forward};
pub use worker::Worker;

/// An answer may take this long, and so may the next object of a list.
const ANSWER: Duration = Duration::from_secs(60);

/// An error and what led to it, in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn causes_follow_in_one_line() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);
        assert_eq!(chain(&Outer(io::Error::other("inner"))), "outer: inner");
    }
}
