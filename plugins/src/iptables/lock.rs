//! The lock that orders podwire's own changes to the rules.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use runner::Lock;

use crate::error::{Error, warn};

/// The programs keep it until the last of them has ended, even when the plugin that started it was
/// killed: what DEL reads is final.
const LOCK: &str = "/run/podwire/iptables.lock";
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// Opens the lock, which the programs then take. Where it cannot even be opened (no `/run`, no right
/// to it) rules are made without: it only orders calls that follow a killed one.
pub(crate) fn open() -> Option<Lock> {
    let path = Path::new(LOCK);
    // The open after it tells why, should there be no folder.
    let _ = path.parent().map(|folder| DirBuilder::new().mode(0o755).create(folder));
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true).mode(0o600);
    match options.open(path) {
        Ok(file) => Some(Lock::new(file, path, LOCK_TIMEOUT)),
        Err(error) => {
            warn(&format!("cannot open {LOCK}, going on without it: {error}"));
            None
        }
    }
}

/// Opens the lock and takes it.
pub(crate) fn take() -> Result<Option<Lock>, Error> {
    let lock = open();
    lock.as_ref().map_or(Ok(()), Lock::acquire).map_err(Error::Lock)?;
    Ok(lock)
}
