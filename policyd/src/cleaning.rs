//! `policyd cleanup`: taking away what is ours of a node.

use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::pin::pin;

use cluster::{start_log, told_to_end};
use policyd::dataplane::{Kind, Programs};
use policyd::{chained, closed, frames, ingress, masquerade, node_network};
use runner::OsRunner;
use tokio::time::sleep;

use crate::alone::{self, Held};
use crate::cli::{Cleanup, Run};
use crate::run::{Failure, dataplane, programs};

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
    let mut failed = Failed::default();
    // New pods first: none may come to a node without the rest.
    if all {
        failed.note(options.network.conf_dir().remove_all());
        let (removed, errors) = chained::remove(Programs::new(OsRunner, "-legacy"));
        if !removed.is_nothing() {
            tracing::info!(
                "removed what plugins keep for pods, of those that run as well: {removed}"
            );
        }
        errors.into_iter().for_each(|error| failed.note(Err(error)));
    }
    for kind in Kind::ALL {
        failed.note(masquerade::remove(kind, &mut programs.clone()));
    }
    failed.note(frames::remove());
    failed.note(node_network::remove(&mut programs.clone()));
    for kind in Kind::ALL {
        failed.note(dataplane(kind, options, programs.clone()).clean_up());
    }
    failed.note(closed::remove());
    failed.note(ingress::remove());
    // What policyd was told of pods stays for as long as rules do.
    if all && failed.0.is_empty() {
        failed.note(alone::remove_files(&options.run_dir));
    }
    failed.told()
}

/// What could not be removed.
#[derive(Debug, Default)]
struct Failed(Vec<String>);

impl Failed {
    fn note(&mut self, done: Result<(), impl Error>) {
        self.0.extend(done.err().map(|error| policyd::chain(&error)));
    }

    fn told(self) -> Result<(), Failure> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0.join("; ").into()) }
    }
}
