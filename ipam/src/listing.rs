//! What is leased, for people: reads the files as they are, takes no lock and changes nothing.

use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use cni::decode::{Fields, Problems};
use serde_json::{Map, Value};

use crate::Error;
use crate::allocator::Pool;
use crate::host_local::Conf;
use crate::lease::{Content, LAST_RESERVED_PREFIX, LOCK_FILE, Name, legible};
use crate::store::{DEFAULT_DATA_DIR, Directory, FileKind, Options};

/// The directory that is read when none is given: the reference's.
#[must_use]
pub fn default_data_dir() -> &'static Path {
    Path::new(DEFAULT_DATA_DIR)
}

/// A network that has a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// How many addresses are leased; or why that cannot be told.
    pub leases: Result<usize, String>,
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.leases {
            Ok(1) => write!(formatter, "{}: 1 lease", self.name),
            Ok(leases) => write!(formatter, "{}: {leases} leases", self.name),
            Err(problem) => write!(formatter, "{}: unreadable: {problem}", self.name),
        }
    }
}

/// The networks below `data_dir`, sorted by name; none when it does not exist.
///
/// # Errors
/// [`Error::Io`] when it cannot be read.
pub fn networks(data_dir: &Path) -> Result<Vec<Network>, Error> {
    let entries = match fs::read_dir(data_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list the networks in", data_dir)(error)),
    };
    let mut networks = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("list the networks in", data_dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if cni::name_is_valid(&name) && entry.path().is_dir() {
            let leases = count(&entry.path()).map_err(|error| cni::ErrorObject::from(error).msg);
            networks.push(Network { name, leases });
        }
    }
    networks.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(networks)
}

fn count(path: &Path) -> Result<usize, Error> {
    let mut leases = 0;
    if let Some(directory) = Directory::open(path)? {
        directory
            .list(|name, _| leases += usize::from(matches!(Name::read(name), Name::Lease(_))))?;
    }
    Ok(leases)
}

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: IpAddr,
    /// The container that has it, as a terminal can show it (as all texts of a listing).
    pub container_id: String,
    /// The container's interface; `None` in the old format.
    pub ifname: Option<String>,
    /// When it was leased; `None` when the file system does not tell.
    pub since: Option<SystemTime>,
}

/// How full a range set is, according to a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The set's ranges.
    pub set: String,
    /// How many addresses it can lease: gateways and excluded ones left out; saturating.
    pub size: u128,
    /// How many of them are leased.
    pub leased: u128,
}

/// Everything that is in a network's directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The leases, sorted by address.
    pub leases: Vec<Lease>,
    /// The last address handed out of each range set: its index and the text of its file.
    pub last_reserved: Vec<(String, String)>,
    /// How full the range sets are; empty when no configuration was given.
    pub usage: Vec<Usage>,
    /// Lease files without an owner in them. The next ADD or DEL that reads them removes them.
    pub corrupt: Vec<IpAddr>,
    /// Files that cannot be read, and why. Those of addresses are taken.
    pub unreadable: Vec<(String, String)>,
    /// Names that are none of host-local's.
    pub foreign: Vec<String>,
}

/// Reads the directory of `network` below `data_dir`. With `conf`, a network configuration whose
/// `ipam` is host-local's, its range sets' usage is told too.
///
/// # Errors
/// [`Error::NetworkName`], [`Error::NoNetwork`]; [`Error::Io`] when the directory cannot be read;
/// [`Error::Protocol`] when `conf` is wrong.
pub fn show(
    data_dir: &Path,
    network: &str,
    conf: Option<&Map<String, Value>>,
) -> Result<Listing, Error> {
    if !cni::name_is_valid(network) {
        return Err(Error::NetworkName(network.to_owned()));
    }
    let path = Options::new(data_dir, network).directory();
    let missing = || Error::NoNetwork { network: network.to_owned(), path: path.clone() };
    let directory = Directory::open(&path)?.ok_or_else(missing)?;
    let mut listing = Listing::default();
    directory.list(|name, kind| match (std::str::from_utf8(name), Name::read(name), kind) {
        (Ok(text), Name::Lease(address), FileKind::File) => {
            listing.read_lease(&directory, text, address);
        }
        (Ok(text), Name::Lease(_), FileKind::Other) => {
            listing.unreadable.push((text.to_owned(), "it is no regular file".into()));
        }
        (Ok(LOCK_FILE), ..) => {}
        (Ok(text), Name::Bookkeeping, _) => listing.read_last_reserved(&directory, text),
        _ => listing.foreign.push(legible(&String::from_utf8_lossy(name))),
    })?;
    listing.leases.sort_by_key(|lease| lease.address);
    listing.last_reserved.sort();
    listing.corrupt.sort();
    if let Some(conf) = conf {
        listing.usage = usage(conf, &listing)?;
    }
    Ok(listing)
}

impl Listing {
    fn read_lease(&mut self, directory: &Directory, name: &str, address: IpAddr) {
        let seen = directory.look(name, |bytes, since| match Content::read(bytes) {
            Content::Owned(owned) => {
                let (container_id, ifname) = Content::split(owned);
                Some(Lease { address, container_id, ifname, since: since() })
            }
            Content::Corrupt => None,
        });
        match seen {
            Ok(Some(Some(lease))) => self.leases.push(lease),
            Ok(Some(None)) => self.corrupt.push(address),
            Ok(None) => {
                // Released while we were reading, or:
                let is_link = |file: fs::Metadata| file.is_symlink();
                if fs::symlink_metadata(directory.path().join(name)).is_ok_and(is_link) {
                    self.unreadable.push((name.to_owned(), "it is a link to nothing".into()));
                }
            }
            Err(error) => self.unreadable.push((name.to_owned(), error.to_string())),
        }
    }

    fn read_last_reserved(&mut self, directory: &Directory, name: &str) {
        let set = legible(name.strip_prefix(LAST_RESERVED_PREFIX).unwrap_or_default());
        match directory.read(name) {
            Ok(Some(bytes)) => {
                self.last_reserved.push((set, legible(&String::from_utf8_lossy(&bytes))));
            }
            Ok(None) => {}
            Err(error) => self.unreadable.push((legible(name), error.to_string())),
        }
    }

    /// The addresses that are taken, whether their files can be read or not.
    fn taken(&self) -> impl Iterator<Item = IpAddr> {
        let unreadable = self.unreadable.iter().filter_map(|(name, _)| name.parse().ok());
        let leases = self.leases.iter().map(|lease| lease.address);
        leases.chain(self.corrupt.iter().copied()).chain(unreadable)
    }
}

fn usage(conf: &Map<String, Value>, listing: &Listing) -> Result<Vec<Usage>, Error> {
    let problems = Problems::default();
    let conf = Conf::read(&Fields::root(conf, &problems));
    problems.into_result()?;
    let usage = conf.sets.iter().map(|set| {
        let pool = Pool::new(set, &conf.exclude);
        let leased = listing.taken().filter(|address| pool.contains(*address)).count();
        Usage { set: set.to_string(), size: pool.size(), leased: leased as u128 }
    });
    Ok(usage.collect())
}

impl fmt::Display for Listing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for lease in &self.leases {
            let ifname = lease.ifname.as_deref().unwrap_or("-");
            let age = lease.since.and_then(|since| since.duration_since(UNIX_EPOCH).ok());
            let since = age.map_or_else(|| "-".to_owned(), |age| utc(age.as_secs()));
            writeln!(formatter, "{}\t{}\t{ifname}\t{since}", lease.address, lease.container_id)?;
        }
        for Usage { set, size, leased } in &self.usage {
            let free = size.saturating_sub(*leased);
            writeln!(formatter, "range set {set}: {leased} of {size} leased, {free} free")?;
        }
        for (set, address) in &self.last_reserved {
            writeln!(formatter, "last reserved of range set {set}: {address}")?;
        }
        for address in &self.corrupt {
            writeln!(formatter, "corrupt: {address} (no owner in it; is reclaimed)")?;
        }
        for (name, problem) in &self.unreadable {
            writeln!(formatter, "unreadable: {name}: {problem}")?;
        }
        for name in &self.foreign {
            writeln!(formatter, "not a lease: {name}")?;
        }
        Ok(())
    }
}

/// Seconds since 1970 as `2026-11-23T14:05:09Z` (the days-to-date algorithm of Howard Hinnant).
fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
#[path = "listing_tests.rs"]
mod tests;
