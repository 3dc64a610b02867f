//! A network's directory: its files by name, relative to an open descriptor.

use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::Mode;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use crate::Error;
use crate::files::{NO_WAIT, open};
use crate::index::DirectoryStamp;

/// Larger than most leases; what is longer is read, but not in one call.
const LEASE_BYTES: usize = 1024;
/// Larger than any lease: the kernel passes no environment variable of more than 128 KiB.
const LEASE_LIMIT: u64 = 256 << 10;

/// An open directory.
#[derive(Debug)]
pub(crate) struct Directory {
    file: File,
    path: PathBuf,
}

/// What a name in a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// A file, a link to one, or unknown.
    File,
    /// A directory, a socket and the like.
    Other,
}

impl Directory {
    /// Opens the directory; `None` when it does not exist.
    ///
    /// # Errors
    /// It exists and cannot be opened.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>, Error> {
        match open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0) {
            Ok(file) => Ok(Some(Self { file, path: path.to_owned() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("open the lease directory", path)(error)),
        }
    }

    /// Opens the directory, which is created with its parents if it does not exist.
    ///
    /// # Errors
    /// It cannot be created or opened.
    pub(crate) fn create(path: &Path) -> Result<Self, Error> {
        if let Some(directory) = Self::open(path)? {
            return Ok(directory);
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(path)
            .map_err(Error::io("create the lease directory", path))?;
        let vanished = || Error::io("open the lease directory", path)(Errno::ENOENT);
        Self::open(path)?.ok_or_else(vanished)
    }

    /// The directory's path.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens file `name`, without waiting.
    ///
    /// # Errors
    /// As `openat`.
    pub(crate) fn file(&self, name: &str, flags: OFlag, mode: u32) -> io::Result<File> {
        let flags = flags | NO_WAIT | OFlag::O_CLOEXEC;
        Ok(File::from(openat(&self.file, name, flags, Mode::from_bits_truncate(mode))?))
    }

    /// The content of file `name`; `None` when it does not exist.
    ///
    /// # Errors
    /// It exists and cannot be read.
    pub(crate) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match self.open_to_read(name) {
            Ok(file) => with_content(&mut &file, <[u8]>::to_vec).map(Some),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives `see` the content of file `name`, and its age if it asks, without allocating; `None`
    /// when the file does not exist.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn look<T>(
        &self,
        name: &str,
        see: impl FnOnce(&[u8], &dyn Fn() -> Option<SystemTime>) -> T,
    ) -> io::Result<Option<T>> {
        let file = match self.open_to_read(name) {
            Ok(file) => file,
            Err(Errno::ENOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let modified = || file.metadata().ok()?.modified().ok();
        with_content(&mut &file, |content| see(content, &modified)).map(Some)
    }

    fn open_to_read(&self, name: &str) -> Result<File, Errno> {
        let flags = OFlag::O_RDONLY | NO_WAIT | OFlag::O_CLOEXEC;
        openat(&self.file, name, flags, Mode::empty()).map(File::from)
    }

    /// Removes file `name`; whether it was there.
    ///
    /// # Errors
    /// As `unlinkat`.
    pub(crate) fn remove(&self, name: &str) -> io::Result<bool> {
        match unlinkat(&self.file, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives `file`, which has no name (`O_TMPFILE`), the name `name`.
    ///
    /// # Errors
    /// As `linkat`; [`io::ErrorKind::AlreadyExists`] when the name is taken.
    pub(crate) fn link(&self, file: &File, name: &str) -> io::Result<()> {
        // By way of /proc, because AT_EMPTY_PATH needs CAP_DAC_READ_SEARCH before Linux 6.10.
        let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
        linkat(AT_FDCWD, unnamed.as_str(), &self.file, name, AtFlags::AT_SYMLINK_FOLLOW)?;
        Ok(())
    }

    /// Gives every name but `.` and `..` to `visit`.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) fn list(&self, mut visit: impl FnMut(&[u8], FileKind)) -> Result<(), Error> {
        let failed = |error: Errno| Error::io("list the lease directory", &self.path)(error);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut stream = Dir::openat(&self.file, ".", flags, Mode::empty()).map_err(failed)?;
        for entry in stream.iter() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let kind = match entry.file_type() {
                None | Some(Type::File | Type::Symlink) => FileKind::File,
                Some(_) => FileKind::Other,
            };
            visit(name, kind);
        }
        Ok(())
    }

    /// The directory's stamp as it is.
    ///
    /// # Errors
    /// As `fstat`.
    pub(crate) fn stamp(&self) -> io::Result<DirectoryStamp> {
        let metadata = self.file.metadata()?;
        Ok(DirectoryStamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// Gives the directory an mtime that no later change can give it, and returns the stamp; `None`
    /// when the file system does not keep such times.
    ///
    /// Changes are stamped with the kernel's coarse clock, which stands still for some milliseconds
    /// (until 6.13, and later on some file systems). So a time between two of its ticks is ours alone.
    pub(crate) fn stamp_anew(&self) -> Option<DirectoryStamp> {
        let coarse = Duration::from(clock_gettime(ClockId::CLOCK_REALTIME_COARSE).ok()?);
        let mut now = SystemTime::now();
        if now == SystemTime::UNIX_EPOCH + coarse {
            now += Duration::from_nanos(1);
        }
        self.file.set_modified(now).ok()?;
        let stamp = self.stamp().ok()?;
        let since = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let wanted = (i64::try_from(since.as_secs()).ok()?, i64::from(since.subsec_nanos()));
        (stamp.mtime == wanted).then_some(stamp)
    }
}

/// Gives the whole content of `file` to `see`, in one read when it is as short as leases are.
///
/// Only what no plugin writes, nothing or much, is looked at more closely: a pipe reads as empty, and
/// some devices never end.
fn with_content<T>(file: &mut &File, see: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
    let mut buffer = [0; LEASE_BYTES];
    let length = file.read(&mut buffer)?;
    let head = buffer.get(..length).unwrap_or_default();
    if (1..LEASE_BYTES).contains(&length) {
        return Ok(see(head));
    }
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no regular file"));
    }
    if metadata.len() > LEASE_LIMIT {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut whole = head.to_vec();
    file.read_to_end(&mut whole)?;
    Ok(see(&whole))
}
