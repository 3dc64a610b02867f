//! `policyd cleanup`: taking away what is ours of a node.

use std::fs::File;
use std::path::Path;
use std::pin::pin;

use policyd::dataplane::Kind;
use policyd::{closed, frames, ingress, masquerade, node_network};
use tokio::time::sleep;

use crate::alone::{self, Held};
use crate::cli::{Cleanup, Run};
use crate::run::{Failure, dataplane, programs, start_log, told_to_end};

/// Removes everything of ours from the kernel, and with `all` from the node's files.
pub(crate) fn run(options: &Run, cleanup: Cleanup) -> Result<(), Failure> {
    start_log(options.log_format);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut end = pin!(told_to_end()?);
        let lock = tokio::select! {
            lock = nobody_else(&options.run_dir, cleanup.wait) => lock?,
            () = &mut end => return Err("told to end while policyd runs: nothing was removed".into()),
        };
        clean(options, cleanup.all)?;
        drop(lock);
        if cleanup.stay {
            tracing::info!("nothing of policyd's is left on this node");
            end.await;
        }
        Ok(())
    })
}

/// Keeps policyd from being started meanwhile: what is removed would be written again.
async fn nobody_else(run_dir: &Path, waits: bool) -> Result<Option<File>, Failure> {
    let mut is_told = false;
    loop {
        match alone::hold(run_dir) {
            Err(Held::Taken) if waits => {}
            held => return Ok(held?),
        }
        if !is_told {
            tracing::info!("policyd is running: waiting for its end");
            is_told = true;
        }
        sleep(alone::PAUSE).await;
    }
}

/// All is tried, whatever becomes of the rest.
fn clean(options: &Run, all: bool) -> Result<(), Failure> {
    let programs = programs();
    // New pods first: none may come to a node without the rest.
    let list = if all { options.network.conf_dir().remove_all() } else { Ok(()) };
    let masquerading = Kind::ALL.map(|it| masquerade::remove(it, &mut programs.clone()));
    let frames = frames::remove();
    let network = node_network::remove(&mut programs.clone());
    let cleaned = Kind::ALL.map(|it| dataplane(it, options, programs.clone()).clean_up());
    let (interfaces, sources) = (closed::remove(), ingress::remove());
    cleaned.into_iter().try_for_each(|it| it)?;
    interfaces?;
    sources?;
    frames?;
    masquerading.into_iter().try_for_each(|it| it)?;
    network?;
    list?;
    if all {
        alone::remove_files(&options.run_dir)?;
    }
    Ok(())
}
