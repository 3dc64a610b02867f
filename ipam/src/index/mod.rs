//! The owner index: which addresses belong to a (container, interface), without reading every lease
//! file of the network.
//!
//! It is a file of its own, `<dataDir>/.podwire/<network>`: a hash table with fixed slots that is
//! read and written in place, a few hundred bytes per call. It is only ever a hint. What makes it
//! safe beside a plugin that does not know it:
//!
//! - It counts as valid only while the directory's stamp (device, inode, mtime, ctime) and the boot
//!   are the recorded ones; anything else means reading all lease files again. A lease is created or
//!   removed *before* the table is changed, and the stamp is recorded last: a crash in between leaves
//!   a stamp that does not match.
//! - Two changes within one tick of the kernel's clock may get the same mtime. So each of our calls
//!   ends by setting the directory's mtime to a time between two ticks, which no later change can get.
//!   Where the file system cannot keep such a time, the table is never trusted.
//! - Every hit is compared with the lease file before it is believed, and every slot and the header
//!   have a checksum, so that a miss is not the work of damaged bytes.
//!
//! What it cannot see: a lease file *rewritten in place* by hand, which changes no directory. No
//! plugin does that; such a lease is still never released for the wrong owner.

mod format;
mod owners;
mod table;

pub(crate) use format::{DirectoryStamp, Entry};
pub(crate) use owners::{Owners, Place};
pub(crate) use table::Table;

/// The hash by which owners are found: FNV-1a over the trimmed content of the lease file, with a
/// final mix because the table uses the low bits.
#[must_use]
pub(crate) fn owner_hash(content: &[u8]) -> u64 {
    format::mix(format::fnv(content))
}
