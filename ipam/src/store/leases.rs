//! The store as the verbs use it: look up, take and release leases under the network's lock.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use nix::fcntl::OFlag;

use super::reading::{Keep, Policy, Reading, corrupt_note, is_owned_by, taken_numbers};
use super::{Directory, Draft, Options, boot};
use crate::Error;
use crate::index::{Entry, Owners, Place, Table, owner_hash};
use crate::lease::{Content, LOCK_FILE, Owner};

/// The leases of one network, with its lock held.
#[derive(Debug)]
pub(crate) struct Store {
    directory: Directory,
    /// Holds the lock until it is dropped.
    _lock: File,
    place: Place,
    boot: Option<[u8; 16]>,
    /// `None` when the index turned out wrong, or could not be written: the lease files are read
    /// again when an answer is needed.
    owners: Option<Owners>,
    /// Whether the index on disk does not match the directory (any more).
    unsealed: bool,
    /// Whether the index must survive a power cut, because it says which boot was the last.
    durable: bool,
}

impl Store {
    /// Opens the store of a network, which is created if need be, and takes its lock.
    ///
    /// Leases from before this boot are removed if the options say so.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::LockTimeout`].
    pub(crate) fn create(options: &Options, notes: &mut Vec<String>) -> Result<Self, Error> {
        Self::load(Directory::create(&options.directory())?, options, notes)
    }

    /// As [`Self::create`], but `None` when the network has no directory.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub(crate) fn open(options: &Options, notes: &mut Vec<String>) -> Result<Option<Self>, Error> {
        let directory = Directory::open(&options.directory())?;
        directory.map(|directory| Self::load(directory, options, notes)).transpose()
    }

    fn load(
        directory: Directory,
        options: &Options,
        notes: &mut Vec<String>,
    ) -> Result<Self, Error> {
        let mut store = Self::lock(directory, options)?;
        match store.place.open(true) {
            Some(table) if is_valid(&table, &store.directory, store.boot) => {
                store.owners = Some(Owners::from_table(table));
            }
            table => {
                let failures = store.read_files(options, table.as_ref(), None, notes)?;
                notes.extend(failures.iter().map(ToString::to_string));
            }
        }
        Ok(store)
    }

    fn lock(directory: Directory, options: &Options) -> Result<Self, Error> {
        let path = lock_path(&directory);
        let file = directory
            .file(LOCK_FILE, OFlag::O_CREAT | OFlag::O_RDONLY, 0o750)
            .map_err(Error::io("open the lock", &path))?;
        let lock = flock::acquire(file, flock::Mode::Exclusive, options.lock_wait)
            .map_err(Error::lock(&path))?;
        Ok(Self {
            directory,
            _lock: lock,
            place: Place::new(&options.data_dir, &options.network),
            boot: boot::boot_id(),
            owners: None,
            unsealed: false,
            durable: false,
        })
    }

    /// Reads all lease files. If `table` is from an earlier boot, leases from before this one go;
    /// so do those whose owner `keep` does not know. Returns the removals that failed.
    ///
    /// Without a table there is no knowing whether this boot's leases were already dealt with, and
    /// the wall clock alone is no proof (it may have been set since): then none goes for its age.
    fn read_files(
        &mut self,
        options: &Options,
        table: Option<&Table>,
        keep: Option<&Keep<'_>>,
        notes: &mut Vec<String>,
    ) -> Result<Vec<Error>, Error> {
        let known = table.map(|table| table.header().boot);
        let rebooted = self.boot.is_some() && known.is_some() && known != self.boot;
        self.durable = options.reclaim_after_reboot && known != self.boot;
        let reclaims = options.reclaim_after_reboot && rebooted;
        let before_boot = if reclaims { boot::boot_time() } else { None };
        let expected = table.map_or(0, |table| table.header().live);
        let mut reading =
            Reading::of(&self.directory, &Policy { before_boot, keep }, expected, notes)?;
        let failures = reading.take_failures();
        self.adopt(reading);
        Ok(failures)
    }

    /// Removes every lease whose owner `keep` does not know, and makes the index anew.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::LockTimeout`]; [`Error::Several`] when removals failed.
    pub(crate) fn sweep(
        options: &Options,
        keep: &Keep<'_>,
        notes: &mut Vec<String>,
    ) -> Result<(), Error> {
        let Some(directory) = Directory::open(&options.directory())? else { return Ok(()) };
        let mut store = Self::lock(directory, options)?;
        let table = store.place.open(false);
        let failures = store.read_files(options, table.as_ref(), Some(keep), notes)?;
        store.seal(notes);
        if failures.is_empty() { Ok(()) } else { Err(Error::Several(failures)) }
    }

    fn adopt(&mut self, reading: Reading) {
        self.owners = Some(reading.into_owners());
        self.unsealed = true;
    }

    /// The directory.
    #[must_use]
    pub(crate) const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The addresses of `owner`, in the present format.
    ///
    /// # Errors
    /// The lease files cannot be listed.
    pub(crate) fn owned(
        &mut self,
        owner: &Owner,
        notes: &mut Vec<String>,
    ) -> Result<Vec<IpAddr>, Error> {
        self.verified(owner.key(), notes)
    }

    /// The addresses of `owner`'s container in the old format, which does not tell the interface.
    ///
    /// # Errors
    /// As [`Self::owned`].
    pub(crate) fn owned_bare(
        &mut self,
        owner: &Owner,
        notes: &mut Vec<String>,
    ) -> Result<Vec<IpAddr>, Error> {
        match &self.owners {
            Some(owners) if !owners.has_bare() => Ok(Vec::new()),
            _ => self.verified(owner.bare_key(), notes),
        }
    }

    /// The addresses whose lease files hold `content`, each compared with its file.
    fn verified(&mut self, content: &[u8], notes: &mut Vec<String>) -> Result<Vec<IpAddr>, Error> {
        loop {
            let owners = match &mut self.owners {
                Some(owners) => owners,
                None => {
                    let reading = Reading::of(&self.directory, &Policy::default(), 0, notes)?;
                    self.adopt(reading);
                    continue;
                }
            };
            let from_table = owners.is_from_table();
            let Ok(mut addresses) = owners.find(owner_hash(content)) else {
                self.owners = None;
                continue;
            };
            let found = addresses.len();
            let is_right = |address: &IpAddr| {
                is_owned_by(&self.directory, &address.to_string(), content).unwrap_or(false)
            };
            addresses.retain(is_right);
            if from_table && addresses.len() < found {
                // Somebody wrote into a lease file: what else has changed?
                self.owners = None;
                continue;
            }
            return Ok(addresses);
        }
    }

    /// Writes the content of a lease of `owner`, to be published at one of several addresses.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn draft<'a>(&self, owner: &'a Owner) -> Result<Draft<'a>, Error> {
        Draft::write(&self.directory, owner.key())
            .map_err(Error::io("write a lease file in", self.directory.path()))
    }

    /// Leases `address` to `owner`; `false` when it is taken.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn take(
        &mut self,
        draft: &Draft<'_>,
        address: IpAddr,
        owner: &Owner,
    ) -> Result<bool, Error> {
        let name = address.to_string();
        let taken = draft
            .publish(&self.directory, &name)
            .map_err(Error::io("create lease", self.directory.path().join(name)))?;
        if taken {
            self.changed(|owners| owners.insert(Entry { hash: owner_hash(owner.key()), address }));
        }
        Ok(taken)
    }

    /// Removes the lease of `address`, whose content is known to be `content`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn release(&mut self, address: IpAddr, content: &[u8]) -> Result<(), Error> {
        let name = address.to_string();
        self.directory
            .remove(&name)
            .map_err(Error::io("remove lease", self.directory.path().join(name)))?;
        let entry = Entry { hash: owner_hash(content), address };
        self.changed(|owners| owners.remove(entry, Content::is_bare(content)));
        Ok(())
    }

    /// Records a change of the directory in the index. An index that cannot be written is given up:
    /// it is a hint, the leases are the truth.
    fn changed(&mut self, record: impl FnOnce(&mut Owners) -> io::Result<()>) {
        self.unsealed = true;
        if let Some(owners) = &mut self.owners
            && record(owners).is_err()
        {
            self.owners = None;
        }
    }

    /// Whether `address` is leased to `owner`.
    pub(crate) fn is_held_by(&self, address: IpAddr, owner: &Owner) -> bool {
        is_owned_by(&self.directory, &address.to_string(), owner.key()).unwrap_or(false)
    }

    /// Who holds `address`, for an error's text. A corrupt lease is removed on the way: then
    /// nobody does.
    pub(crate) fn holder(&mut self, address: IpAddr, notes: &mut Vec<String>) -> Option<String> {
        let name = address.to_string();
        let seen = self.directory.look(&name, |bytes, _| match Content::read(bytes) {
            Content::Owned(owned) => Some(match Content::split(owned) {
                (container_id, Some(ifname)) => format!("leased to {container_id} {ifname}"),
                (container_id, None) => format!("leased to {container_id}"),
            }),
            Content::Corrupt => None,
        });
        match seen {
            Ok(Some(Some(holder))) => Some(holder),
            Ok(Some(None)) => {
                self.unsealed = true;
                notes.push(corrupt_note(&self.directory.path().join(&name)));
                let removed = self.directory.remove(&name);
                removed.err().map(|error| format!("its lease has no owner and stays: {error}"))
            }
            Ok(None) => None,
            Err(error) => Some(format!("its lease cannot be read: {error}")),
        }
    }

    /// The numbers of all leased addresses of one family, sorted.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub(crate) fn taken_numbers(&self, ipv4: bool) -> Result<Vec<u128>, Error> {
        taken_numbers(&self.directory, ipv4)
    }

    /// Makes the index valid for the directory as it is now, and gives the lock back. If that fails,
    /// the next call reads all lease files.
    pub(crate) fn seal(self, notes: &mut Vec<String>) {
        let Some(owners) = self.owners.filter(|_| self.unsealed) else { return };
        let stamp = self.boot.and_then(|_| self.directory.stamp_anew());
        let boot = self.boot.unwrap_or_default();
        if let Err(error) = owners.seal(&self.place, boot, stamp, self.durable) {
            notes.push(format!(
                "the owner index cannot be written (calls are slower without): {error}"
            ));
        }
    }
}

/// The lock file of a network's directory.
pub(super) fn lock_path(directory: &Directory) -> PathBuf {
    directory.path().join(LOCK_FILE)
}

/// Whether the table is of this boot and tells of the directory as it is.
pub(super) fn is_valid(table: &Table, directory: &Directory, boot: Option<[u8; 16]>) -> bool {
    let header = table.header();
    boot == Some(header.boot) && header.stamp.is_some() && header.stamp == directory.stamp().ok()
}
