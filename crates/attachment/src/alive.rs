//! When policyd was last seen working.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::Error;

/// Shows at `path` that policyd works.
///
/// # Errors
/// [`Error::File`].
pub fn show_alive(path: &Path) -> Result<(), Error> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    file.and_then(|file| file.set_modified(SystemTime::now())).map_err(|source| Error::File {
        what: "touch",
        path: path.to_owned(),
        source,
    })
}

/// How long ago policyd showed at `path` that it works; `None` when it never has.
///
/// # Errors
/// [`Error::File`].
pub fn last_alive(path: &Path) -> Result<Option<Duration>, Error> {
    match fs::metadata(path).and_then(|file| file.modified()) {
        // A clock that was set back leaves a time to come.
        Ok(time) => Ok(Some(time.elapsed().unwrap_or_default())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { what: "look at", path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_that_of_the_last_sign() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("alive");
        assert_eq!(last_alive(&path).unwrap(), None);
        show_alive(&path).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(500)).unwrap();
        assert!(last_alive(&path).unwrap().unwrap() >= Duration::from_secs(500));
        show_alive(&path).unwrap();
        assert!(last_alive(&path).unwrap().unwrap() < Duration::from_secs(400));
        file.set_modified(SystemTime::now() + Duration::from_secs(500)).unwrap();
        assert_eq!(last_alive(&path).unwrap(), Some(Duration::ZERO));
    }
}
