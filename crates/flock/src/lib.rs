//! File locks (`flock`), with an end to the waiting.

use std::fs::{File, TryLockError};
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Alone, for changes.
    Exclusive,
    /// Together with other readers.
    Shared,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else held it for all of the time.
    #[error("it is held by another process; waited {} s for it", .0.as_secs())]
    Timeout(Duration),
    /// The file system has no locks, or the process may have no more threads.
    #[error("it cannot be locked")]
    Io(#[source] io::Error),
}

/// Takes the lock of a file; closing what is returned, and all that was duplicated from it, gives it
/// back.
///
/// Waiting is done by a thread that blocks in `flock`, because the kernel serves blocked waiters in
/// their order and passes over those who poll: beside eight processes that block and hold the lock
/// for 3 ms each, a polling call waited up to 10 s and a blocking one up to 0.2 s. Without
/// contention there is no thread.
///
/// # Errors
/// [`Error::Timeout`] after `wait`; [`Error::Io`].
pub fn acquire(file: File, mode: Mode, wait: Duration) -> Result<File, Error> {
    let tried = match mode {
        Mode::Exclusive => file.try_lock(),
        Mode::Shared => file.try_lock_shared(),
    };
    match tried {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
        Err(TryLockError::Error(error)) => return Err(Error::Io(error)),
    }
    let (sender, receiver) = mpsc::channel();
    // When the waiting has ended before the lock comes, nobody receives the file: it is dropped by
    // the thread, and the lock with it.
    let waiter = move || drop(sender.send(block(&file, mode).map(|()| file)));
    thread::Builder::new().stack_size(64 * 1024).spawn(waiter).map_err(Error::Io)?;
    match receiver.recv_timeout(wait) {
        Ok(outcome) => outcome.map_err(Error::Io),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            Err(Error::Timeout(wait))
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
    use std::path::Path;
    use std::time::Instant;

    const LONG: Duration = Duration::from_secs(5);

    fn open(path: &Path) -> File {
        File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
    }

    #[test]
    fn waiting_ends_with_the_lock_or_with_the_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let wait = Duration::from_millis(50);
        let held = acquire(open(&path), Mode::Exclusive, wait).unwrap();
        let begin = Instant::now();
        let error = acquire(open(&path), Mode::Exclusive, wait).unwrap_err();
        assert!(matches!(error, Error::Timeout(_)), "{error}");
        assert!(begin.elapsed() >= wait);

        let freed = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            drop(held);
        });
        // The waiter that gave up must not keep the lock when it gets it.
        drop(acquire(open(&path), Mode::Exclusive, LONG).unwrap());
        drop(acquire(open(&path), Mode::Exclusive, LONG).unwrap());
        freed.join().unwrap();
    }

    #[test]
    fn readers_share_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let wait = Duration::from_millis(20);
        let one = acquire(open(&path), Mode::Shared, wait).unwrap();
        let two = acquire(open(&path), Mode::Shared, wait).unwrap();
        assert!(acquire(open(&path), Mode::Exclusive, wait).is_err());
        drop((one, two));
        drop(acquire(open(&path), Mode::Exclusive, LONG).unwrap());
    }

    #[test]
    fn what_was_duplicated_holds_it_and_may_take_it_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let wait = Duration::from_millis(20);
        let file = open(&path);
        let one = acquire(file.try_clone().unwrap(), Mode::Exclusive, wait).unwrap();
        let two = acquire(file.try_clone().unwrap(), Mode::Exclusive, wait).unwrap();
        drop((one, two));
        assert!(acquire(open(&path), Mode::Exclusive, wait).is_err());
        drop(file);
        drop(acquire(open(&path), Mode::Exclusive, LONG).unwrap());
    }
}
