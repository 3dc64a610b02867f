//! One policyd writes for a node at a time: a second would take over the socket, and each would undo
//! what the other writes.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use policyd::agent::{Readiness, Status};
use tokio::time::sleep;

/// The file, in the run folder, that is locked by who writes.
const LOCK: &str = "policyd.lock";
/// The socket that the CNI plugin calls ...
pub(crate) const SOCKET: &str = "policyd.sock";
/// ... the folder of what it told ...
pub(crate) const ATTACHMENTS: &str = "attachments";
/// ... and the file that shows it that policyd is there.
pub(crate) const ALIVE: &str = "policyd.alive";
/// By this file plugins run the programs of iptables one at a time (`plugins/src/iptables/lock.rs`).
const PLUGINS_LOCK: &str = "iptables.lock";
/// How often it is looked whether the other has ended.
pub(crate) const PAUSE: Duration = Duration::from_millis(200);

/// Why it cannot be said whether another runs.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {} (is the host's folder mounted, and writable? see --run-dir)", path.display())]
pub(crate) struct Error {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Keeps policyd from writing for as long as the file is open; `None` where there is no file to lock,
/// as none ran since the node was started.
pub(crate) fn hold(run_dir: &Path) -> Result<Option<File>, Held> {
    let path = run_dir.join(LOCK);
    loop {
        // A lock needs no right to write.
        let file = match lock_options().read(true).write(false).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed("open", &path))?,
        };
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(Held::Taken),
            Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source).into()),
            // Another `cleanup` has removed it meanwhile.
            Ok(()) if !is_at(&file, &path) => {}
            Ok(()) => return Ok(Some(file)),
        }
    }
}

/// Why policyd cannot be kept from writing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Held {
    /// It runs, and has the folder.
    #[error(
        "policyd is running: what is removed would be written again, and be open meanwhile (end it first, on this node)"
    )]
    Taken,
    /// It cannot be said.
    #[error(transparent)]
    Unknown(#[from] Error),
}

/// Removes what is kept in the folder, and the folder if nothing else is there.
pub(crate) fn remove_files(run_dir: &Path) -> Result<(), Error> {
    let gone = |path: &Path, removed: io::Result<()>| match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    };
    let attachments = run_dir.join(ATTACHMENTS);
    gone(&attachments, fs::remove_dir_all(&attachments))?;
    // The lock last: as long as it is there, it keeps policyd out.
    for name in [SOCKET, ALIVE, PLUGINS_LOCK, LOCK] {
        let file = run_dir.join(name);
        gone(&file, fs::remove_file(&file))?;
    }
    // It stays where it holds files of others, and where it is the mount of a container.
    let _ = fs::remove_dir(run_dir);
    Ok(())
}

/// A pipe would be waited for.
fn lock_options() -> OpenOptions {
    let mut options = OpenOptions::new();
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
    loop {
        let file = open(run_dir, &path)?;
        match file.try_lock() {
            // Of a file that `cleanup` has removed meanwhile nobody else would know.
            Ok(()) if !is_at(&file, &path) => continue,
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

fn open(run_dir: &Path, path: &Path) -> Result<File, Error> {
    let mut folder = DirBuilder::new();
    folder.recursive(true).mode(0o700).create(run_dir).map_err(failed("make", run_dir))?;
    let mut options = lock_options();
    options.create(true).truncate(false).mode(0o600).open(path).map_err(failed("open", path))
}

/// Whether the path still leads to the file.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_for_a_lock_that_is_removed_takes_the_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let run_dir = folder.path().join("podwire");
        let status = Status::new(policyd::metrics::Metrics::new());
        assert!(hold(&run_dir).unwrap().is_none());
        let first = wait(&run_dir, &status).await.unwrap();
        assert!(matches!(hold(&run_dir), Err(Held::Taken)));
        let waiting = wait(&run_dir, &status);
        let removed = async {
            sleep(Duration::from_millis(1)).await;
            remove_files(&run_dir).unwrap();
            assert!(!run_dir.exists());
            drop(first);
        };
        let (second, ()) = tokio::join!(waiting, removed);
        let second = second.unwrap();
        assert!(is_at(&second, &run_dir.join(LOCK)));
        assert!(matches!(hold(&run_dir), Err(Held::Taken)));
    }

    #[test]
    fn files_of_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(ATTACHMENTS)).unwrap();
        for name in ["attachments/a", SOCKET, ALIVE, PLUGINS_LOCK, LOCK, "notes"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        remove_files(folder.path()).unwrap();
        let left = fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name());
        assert_eq!(left.collect::<Vec<_>>(), ["notes"]);
    }
}
