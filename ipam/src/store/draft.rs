//! Lease files that appear whole: written without a name, then given one.

use std::fs::File;
use std::io::{self, Write};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::Directory;

/// A lease file in the making. There is no flush to the disk: a power cut ends the pods too, and
/// a lease that it damaged is recognised and reclaimed.
#[derive(Debug)]
pub(crate) enum Draft<'a> {
    /// Written, without a name yet.
    Unnamed(File),
    /// The file system has no files without names: the content is written under the final name, as
    /// the reference does it. A kill in between leaves an empty file, which is reclaimed later.
    Content(&'a [u8]),
}

impl<'a> Draft<'a> {
    /// Writes the lease's content into a file without a name in `directory`.
    ///
    /// # Errors
    /// The file cannot be created or written (disk full, read-only).
    pub(crate) fn write(directory: &Directory, content: &'a [u8]) -> io::Result<Self> {
        match directory.file(".", OFlag::O_TMPFILE | OFlag::O_WRONLY, 0o600) {
            Ok(mut file) => {
                file.write_all(content)?;
                Ok(Self::Unnamed(file))
            }
            Err(error) if is_unsupported(&error) => Ok(Self::Content(content)),
            Err(error) => Err(error),
        }
    }

    /// Gives the file the name of its address; `false` when there is such a file already.
    ///
    /// # Errors
    /// As `linkat`, or as creating and writing a file.
    pub(crate) fn publish(&self, directory: &Directory, name: &str) -> io::Result<bool> {
        match self {
            Self::Content(content) => create_in_place(directory, name, content),
            Self::Unnamed(file) => match directory.link(file, name) {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                Err(error) => Err(error),
            },
        }
    }
}

/// What `open` says where `O_TMPFILE` is not known, or not to this file system.
fn is_unsupported(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw);
    matches!(number, Some(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL | Errno::ENOENT))
}

fn create_in_place(directory: &Directory, name: &str, content: &[u8]) -> io::Result<bool> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY;
    let mut file = match directory.file(name, flags, 0o600) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error),
    };
    if let Err(error) = file.write_all(content) {
        directory.remove(name)?;
        return Err(error);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_create_the_same_file_and_never_replace_one() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(folder.path()).unwrap().unwrap();
        let unnamed = Draft::write(&directory, b"c\r\neth0").unwrap();
        assert!(
            matches!(unnamed, Draft::Unnamed(_)),
            "the test needs a file system with O_TMPFILE"
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let drafts = [("10.0.0.1", unnamed), ("10.0.0.2", Draft::Content(b"c\r\neth0"))];
        for (name, draft) in drafts {
            assert!(draft.publish(&directory, name).unwrap());
            assert!(!draft.publish(&directory, name).unwrap());
            let path = folder.path().join(name);
            assert_eq!(std::fs::read(&path).unwrap(), b"c\r\neth0");
            let mode =
                std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}
