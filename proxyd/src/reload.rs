//! kube-proxy's configuration file while proxyd runs. It is read at the start, as most of what it says shapes all that follows: where it
//! says something else, proxyd ends and is started again, as kube-proxy.

use std::fs;
use std::future::pending;
use std::path::PathBuf;
use std::time::Duration;

use proxyd::config_file;
use tokio::time::sleep;

use crate::cli::Run;
use crate::options::Options;

/// How often it is looked at.
const PAUSE: Duration = Duration::from_secs(2);

/// Why proxyd ends.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} says something else than at the start: proxyd ends, to be started again (by the kubelet, or whoever else has started it), and services stay as they are",
    .0.display()
)]
pub(crate) struct Changed(PathBuf);

/// Waits until the file says something else by which other options hold than these, which it and the flags came to at the
/// start. One that is wrong, or not there, changes nothing, and is told.
pub(crate) async fn changed(flags: &Run, options: &Options) -> Changed {
    let Some(file) = &flags.config else { return pending().await };
    let mut last = None;
    loop {
        let text = fs::read_to_string(file).map_err(|error| error.kind());
        if last.as_ref() != Some(&text) {
            let read = config_file::read(file);
            match read.map(|it| Options::of(flags.clone(), it.config)) {
                Ok(now) if now != *options => return Changed(file.clone()),
                Ok(_) if last.is_some() => {
                    tracing::info!("{} was changed, but nothing that is of use", file.display());
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(
                    "{}; what it said at the start goes on to hold",
                    cluster::chain(&error)
                ),
            }
            last = Some(text);
        }
        sleep(PAUSE).await;
    }
}
