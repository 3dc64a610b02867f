//! Opening, entering and leaving network namespaces.
//!
//! A thread that stays in the wrong namespace does its next work to the wrong container, so
//! entering is a guard: it cannot be sent to another thread, it goes back when dropped, and a
//! process that cannot go back ends.

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{FsType, NSFS_MAGIC, PROC_SUPER_MAGIC, fstatfs};

/// The calling thread's namespace; `/proc/self` would be that of the main thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// Why a namespace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing at the path: the container is gone.
    #[error("network namespace {} does not exist (has the container ended?)", .0.display())]
    Missing(PathBuf),
    /// The path cannot be opened.
    #[error("cannot open network namespace {}", path.display())]
    Open {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The path is something else.
    #[error("{} is not a network namespace (file system type {found})", path.display())]
    NotANamespace {
        /// The path.
        path: PathBuf,
        /// Magic number of the file system that it is on, in hexadecimal.
        found: String,
    },
    /// The namespace cannot be entered.
    #[error("cannot enter network namespace {} (is CAP_SYS_ADMIN missing?)", path.display())]
    Enter {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// An open network namespace; it lives for as long as it is open.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
}

impl Netns {
    /// Opens the namespace at `path`.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Open`], [`Error::NotANamespace`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => Error::Missing(path.into()),
            _ => Error::Open { path: path.into(), source },
        };
        // Not to wait for a writer, should it be a pipe.
        let file = File::options()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(path)
            .map_err(failed)?;
        let kind = fstatfs(&file).map_err(|errno| failed(errno.into()))?.filesystem_type();
        // Before Linux 3.19 namespaces were files of procfs itself.
        if kind != NSFS_MAGIC && kind != PROC_SUPER_MAGIC {
            let FsType(found) = kind;
            // The number's type differs between C libraries.
            return Err(Error::NotANamespace { path: path.into(), found: format!("{found:x}") });
        }
        Ok(Self { file, path: path.into() })
    }

    /// Moves the calling thread into the namespace until the guard is dropped.
    ///
    /// # Errors
    /// [`Error::Open`] for the thread's own namespace, [`Error::Enter`].
    pub fn enter(&self) -> Result<Entered, Error> {
        let failed = |source| Error::Open { path: OWN.into(), source };
        let home = File::open(OWN).map_err(failed)?;
        setns(&self.file, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::Enter { path: self.path.clone(), source: errno.into() })?;
        Ok(Entered { home, not_send: PhantomData })
    }

    /// Where it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The thread is in another namespace for as long as this lives.
///
/// ```compile_fail
/// fn send(guard: impl Send) {}
/// let netns = netns::Netns::open(std::path::Path::new("/proc/self/ns/net")).unwrap();
/// send(netns.enter().unwrap());
/// ```
#[derive(Debug)]
pub struct Entered {
    home: File,
    not_send: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        // It was entered from there with the same rights, so this fails only if the kernel has no
        // memory; to go on in the wrong namespace would be worse than to end.
        if setns(&self.home, CloneFlags::CLONE_NEWNET).is_err() {
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn own() -> u64 {
        std::fs::metadata(OWN).unwrap().ino()
    }

    /// A fresh namespace, kept alive by the returned descriptor.
    fn fresh() -> Netns {
        std::thread::spawn(|| {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).expect("tests run as root");
            Netns::open(Path::new(OWN)).unwrap()
        })
        .join()
        .unwrap()
    }

    #[test]
    fn the_guard_goes_back() {
        let (netns, home) = (fresh(), own());
        let inside = {
            let _entered = netns.enter().unwrap();
            own()
        };
        assert_ne!(inside, home);
        assert_eq!(own(), home);
    }

    #[test]
    fn the_guard_goes_back_when_a_panic_passes() {
        let (netns, home) = (fresh(), own());
        let panicked = std::panic::catch_unwind(|| {
            let _entered = netns.enter().unwrap();
            panic!("on purpose");
        });
        assert!(panicked.is_err());
        assert_eq!(own(), home);
    }

    #[test]
    fn guards_nest() {
        let (outer, inner, home) = (fresh(), fresh(), own());
        {
            let _outer = outer.enter().unwrap();
            let in_outer = own();
            {
                let _inner = inner.enter().unwrap();
                assert_ne!(own(), in_outer);
            }
            assert_eq!(own(), in_outer);
        }
        assert_eq!(own(), home);
    }

    #[test]
    fn what_is_no_namespace_is_refused() {
        assert!(matches!(Netns::open(Path::new("/nowhere")), Err(Error::Missing(_))));
        let error = Netns::open(Path::new("/etc/passwd")).unwrap_err();
        assert!(matches!(error, Error::NotANamespace { .. }), "{error}");
    }
}
