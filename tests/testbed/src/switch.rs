//! Nodes that are switched off, and on again.

use std::fs;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::inside::Node;
use crate::process::wait_until;
use crate::settings::node_name;
use crate::state::{State, write};

/// A node's processes end within moments, and a node is back within seconds; on a busy machine
/// somewhat later.
const BOUND: Duration = Duration::from_secs(60);

/// A program on a node that tells whether containerd is there.
const ASK: [&str; 3] = ["ctr", "--timeout=5s", "version"];

/// Ends all that runs on a node at once, as when its power fails. It stays off until [`on`], and
/// keeps its files.
///
/// # Errors
/// It does not run, or does not end.
pub fn off(state: &State, number: u8) -> Result<()> {
    let (_, supervisor) = state.running()?;
    let node = Node::find(supervisor, number)?;
    write(&state.off_mark(number), "")?;
    node.init().end(BOUND)
}

/// Starts a node that is off, and waits until containerd is there.
///
/// # Errors
/// It is not there in time.
pub fn on(state: &State, number: u8) -> Result<()> {
    let mark = state.off_mark(number);
    fs::remove_file(&mark).map_err(Error::file("remove", mark))?;
    let (_, supervisor) = state.running()?;
    let what = || format!("containerd of {}", node_name(number));
    wait_until(BOUND, what, || Node::find(supervisor, number)?.run(&ASK, &[], BOUND).map(Some))
        .map(drop)
}
