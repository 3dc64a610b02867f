//! Nodes that are switched off, and on again.

use std::fs;
use std::time::Duration;

use crate::bring_up;
use crate::error::{Error, Result};
use crate::inside::Node;
use crate::process::wait_until;
use crate::settings::node_name;
use crate::state::{State, make_folder, remove_folder, write};

/// A node's processes end within moments, and a node is back within seconds; on a busy machine
/// somewhat later.
const BOUND: Duration = Duration::from_secs(60);

/// Which images a node has, if containerd is there.
const LIST: [&str; 7] = ["ctr", "--timeout=5s", "-n", "k8s.io", "images", "list", "--quiet"];

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

/// Takes all from a node that is off but what the testbed itself put there: it will be a new machine
/// of that name.
///
/// # Errors
/// A folder cannot be written.
pub fn renew(state: &State, number: u8) -> Result<()> {
    let home = state.node(number);
    remove_folder(&home.join("lib"))?;
    for folder in ["etc/cni", "opt/cni"] {
        remove_folder(&home.join(folder))?;
    }
    make_folder(&home.join("lib/testbed"))
}

/// Starts a node that is off, and waits until containerd is there and has all images.
///
/// # Errors
/// It is not there in time.
pub fn on(state: &State, number: u8) -> Result<()> {
    let mark = state.off_mark(number);
    fs::remove_file(&mark).map_err(Error::file("remove", mark))?;
    let (_, supervisor) = state.running()?;
    let what = || format!("containerd of {}", node_name(number));
    let (node, images) = wait_until(BOUND, what, || {
        let node = Node::find(supervisor, number)?;
        let images = node.run(&LIST, &[], BOUND)?;
        Ok(Some((node, images)))
    })?;
    if images.is_empty() { bring_up::import(&node, number) } else { Ok(()) }
}
