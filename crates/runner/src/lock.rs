//! A lock under which programs act, or we do alone.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flock::Mode;

use crate::Error;

/// A lock file: open, and locked from the first [`Lock::acquire`] on for as long as this and the
/// programs live that were started with it.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
    wait: Duration,
}

impl Lock {
    /// The lock of `file`, opened from `path`, for which is waited so long at most.
    #[must_use]
    pub fn new(file: File, path: &Path, wait: Duration) -> Self {
        Self { file, path: path.to_owned(), wait }
    }

    /// Takes the lock, unless it is held already.
    ///
    /// # Errors
    /// [`Error::LockTimeout`], [`Error::Lock`].
    pub fn acquire(&self) -> Result<(), Error> {
        let failed = |source| Error::Lock { lock: self.path.clone(), source };
        // The lock belongs to what both have opened, not to the descriptor.
        let same = self.file.try_clone().map_err(failed)?;
        match flock::acquire(same, Mode::Exclusive, self.wait) {
            Ok(_) => Ok(()),
            Err(flock::Error::Timeout(waited)) => {
                Err(Error::LockTimeout { lock: self.path.clone(), waited })
            }
            Err(flock::Error::Io(source)) => Err(failed(source)),
        }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
