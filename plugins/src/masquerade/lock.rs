//! The lock that orders podwire's own changes to the rules.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::{Error, warn};

/// The programs inherit it, so that it is held until the last of them has ended, even when the
/// plugin that started it was killed: what DEL reads is final.
const LOCK: &str = "/run/podwire/iptables.lock";
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest pause between two tries for the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(2);

/// Takes the lock. Where it cannot even be opened (no `/run`, no right to it) rules are made
/// without: it only orders calls that follow a killed one.
pub(super) fn take() -> Result<Option<File>, Error> {
    let path = Path::new(LOCK);
    // The open after it tells why, should there be no folder.
    let _ = path.parent().map(|folder| DirBuilder::new().mode(0o755).create(folder));
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true).mode(0o600);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) => {
            warn(&format!("cannot open {LOCK}, going on without it: {error}"));
            return Ok(None);
        }
    };
    let deadline = Instant::now() + LOCK_TIMEOUT;
    let mut pause = Duration::from_micros(50);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(pause),
            Err(_) => {
                let seconds = LOCK_TIMEOUT.as_secs();
                return Err(Error::LockTimeout { lock: LOCK.into(), seconds });
            }
        }
        pause = (pause * 2).min(LOCK_PAUSE);
    }
}
