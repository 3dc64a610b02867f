//! The leases of a network on disk, in the layout of the reference's host-local, so that both can
//! use one directory at the same time:
//!
//! ```text
//! <dataDir>/<network>/10.1.0.2             a lease
//! <dataDir>/<network>/last_reserved_ip.0   where range set 0 goes on
//! <dataDir>/<network>/lock                 flock(LOCK_EX) for every change
//! <dataDir>/.podwire/<network>             the owner index, podwire's own
//! ```

mod boot;
mod check;
mod directory;
mod draft;
mod last_reserved;
mod leases;
mod reading;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use check::{has_lease, indexed_leases};
pub(crate) use directory::{Directory, FileKind};
pub(crate) use draft::Draft;
pub(crate) use last_reserved::LastReserved;
pub(crate) use leases::Store;

/// Where the reference keeps its networks when `dataDir` is not set.
pub(crate) const DEFAULT_DATA_DIR: &str = "/var/lib/cni/networks";

/// How long a call waits for the lock. Runtimes give a call minutes; a holder needs milliseconds.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Which store, and how to use it.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The directory of the networks' directories.
    pub(crate) data_dir: PathBuf,
    /// The network: a valid name, thus a safe file name.
    pub(crate) network: String,
    /// Whether leases from before this boot are free again.
    pub(crate) reclaim_after_reboot: bool,
    /// How long to wait for the lock.
    pub(crate) lock_wait: Duration,
}

impl Options {
    /// The store of `network` below `data_dir`.
    #[must_use]
    pub(crate) fn new(data_dir: &Path, network: &str) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            network: network.to_owned(),
            reclaim_after_reboot: false,
            lock_wait: LOCK_WAIT,
        }
    }

    /// The directory of the network's leases.
    #[must_use]
    pub(crate) fn directory(&self) -> PathBuf {
        self.data_dir.join(&self.network)
    }
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod odd_files_tests;
#[cfg(test)]
mod tests;
