//! Asking the cluster as its administrator, by `kubectl` on the first node.

use std::time::Duration;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::inside::Node;

/// `kubectl` may take this long, and waits no longer itself.
const BOUND: Duration = Duration::from_secs(120);

/// `kubectl` on a node.
#[derive(Debug, Clone)]
pub struct Kubectl {
    node: Node,
}

impl Kubectl {
    /// That of this node.
    #[must_use]
    pub fn on(node: Node) -> Self {
        Self { node }
    }

    /// Runs it with these arguments.
    ///
    /// # Errors
    /// It fails; what it says is in the error.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        self.feed(arguments, &[])
    }

    /// Runs it with these arguments, and this for it to read.
    ///
    /// # Errors
    /// It fails; what it says is in the error.
    pub fn feed(&self, arguments: &[&str], stdin: &[u8]) -> Result<String> {
        let words = [&["kubectl", "--request-timeout=60s"], arguments].concat();
        let printed = self.node.run(&words, stdin, BOUND)?;
        Ok(String::from_utf8_lossy(&printed).into_owned())
    }

    /// What it prints as JSON.
    ///
    /// # Errors
    /// It fails, or prints something else.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let printed = self.run(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&printed)
            .map_err(|source| Error::Unreadable { program: "kubectl", source })
    }

    /// Creates objects, or changes them to what these manifests say.
    ///
    /// # Errors
    /// The API server refuses.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        self.feed(&["apply", "-f", "-"], manifests.as_bytes()).map(drop)
    }
}
