//! Looking for a lease without changing anything.

use std::io;
use std::net::IpAddr;

use nix::fcntl::OFlag;

use super::leases::{is_valid, lock_path};
use super::reading::is_owned_by;
use super::{Directory, FileKind, Options, boot};
use crate::Error;
use crate::index::{Place, owner_hash};
use crate::lease::{LOCK_FILE, Name, Owner};

/// Whether `owner` has a lease, in either format. Changes nothing.
///
/// The lock is shared: CHECKs run side by side, but none sees an ADD half done. Where there is no
/// lock file, no plugin has been, and none is created.
///
/// # Errors
/// [`Error::Io`], [`Error::LockTimeout`].
pub(crate) fn has_lease(options: &Options, owner: &Owner) -> Result<bool, Error> {
    let Some(directory) = Directory::open(&options.directory())? else { return Ok(false) };
    let path = lock_path(&directory);
    let _lock = match directory.file(LOCK_FILE, OFlag::O_RDONLY, 0) {
        Ok(file) => {
            let lock = flock::acquire(file, flock::Mode::Shared, options.lock_wait);
            Some(lock.map_err(Error::lock(&path))?)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io("open the lock", path)(error)),
    };
    // A miss is worth a look at the files: a failed CHECK costs the pod its sandbox.
    Ok(has_indexed_lease(options, &directory, owner) || has_lease_file(&directory, owner)?)
}

fn has_indexed_lease(options: &Options, directory: &Directory, owner: &Owner) -> bool {
    let place = Place::new(&options.data_dir, &options.network);
    let Some(mut table) = place.open(false) else { return false };
    if !is_valid(&table, directory, boot::boot_id()) {
        return false;
    }
    [owner.key(), owner.bare_key()].into_iter().any(|content| {
        let found: Vec<IpAddr> = table.find(owner_hash(content)).unwrap_or_default();
        found.iter().any(|address| holds(directory, &address.to_string(), content))
    })
}

/// How many leases the network has, if the index tells. Takes no lock: the answer is of one moment.
#[must_use]
pub(crate) fn indexed_leases(options: &Options, directory: &Directory) -> Option<u32> {
    let table = Place::new(&options.data_dir, &options.network).open(false)?;
    is_valid(&table, directory, boot::boot_id()).then(|| table.header().live)
}

fn has_lease_file(directory: &Directory, owner: &Owner) -> Result<bool, Error> {
    let mut found = false;
    directory.list(|name, kind| {
        if let (Name::Lease(_), FileKind::File, Ok(name)) =
            (Name::read(name), kind, std::str::from_utf8(name))
        {
            let contents = [owner.key(), owner.bare_key()];
            found = found || contents.iter().any(|content| holds(directory, name, content));
        }
    })?;
    Ok(found)
}

fn holds(directory: &Directory, name: &str, content: &[u8]) -> bool {
    is_owned_by(directory, name, content).unwrap_or(false)
}
