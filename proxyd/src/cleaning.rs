//! `proxyd cleanup`: taking services out of the kernel.

use std::pin::pin;

use cluster::{start_log, told_to_end};
use proxyd::dataplane::Dataplane;
use proxyd::localhost;
use proxyd::nftables::Settings;

use crate::alone::{Alone, SIGN};
use crate::cli::{Cleanup, Run};
use crate::run::Failure;

/// Removes all services from the kernel.
pub(crate) fn run(run: &Run, options: Cleanup) -> Result<(), Failure> {
    start_log(run.log_format.into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut end = pin!(told_to_end()?);
        // What is removed would be written again.
        let _alone = tokio::select! {
            alone = nobody_else(options.wait) => alone?,
            () = &mut end => return Err("told to end while proxyd runs: nothing was removed".into()),
        };
        let mut dataplane = Dataplane::open(&Settings::default(), &[])?;
        // While that cannot be, what guards it stays, and so does the rest.
        if dataplane.guards_localhost()? {
            localhost::route(&run.proc_sys_net, false)?;
        }
        dataplane.remove()?;
        if options.stay {
            tracing::info!("nothing of proxyd's is left on this node");
            end.await;
        }
        Ok(())
    })
}

async fn nobody_else(waits: bool) -> Result<Alone, Failure> {
    if let Some(alone) = Alone::now()? {
        return Ok(alone);
    }
    if !waits {
        return Err(format!("proxyd runs on this node ({SIGN}): what is removed would be written again (end it first)").into());
    }
    tracing::info!("proxyd is running: waiting for its end");
    Ok(Alone::later(|| {}).await?)
}
