//! The node's network beside the enforcement of policy.

use std::sync::Arc;
use std::thread;

use cluster::{LogFormat, start_log};
use policyd::agent::Status;
use policyd::chain;
use policyd::dataplane::Programs;
use policyd::node_network::{self, Members};
use runner::OsRunner;
use tokio::sync::watch;

use crate::cli::{IpFamily, NodeNetwork};
use crate::run::{Failure, LEFT_OVER};

/// Has the node forward packets of these families.
pub(crate) fn enable_forwarding(families: &[IpFamily]) -> Result<(), Failure> {
    start_log(LogFormat::Text);
    let wanted = [IpFamily::Ipv4, IpFamily::Ipv6].map(|family| families.contains(&family));
    let was_off = node_network::enable_forwarding(wanted)?;
    tracing::info!(
        "{}",
        if was_off {
            "the node forwards packets from now on"
        } else {
            "the node forwards packets already"
        }
    );
    Ok(())
}

/// Keeps the network until the process ends, and what it made after that; or, where it is not asked
/// for, removes what is left from when it was.
pub(crate) fn start(
    options: &NodeNetwork,
    node: &str,
    programs: Programs<OsRunner>,
    members: watch::Receiver<Option<Arc<Members>>>,
    status: &Arc<Status>,
) -> std::io::Result<()> {
    if options.node_network {
        let keeper = options.keeper(node.to_owned(), programs);
        // Before policies can make policyd ready.
        status.set_network(Some("not all nodes are known yet".to_owned()));
        tokio::spawn(node_network::run(keeper, members, Arc::clone(status)));
        return Ok(());
    }
    let mut programs = programs;
    let remove = move || {
        thread::sleep(LEFT_OVER);
        match node_network::remove_left_over(&mut programs) {
            Ok(false) => {}
            Ok(true) => tracing::info!("removed the node's network of an earlier run"),
            Err(error) => tracing::warn!("the node's network may be left: {}", chain(&error)),
        }
    };
    thread::Builder::new().name("network".to_owned()).spawn(remove).map(drop)
}
