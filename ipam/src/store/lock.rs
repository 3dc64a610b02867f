//! The network's lock, with an end to the waiting.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::Error;

/// How the lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Alone, for changes.
    Exclusive,
    /// Together with other readers.
    Shared,
}

/// Takes the flock on `file`, opened from `path`; closing what is returned gives it back.
///
/// Waiting is done by a thread that blocks in `flock`, because the kernel serves blocked waiters in
/// their order and passes over those who poll: beside eight processes that block and hold the lock
/// for 3 ms each, a polling call waited up to 10 s and a blocking one up to 0.2 s. Without
/// contention there is no thread.
///
/// # Errors
/// [`Error::LockTimeout`] after `wait`; [`Error::Io`] when the file system has no locks.
pub(super) fn acquire(file: File, path: &Path, mode: Mode, wait: Duration) -> Result<File, Error> {
    let tried = match mode {
        Mode::Exclusive => file.try_lock(),
        Mode::Shared => file.try_lock_shared(),
    };
    match tried {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
        Err(TryLockError::Error(error)) => return Err(Error::io("lock", path)(error)),
    }
    let (sender, receiver) = mpsc::channel();
    // When the waiting has ended before the lock comes, nobody receives the file: it is dropped by
    // the thread, and the lock with it.
    let waiter = move || drop(sender.send(block(&file, mode).map(|()| file)));
    thread::Builder::new()
        .stack_size(64 * 1024)
        .spawn(waiter)
        .map_err(Error::io("wait for", path))?;
    match receiver.recv_timeout(wait) {
        Ok(outcome) => outcome.map_err(Error::io("lock", path)),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            Err(Error::LockTimeout { path: path.to_owned(), waited: wait })
        }
    }
}

fn block(file: &File, mode: Mode) -> io::Result<()> {
    loop {
        let locked = match mode {
            Mode::Exclusive => file.lock(),
            Mode::Shared => file.lock_shared(),
        };
        match locked {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn open(path: &Path) -> File {
        File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
    }

    #[test]
    fn waiting_ends_with_the_lock_or_with_the_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let wait = Duration::from_millis(50);
        let held = acquire(open(&path), &path, Mode::Exclusive, wait).unwrap();
        let begin = Instant::now();
        let error = acquire(open(&path), &path, Mode::Exclusive, wait).unwrap_err();
        assert!(begin.elapsed() >= wait);
        assert_eq!(error.code(), 11);
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");

        let freed = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            drop(held);
        });
        // The waiter that gave up must not keep the lock when it gets it.
        drop(acquire(open(&path), &path, Mode::Exclusive, Duration::from_secs(5)).unwrap());
        drop(acquire(open(&path), &path, Mode::Exclusive, Duration::from_secs(5)).unwrap());
        freed.join().unwrap();
    }

    #[test]
    fn readers_share_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let wait = Duration::from_millis(20);
        let one = acquire(open(&path), &path, Mode::Shared, wait).unwrap();
        let two = acquire(open(&path), &path, Mode::Shared, wait).unwrap();
        assert!(acquire(open(&path), &path, Mode::Exclusive, wait).is_err());
        drop((one, two));
        drop(acquire(open(&path), &path, Mode::Exclusive, Duration::from_secs(5)).unwrap());
    }
}
