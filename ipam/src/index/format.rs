//! The bytes of the owner index: pure, no I/O.
//!
//! Little-endian. A header of [`HEADER_BYTES`] (padded to [`TABLE_OFFSET`]), then a power of two of
//! slots of [`SLOT_BYTES`], found by linear probing from `hash % capacity`.

use std::net::IpAddr;

/// Bytes of the header that have a meaning.
pub(super) const HEADER_BYTES: usize = 104;
/// Where the slots begin: a multiple of [`CHUNK_BYTES`], so that chunks do not straddle pages.
pub(super) const TABLE_OFFSET: u64 = 512;
/// Size of a slot.
pub(super) const SLOT_BYTES: usize = 32;
/// Slots that are read at once.
pub(super) const CHUNK_SLOTS: u32 = 16;
/// Size of these.
pub(super) const CHUNK_BYTES: usize = SLOT_BYTES * CHUNK_SLOTS as usize;
/// Smallest table.
const MIN_CAPACITY: u32 = 256;
/// Largest table: 2 GiB of slots. More leases than it holds are found by reading their files.
const MAX_CAPACITY: u32 = 1 << 26;

const MAGIC: [u8; 8] = *b"PODWIPIX";
const FORMAT_VERSION: u32 = 1;

/// FNV-1a, 64 bits.
#[must_use]
pub(super) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Spreads every bit of `value` over all bits (the finisher of SplitMix64).
#[must_use]
pub(super) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// What tells that a directory is the same and has not changed: its identity and its times.
///
/// The ctime is there because it cannot be set: a change that is hidden by setting the mtime back
/// (`touch -d`, unpacking an archive) still shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DirectoryStamp {
    /// Device.
    pub(crate) device: u64,
    /// Inode.
    pub(crate) inode: u64,
    /// Modification time: seconds and nanoseconds.
    pub(crate) mtime: (i64, i64),
    /// Change time: seconds and nanoseconds.
    pub(crate) ctime: (i64, i64),
}

/// The header of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// The boot in which the index was written.
    pub(crate) boot: [u8; 16],
    /// The directory as it was then; `None` when its times cannot be trusted.
    pub(crate) stamp: Option<DirectoryStamp>,
    /// Number of slots, a power of two.
    pub(crate) capacity: u32,
    /// Slots that hold a lease.
    pub(crate) live: u32,
    /// Slots whose lease has gone.
    pub(crate) dead: u32,
    /// Leases in the old format, without an interface.
    pub(crate) bare: u32,
}

/// Reads little-endian values one after the other.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn time(&mut self) -> Option<(i64, i64)> {
        Some((self.take().map(i64::from_le_bytes)?, self.take().map(i64::from_le_bytes)?))
    }
}

impl Header {
    /// The header of an empty table.
    #[must_use]
    pub(crate) const fn new(boot: [u8; 16], capacity: u32) -> Self {
        Self { boot, stamp: None, capacity, live: 0, dead: 0, bare: 0 }
    }

    /// The bytes of the header.
    #[must_use]
    pub(super) fn encode(&self) -> Vec<u8> {
        let nothing = DirectoryStamp { device: 0, inode: 0, mtime: (0, 0), ctime: (0, 0) };
        let stamp = self.stamp.unwrap_or(nothing);
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend(MAGIC);
        for number in [FORMAT_VERSION, u32::from(self.stamp.is_some())] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(self.boot);
        for number in [stamp.device, stamp.inode] {
            bytes.extend(number.to_le_bytes());
        }
        for number in [stamp.mtime.0, stamp.mtime.1, stamp.ctime.0, stamp.ctime.1] {
            bytes.extend(number.to_le_bytes());
        }
        for number in [self.capacity, self.live, self.dead, self.bare] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(mix(fnv(&bytes)).to_le_bytes());
        bytes
    }

    /// Reads a header; `None` when it is not one that this version wrote whole.
    #[must_use]
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        if reader.take()? != MAGIC || reader.u32()? != FORMAT_VERSION {
            return None;
        }
        let trusted = reader.u32()? == 1;
        let boot = reader.take()?;
        let stamp = DirectoryStamp {
            device: reader.u64()?,
            inode: reader.u64()?,
            mtime: reader.time()?,
            ctime: reader.time()?,
        };
        let (capacity, live, dead, bare) =
            (reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?);
        let summed = bytes.len() - reader.0.len();
        if mix(fnv(bytes.get(..summed)?)) != reader.u64()? {
            return None;
        }
        let sane = capacity.is_power_of_two()
            && (MIN_CAPACITY..=MAX_CAPACITY).contains(&capacity)
            && live.checked_add(dead)? < capacity;
        sane.then_some(Self { boot, stamp: trusted.then_some(stamp), capacity, live, dead, bare })
    }

    /// Whether one more lease would make the probes long.
    #[must_use]
    pub(super) fn is_crowded(&self) -> bool {
        u64::from(self.live) + u64::from(self.dead) + 1 > u64::from(self.capacity) * 5 / 8
    }
}

/// The capacity for `leases`, with room to grow; `None` when there are too many.
#[must_use]
pub(super) fn capacity_for(leases: usize) -> Option<u32> {
    let wanted = u32::try_from(leases.checked_mul(2)?).ok()?.checked_next_power_of_two()?;
    (wanted <= MAX_CAPACITY).then_some(wanted.max(MIN_CAPACITY))
}

/// A lease as the index knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// [`super::owner_hash`] of the lease file's content.
    pub(crate) hash: u64,
    /// The leased address.
    pub(crate) address: IpAddr,
}

/// A place of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// Never used: a probe ends here.
    Empty,
    /// Its lease has gone: a probe goes on.
    Dead,
    /// A lease.
    Live(Entry),
}

impl Slot {
    /// The bytes of the slot at `position` of a table with `capacity`.
    ///
    /// The checksum covers the place, so that neither zeroed nor displaced bytes pass for a slot.
    #[must_use]
    pub(super) fn encode(&self, position: u32, capacity: u32) -> [u8; SLOT_BYTES] {
        let (state, hash, address) = match self {
            Self::Empty => (1_u32, 0, 0),
            Self::Dead => (2, 0, 0),
            Self::Live(entry) => match entry.address {
                IpAddr::V4(address) => (4, entry.hash, u128::from(address.to_bits())),
                IpAddr::V6(address) => (6, entry.hash, address.to_bits()),
            },
        };
        let mut bytes = [0; SLOT_BYTES];
        let parts = [&hash.to_le_bytes()[..], &address.to_le_bytes(), &state.to_le_bytes()];
        let sum = check(&parts, position, capacity).to_le_bytes();
        let flat = parts.into_iter().flatten().chain(&sum);
        bytes.iter_mut().zip(flat).for_each(|(to, from)| *to = *from);
        bytes
    }

    /// Reads a slot; `None` when its bytes are damaged.
    #[must_use]
    pub(super) fn decode(bytes: &[u8], position: u32, capacity: u32) -> Option<Self> {
        let mut reader = Reader(bytes);
        let (hash, address, state) =
            (reader.take::<8>()?, reader.take::<16>()?, reader.take::<4>()?);
        if check(&[&hash, &address, &state], position, capacity) != reader.u32()? {
            return None;
        }
        let (hash, address) = (u64::from_le_bytes(hash), u128::from_le_bytes(address));
        let live = |address| Self::Live(Entry { hash, address });
        match u32::from_le_bytes(state) {
            1 => Some(Self::Empty),
            2 => Some(Self::Dead),
            4 => Some(live(IpAddr::V4(u32::try_from(address).ok()?.into()))),
            6 => Some(live(IpAddr::V6(address.into()))),
            _ => None,
        }
    }
}

/// The checksum of a slot: 32 bits of a mix of its content and its place.
fn check(parts: &[&[u8]], position: u32, capacity: u32) -> u32 {
    let place = (u64::from(position) << 32) | u64::from(capacity);
    let sum = parts.iter().fold(mix(place), |sum, part| mix(sum ^ fnv(part)));
    (sum >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
            any::<u128>().prop_map(|bits| IpAddr::V6(bits.into())),
        ]
    }

    fn any_slot() -> impl Strategy<Value = Slot> {
        prop_oneof![
            Just(Slot::Empty),
            Just(Slot::Dead),
            (any::<u64>(), any_address())
                .prop_map(|(hash, address)| Slot::Live(Entry { hash, address })),
        ]
    }

    fn header() -> Header {
        let stamp = DirectoryStamp { device: 1, inode: 2, mtime: (-3, 4), ctime: (5, 999_999_999) };
        let empty = Header::new([7; 16], 512);
        Header { stamp: Some(stamp), live: 100, dead: 3, bare: 1, ..empty }
    }

    #[test]
    fn the_header_round_trips_and_fits() {
        for header in [header(), Header { stamp: None, ..header() }] {
            let bytes = header.encode();
            assert_eq!(bytes.len(), HEADER_BYTES);
            assert!(bytes.len() as u64 <= TABLE_OFFSET);
            assert_eq!(Header::decode(&bytes), Some(header));
        }
    }

    #[test]
    fn capacities_leave_room() {
        assert_eq!(capacity_for(0), Some(256));
        assert_eq!(capacity_for(10_000), Some(32_768));
        assert_eq!(capacity_for(usize::MAX), None);
        let crowded = Header { live: 300, dead: 30, ..Header::new([0; 16], 512) };
        assert!(crowded.is_crowded());
    }

    proptest! {
        #[test]
        fn any_damage_of_a_header_is_seen(at in 0..HEADER_BYTES, flip in 1_u8..) {
            let mut bytes = header().encode();
            bytes[at] ^= flip;
            prop_assert_eq!(Header::decode(&bytes), None);
        }

        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>) {
            prop_assert_eq!(Header::decode(&bytes), None);
            let _ = Slot::decode(&bytes, 0, 256);
        }

        #[test]
        fn slots_round_trip_at_their_place_only(slot in any_slot(), at in 0_u32..256) {
            let bytes = slot.encode(at, 256);
            prop_assert_eq!(Slot::decode(&bytes, at, 256), Some(slot));
            prop_assert_eq!(Slot::decode(&bytes, at + 1, 256), None);
            prop_assert_eq!(Slot::decode(&bytes, at, 512), None);
            prop_assert_eq!(Slot::decode(&[0; SLOT_BYTES], at, 256), None);
        }

        #[test]
        fn any_damage_of_a_slot_is_seen(slot in any_slot(), at in 0..SLOT_BYTES, flip in 1_u8..) {
            let mut bytes = slot.encode(3, 256);
            bytes[at] ^= flip;
            prop_assert_eq!(Slot::decode(&bytes, 3, 256), None);
        }
    }
}
