//! The owners of a network's leases, wherever they are known from: the table on disk, or a reading
//! of all lease files.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::{DirectoryStamp, Entry, Table};
use crate::files::open;

/// Where the index of a network lives.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    folder: PathBuf,
    network: String,
}

/// Name of the indexes' folder beside the networks' directories. No network can be called so: names
/// begin with a letter or a digit.
pub(crate) const INDEX_FOLDER: &str = ".podwire";

impl Place {
    /// The place for `network` below `data_dir`.
    #[must_use]
    pub(crate) fn new(data_dir: &Path, network: &str) -> Self {
        Self { folder: data_dir.join(INDEX_FOLDER), network: network.to_owned() }
    }

    /// Opens the table, for reading alone or for changing it too. `None` when there is none that
    /// is whole.
    #[must_use]
    pub(crate) fn open(&self, write: bool) -> Option<Table> {
        let flags = if write { OFlag::O_RDWR } else { OFlag::O_RDONLY };
        Table::open(open(&self.file(), flags, 0).ok()?).ok()
    }

    fn file(&self) -> PathBuf {
        self.folder.join(&self.network)
    }

    /// A name that no network can have, so that it is no other network's index.
    fn new_file(&self) -> PathBuf {
        self.folder.join(format!(".new-{}", self.network))
    }

    fn create(&self) -> io::Result<File> {
        // Never into what is there already, which may be a link that leads elsewhere.
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        let create = || open(&self.new_file(), flags, 0o600);
        create().or_else(|error| {
            match error.kind() {
                io::ErrorKind::NotFound => self.create_folder()?,
                // A call that died left it.
                io::ErrorKind::AlreadyExists => fs::remove_file(self.new_file())?,
                _ => return Err(error),
            }
            create()
        })
    }

    fn create_folder(&self) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o755).create(&self.folder).or_else(|error| {
            // Another network's call was quicker.
            if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
        })
    }

    fn publish(&self) -> io::Result<()> {
        fs::rename(self.new_file(), self.file())
    }

    /// Makes a rename survive a power cut.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }
}

/// The owners of the leases of one network, under its lock.
#[derive(Debug)]
pub(crate) struct Owners {
    state: State,
    /// Whether all leases are in here: a file that could not be read is not.
    complete: bool,
}

#[derive(Debug)]
enum State {
    OnDisk(Box<Table>),
    InMemory { entries: Vec<Entry>, bare: u32 },
}

impl Owners {
    /// The owners according to a table that was found valid.
    #[must_use]
    pub(crate) fn from_table(table: Table) -> Self {
        Self { state: State::OnDisk(Box::new(table)), complete: true }
    }

    /// The owners according to the lease files, `bare` of them in the old format.
    #[must_use]
    pub(crate) const fn from_files(entries: Vec<Entry>, bare: u32, complete: bool) -> Self {
        Self { state: State::InMemory { entries, bare }, complete }
    }

    /// Whether a lookup that finds nothing can be believed without reading the lease files again.
    #[must_use]
    pub(crate) const fn is_from_table(&self) -> bool {
        matches!(self.state, State::OnDisk(_))
    }

    /// Whether there are leases in the old format.
    #[must_use]
    pub(crate) const fn has_bare(&self) -> bool {
        match &self.state {
            State::OnDisk(table) => table.header().bare > 0,
            State::InMemory { bare, .. } => *bare > 0,
        }
    }

    /// The addresses whose lease files may have the content with this hash.
    ///
    /// # Errors
    /// The table cannot be read.
    pub(crate) fn find(&mut self, hash: u64) -> io::Result<Vec<IpAddr>> {
        match &mut self.state {
            State::OnDisk(table) => table.find(hash),
            State::InMemory { entries, .. } => {
                let matching = entries.iter().filter(|entry| entry.hash == hash);
                Ok(matching.map(|entry| entry.address).collect())
            }
        }
    }

    /// Adds a lease that was just created.
    ///
    /// # Errors
    /// The table cannot be read or written.
    pub(crate) fn insert(&mut self, entry: Entry) -> io::Result<()> {
        if let State::OnDisk(table) = &self.state
            && table.is_crowded()
        {
            let bare = table.header().bare;
            self.state = State::InMemory { entries: table.entries()?, bare };
        }
        match &mut self.state {
            State::OnDisk(table) => table.insert(entry),
            State::InMemory { entries, .. } => {
                entries.push(entry);
                Ok(())
            }
        }
    }

    /// Removes a lease that was just released, `bare` if it was in the old format.
    ///
    /// # Errors
    /// The table cannot be read or written.
    pub(crate) fn remove(&mut self, entry: Entry, bare: bool) -> io::Result<()> {
        match &mut self.state {
            State::OnDisk(table) => table.remove(entry, bare),
            State::InMemory { entries, bare: count } => {
                entries.retain(|other| *other != entry);
                *count = count.saturating_sub(u32::from(bare));
                Ok(())
            }
        }
    }

    /// Makes the table on disk valid for the directory as it is at `stamp`. `durable` when it must
    /// survive a power cut.
    ///
    /// # Errors
    /// The table cannot be written. It stays invalid then.
    pub(crate) fn seal(
        self,
        place: &Place,
        boot: [u8; 16],
        stamp: Option<DirectoryStamp>,
        durable: bool,
    ) -> io::Result<()> {
        let stamp = stamp.filter(|_| self.complete);
        let (mut entries, bare) = match self.state {
            State::OnDisk(mut table) => return table.seal(stamp),
            State::InMemory { entries, bare } => (entries, bare),
        };
        let Some(mut table) = Table::create(place.create()?, boot, &mut entries, bare)? else {
            return Ok(());
        };
        table.seal(stamp)?;
        if durable {
            table.sync()?;
        }
        place.publish()?;
        if durable { place.sync() } else { Ok(()) }
    }
}
