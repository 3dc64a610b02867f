//! Leases on disk: host-local's files, and an index of owners beside them.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::{AT_FDCWD, AtFlags, FlockArg, OFlag, openat};
use nix::sys::stat::{Mode, fstat, futimens};
use nix::sys::time::TimeSpec;
use nix::sys::uio::{pread, pwrite};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{UnlinkatFlags, linkat, read, unlinkat, write};

use crate::environment::Environment;
use crate::system::{self, Failure};
use crate::text::Text;

/// Where a range's addresses begin: 10.88.0.0/16.
const V4: u32 = 10 << 24 | 88 << 16;
/// Its gateway, and that of the IPv6 range, is its first address.
pub(crate) const GATEWAY_V4: [u8; 4] = [10, 88, 0, 1];
/// fd00:88::1.
pub(crate) const GATEWAY_V6: [u8; 16] = [0xfd, 0, 0, 0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// podwire's index: a header, then slots that are read in blocks. The header begins with how many
/// slots there are.
const HEADER: usize = 104;
const TABLE: u64 = 4096;
const SLOT: u64 = 32;
const BLOCK: usize = 512;

/// The addresses of an attachment: their last 16 bits.
pub(crate) struct Leases {
    v4: u16,
    v6: Option<u16>,
}

impl Leases {
    pub(crate) fn v4(&self) -> [u8; 4] {
        (V4 | u32::from(self.v4)).to_be_bytes()
    }

    pub(crate) fn v6(&self) -> Option<[u8; 16]> {
        let mut address = GATEWAY_V6;
        let [high, low] = self.v6?.to_be_bytes();
        let [.., before_last, last] = &mut address;
        (*before_last, *last) = (high, low);
        Some(address)
    }

    pub(crate) fn v4_text(&self) -> Text {
        text(self.v4, false)
    }

    pub(crate) fn v6_text(&self) -> Option<Text> {
        self.v6.map(|number| text(number, true))
    }
}

fn text(number: u16, is_v6: bool) -> Text {
    if is_v6 {
        let mut text = Text::of(&["fd00:88::"]);
        text.push_hex(number.into());
        return text;
    }
    let mut text = Text::of(&["10.88."]);
    text.push_decimal(u32::from(number >> 8));
    text.push(".");
    text.push_decimal(u32::from(number & 255));
    text
}

fn parse(text: &[u8], is_v6: bool) -> Option<u16> {
    let text = str::from_utf8(text).ok()?;
    if is_v6 {
        return u16::from_str_radix(text.strip_prefix("fd00:88::")?, 16).ok();
    }
    let (high, low) = text.strip_prefix("10.88.")?.split_once('.')?;
    Some(high.parse::<u16>().ok()? << 8 | low.parse::<u16>().ok()?)
}

/// The network's directory and its index, with the lock held.
struct Store {
    directory: OwnedFd,
    _lock: OwnedFd,
    index: OwnedFd,
    header: [u8; HEADER],
}

impl Store {
    fn open(environment: &Environment) -> Result<Self, Failure> {
        let path = |name| Text::of(&[environment.data_dir, name]);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let directory = system::open(path("/bench").as_str(), flags, "open the lease directory")?;
        let flags = OFlag::O_RDONLY | OFlag::O_CREAT;
        let lock = open_in(directory.as_fd(), "lock", flags, 0o750)?;
        take_lock(&lock)?;
        let boot =
            system::open("/proc/sys/kernel/random/boot_id", OFlag::O_RDONLY, "open the boot id")?;
        read(&boot, &mut [0; 64]).map_err(Failure::at("read the boot id"))?;
        drop(boot);
        let index = system::open(path("/.index").as_str(), OFlag::O_RDWR, "open the index")?;
        let mut header = [0; HEADER];
        pread(&index, &mut header, 0).map_err(Failure::at("read the index"))?;
        fstat(&directory).map_err(Failure::at("stat the lease directory"))?;
        Ok(Self { directory, _lock: lock, index, header })
    }

    /// Where the slot of an owner is, by a hash (FNV-1a). Two owners may share one here, because at
    /// most one attachment at a time is ever looked up.
    fn slot(&self, container: &str, is_v6: bool) -> u64 {
        let start = 0xcbf2_9ce4_8422_2325 ^ u64::from(is_v6);
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        let slots =
            self.header.first_chunk().map_or(1, |slots| u64::from(u32::from_ne_bytes(*slots)));
        TABLE + container.bytes().fold(start, step) % slots.max(1) * SLOT
    }

    /// Reads the block of the index that has the slot at `offset`; the slot's number.
    fn look_up(&self, offset: u64) -> Result<u16, Failure> {
        let mut block = [0; BLOCK];
        let start = offset / BLOCK as u64 * BLOCK as u64;
        pread(&self.index, &mut block, start.cast_signed())
            .map_err(Failure::at("read the index"))?;
        let slot = block.get((offset - start) as usize..).and_then(<[u8]>::first_chunk);
        Ok(slot.map_or(0, |number| u16::from_ne_bytes(*number)))
    }

    fn write_slot(&self, offset: u64, number: u16) -> Result<(), Failure> {
        let mut slot = [0; SLOT as usize];
        let [high, low] = number.to_ne_bytes();
        [slot[0], slot[1]] = [high, low];
        pwrite(&self.index, &slot, offset.cast_signed()).map_err(Failure::at("write the index"))?;
        Ok(())
    }

    /// Records that index and directory belong together.
    fn seal(&self) -> Result<(), Failure> {
        let now = clock_gettime(ClockId::CLOCK_REALTIME).map_err(Failure::at("read the clock"))?;
        futimens(&self.directory, &TimeSpec::UTIME_OMIT, &now)
            .map_err(Failure::at("stamp the lease directory"))?;
        fstat(&self.directory).map_err(Failure::at("stat the lease directory"))?;
        pwrite(&self.index, &self.header, 0).map_err(Failure::at("write the index"))?;
        Ok(())
    }

    /// Leases the address after the last.
    fn take(&self, environment: &Environment, is_v6: bool) -> Result<u16, Failure> {
        let offset = self.slot(environment.container, is_v6);
        self.look_up(offset)?;
        let name = if is_v6 { "last_reserved_ip.1" } else { "last_reserved_ip.0" };
        let last = open_in(self.directory.as_fd(), name, OFlag::O_RDWR, 0)?;
        let mut buffer = [0; 64];
        let length = read(&last, &mut buffer).map_err(Failure::at("read the last address"))?;
        let number = parse(buffer.get(..length).unwrap_or_default(), is_v6)
            .map_or(2, |number| number.wrapping_add(1));
        let address = text(number, is_v6);
        let content = Text::of(&[environment.container, "\r\n", environment.ifname]);
        self.publish(content.as_str(), address.as_str())?;
        self.write_slot(offset, number)?;
        pwrite(&last, address.as_str().as_bytes(), 0)
            .map_err(Failure::at("write the last address"))?;
        Ok(number)
    }

    /// A lease file that appears whole.
    fn publish(&self, content: &str, name: &str) -> Result<(), Failure> {
        let failed = Failure::at("write a lease");
        let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY;
        let file = open_in(self.directory.as_fd(), ".", flags, 0o600)?;
        write(&file, content.as_bytes()).map_err(&failed)?;
        let mut unnamed = Text::of(&["/proc/self/fd/"]);
        unnamed.push_decimal(file.as_raw_fd().unsigned_abs());
        let follow = AtFlags::AT_SYMLINK_FOLLOW;
        linkat(AT_FDCWD, unnamed.as_str(), &self.directory, name, follow).map_err(failed)
    }

    fn release(&self, environment: &Environment, is_v6: bool) -> Result<(), Failure> {
        let offset = self.slot(environment.container, is_v6);
        let address = text(self.look_up(offset)?, is_v6);
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        let file = open_in(self.directory.as_fd(), address.as_str(), flags, 0)?;
        read(&file, &mut [0; 1024]).map_err(Failure::at("read a lease"))?;
        drop(file);
        unlinkat(&self.directory, address.as_str(), UnlinkatFlags::NoRemoveDir)
            .map_err(Failure::at("remove a lease"))?;
        self.write_slot(offset, 0)
    }
}

fn open_in(
    directory: BorrowedFd<'_>,
    name: &str,
    flags: OFlag,
    mode: u32,
) -> Result<OwnedFd, Failure> {
    openat(directory, name, flags | OFlag::O_CLOEXEC, Mode::from_bits_truncate(mode))
        .map_err(Failure::at("open a file of the lease directory"))
}

fn take_lock(lock: &OwnedFd) -> Result<(), Failure> {
    #[expect(deprecated, reason = "its replacement unlocks with one more system call")]
    nix::fcntl::flock(lock.as_raw_fd(), FlockArg::LockExclusive).map_err(Failure::at("flock"))
}

/// Leases one address of each range.
pub(crate) fn take(environment: &Environment, is_dual: bool) -> Result<Leases, Failure> {
    let store = Store::open(environment)?;
    let v4 = store.take(environment, false)?;
    let v6 = if is_dual { Some(store.take(environment, true)?) } else { None };
    store.seal()?;
    Ok(Leases { v4, v6 })
}

/// Releases what [`take`] took.
pub(crate) fn release(environment: &Environment, is_dual: bool) -> Result<(), Failure> {
    let store = Store::open(environment)?;
    store.release(environment, false)?;
    if is_dual {
        store.release(environment, true)?;
    }
    store.seal()
}
