//! One policyd writes for a node at a time: a second would take over the socket, and each would undo
//! what the other writes.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use policyd::agent::{Readiness, Status};
use tokio::time::sleep;

/// The file, in the run folder, that is locked by who writes.
const LOCK: &str = "policyd.lock";
/// How often it is looked whether the other has ended.
const PAUSE: Duration = Duration::from_millis(200);

/// Why it cannot be said whether another runs.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {} (is the host's folder mounted, and writable? see --run-dir)", path.display())]
pub(crate) struct Error {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Whether a policyd runs that has this folder.
pub(crate) fn is_taken(run_dir: &Path) -> bool {
    let opened = lock_options().open(run_dir.join(LOCK));
    opened.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

fn lock_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    // A pipe would be waited for.
    options.write(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits());
    options
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error { what, path, source }
}

/// Waits until no other policyd has this folder; it is ours for as long as the file is open, however
/// this process ends.
pub(crate) async fn wait(run_dir: &Path, status: &Status) -> Result<File, Error> {
    let path = run_dir.join(LOCK);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(run_dir)
        .map_err(failed("make", run_dir))?;
    let mut options = lock_options();
    let file = options
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed("open", &path))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
            Err(TryLockError::WouldBlock) => {}
        }
        let holder = path.display();
        status.set_unready(Readiness::Failing(format!(
            "another policyd runs on this node, and holds {holder}: this one waits for its end"
        )));
        status.beat();
        sleep(PAUSE).await;
    }
}
