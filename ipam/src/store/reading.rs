//! Reading all lease files of a network, under its lock: what is there, what can be reclaimed.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

use super::{Directory, FileKind};
use crate::Error;
use crate::index::{Entry, Owners, owner_hash};
use crate::lease::{Content, Name};

/// Whether the owner with this content keeps its leases.
pub(crate) type Keep<'a> = dyn Fn(&[u8]) -> bool + 'a;

/// What to remove on the way, besides corrupt files.
#[derive(Default)]
pub(super) struct Policy<'a> {
    /// Leases older than this are from before the boot.
    pub(super) before_boot: Option<SystemTime>,
    /// Which owners stay; `None` keeps all of them.
    pub(super) keep: Option<&'a Keep<'a>>,
}

/// What becomes of a lease file.
enum Verdict {
    Stays { hash: u64, bare: bool },
    Corrupt,
    BeforeBoot,
    Stale,
}

/// What was read.
pub(super) struct Reading {
    entries: Vec<Entry>,
    bare: u32,
    complete: bool,
    before_boot: u32,
    stale: u32,
    failures: Vec<Error>,
}

impl Reading {
    /// Reads all lease files of `directory`, and removes corrupt ones and those that `policy` gives
    /// up. `expected` is a guess of how many there are.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub(super) fn of(
        directory: &Directory,
        policy: &Policy<'_>,
        expected: u32,
        notes: &mut Vec<String>,
    ) -> Result<Self, Error> {
        let mut reading = Self {
            entries: Vec::with_capacity(expected as usize),
            bare: 0,
            complete: true,
            before_boot: 0,
            stale: 0,
            failures: Vec::new(),
        };
        directory.list(|name, kind| {
            if let (Name::Lease(address), FileKind::File) = (Name::read(name), kind)
                && let Ok(name) = std::str::from_utf8(name)
            {
                reading.take(directory, policy, name, address, notes);
            }
        })?;
        reading.sum_up(directory, notes);
        Ok(reading)
    }

    fn take(
        &mut self,
        directory: &Directory,
        policy: &Policy<'_>,
        name: &str,
        address: IpAddr,
        notes: &mut Vec<String>,
    ) {
        let path = || directory.path().join(name);
        let verdict = match directory.look(name, |bytes, age| policy.judge(bytes, age)) {
            Ok(Some(verdict)) => verdict,
            Ok(None) => return,
            Err(error) => {
                // Taken, and whose it is may show later: the index must not be believed meanwhile.
                self.complete = false;
                notes.push(format!(
                    "lease {} cannot be read and stays taken: {error}",
                    path().display()
                ));
                return;
            }
        };
        match verdict {
            Verdict::Stays { hash, bare } => {
                self.entries.push(Entry { hash, address });
                self.bare += u32::from(bare);
                return;
            }
            Verdict::Corrupt => notes.push(corrupt_note(&path())),
            Verdict::BeforeBoot => self.before_boot += 1,
            Verdict::Stale => self.stale += 1,
        }
        if let Err(source) = directory.remove(name) {
            self.complete = false;
            self.failures.push(Error::Io { action: "remove", path: path(), source });
        }
    }

    fn sum_up(&self, directory: &Directory, notes: &mut Vec<String>) {
        for (count, what) in [
            (self.before_boot, "from before this boot were removed (reclaimAfterReboot)"),
            (self.stale, "of no valid attachment were removed"),
        ] {
            if count > 0 {
                notes.push(format!("{}: {count} leases {what}", directory.path().display()));
            }
        }
    }

    /// The removals that failed.
    pub(super) fn take_failures(&mut self) -> Vec<Error> {
        std::mem::take(&mut self.failures)
    }

    /// The leases that are left.
    pub(super) fn into_owners(self) -> Owners {
        Owners::from_files(self.entries, self.bare, self.complete)
    }
}

impl Policy<'_> {
    fn judge(&self, bytes: &[u8], age: &dyn Fn() -> Option<SystemTime>) -> Verdict {
        let Content::Owned(owned) = Content::read(bytes) else { return Verdict::Corrupt };
        if let Some(boot) = self.before_boot
            && age().is_some_and(|modified| modified < boot)
        {
            return Verdict::BeforeBoot;
        }
        if self.keep.is_some_and(|keep| !keep(owned)) {
            return Verdict::Stale;
        }
        Verdict::Stays { hash: owner_hash(owned), bare: Content::is_bare(owned) }
    }
}

/// What people are told about a lease file without an owner.
pub(super) fn corrupt_note(path: &Path) -> String {
    let path = path.display();
    format!(
        "lease {path} has no owner in it (was its writer killed, or the power cut?): removing it"
    )
}

/// The numbers of the leased addresses of one family, sorted.
///
/// # Errors
/// The directory cannot be listed.
pub(super) fn taken_numbers(directory: &Directory, ipv4: bool) -> Result<Vec<u128>, Error> {
    let mut taken = Vec::new();
    directory.list(|name, _| {
        if let Name::Lease(address) = Name::read(name)
            && address.is_ipv4() == ipv4
        {
            taken.push(crate::range::to_number(address));
        }
    })?;
    taken.sort_unstable();
    Ok(taken)
}

/// What file `name` holds: `None` when it is not there.
///
/// # Errors
/// It cannot be read.
pub(super) fn is_owned_by(directory: &Directory, name: &str, content: &[u8]) -> io::Result<bool> {
    let same = directory.look(name, |bytes, _| Content::read(bytes) == Content::Owned(content))?;
    Ok(same.unwrap_or(false))
}
