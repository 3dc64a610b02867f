//! The links between nodes, and what is outside. All of it is in the namespaces of the supervisor and
//! of the nodes.

use std::time::Duration;

use runner::{OsRunner, Program, Runner};

use crate::error::{Error, Result};
use crate::settings::{Family, node_name};

/// The bridge that joins the nodes.
const BRIDGE: &str = "nodes";

/// `ip` takes milliseconds; on a busy machine somewhat more.
const BOUND: Duration = Duration::from_secs(30);

/// Makes the bridge, in the namespace of the caller, and the addresses of whoever is outside.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn make_world(family: Family) -> Result<()> {
    let mut lines = vec![
        "link set lo up".to_owned(),
        format!("link add {BRIDGE} type bridge"),
        format!("link set {BRIDGE} up"),
    ];
    for ranges in family.ranges() {
        lines.push(format!(
            "address add {} dev {BRIDGE}{}",
            ranges.gateway_with_mask(),
            at_once(ranges.world)
        ));
        lines.push(format!("address add {} dev lo", ranges.world));
    }
    ip(&lines)
}

/// Joins a node, by its first process, with the others.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn join(number: u8, process: i32) -> Result<()> {
    let name = node_name(number);
    // That of a node that ended may be there for a moment longer than the node.
    let _ = ip(&[format!("link delete {name}")]);
    ip(&[
        format!("link add {name} type veth peer name eth0 netns {process}"),
        format!("link set {name} master {BRIDGE}"),
        format!("link set {name} up"),
    ])
}

/// Gives a node its addresses, in the namespace of the caller.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn set_up_node(family: Family, number: u8) -> Result<()> {
    let mut lines = vec!["link set lo up".to_owned(), "link set eth0 up".to_owned()];
    for ranges in family.ranges() {
        let (address, way) = (ranges.node_with_mask(number), ranges.gateway());
        lines.push(format!("address add {address} dev eth0{}", at_once(&address)));
        lines.push(format!("route add {} via {way}", ranges.everything));
    }
    ip(&lines)
}

/// Nobody else has the address, so that it need not be asked for.
fn at_once(address: &str) -> &'static str {
    if address.contains(':') { " nodad" } else { "" }
}

/// Runs lines of `ip`, all or the first ones.
fn ip(lines: &[String]) -> Result<()> {
    let stdin = lines.join("\n");
    let program = Program {
        file: "ip".into(),
        args: &["-batch", "-"],
        stdin: stdin.as_bytes(),
        timeout: Some(BOUND),
        ..Program::default()
    };
    let output = OsRunner.run(&program)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Failed {
        program: format!("ip -batch ({})", lines.join("; ")),
        status: output.status.to_string(),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
