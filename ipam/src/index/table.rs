//! The owner index in its file: read and written in place, a chunk of slots at a time.

use std::fs::File;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::FileExt;

use super::format::{
    CHUNK_BYTES, CHUNK_SLOTS, Entry, HEADER_BYTES, Header, SLOT_BYTES, Slot, TABLE_OFFSET,
    capacity_for,
};

/// Bytes that are written or read at once when the whole table is.
const BUFFER_BYTES: usize = 16 * 1024;

/// An open index whose header is whole.
#[derive(Debug)]
pub(crate) struct Table {
    file: File,
    header: Header,
    /// The chunk read last: lookup, insertion and removal of one owner mostly share it.
    cached: Option<(u32, [u8; CHUNK_BYTES])>,
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the owner index is damaged")
}

impl Table {
    /// Reads the header of `file`.
    ///
    /// # Errors
    /// Reading failed, or the header is not whole ([`io::ErrorKind::InvalidData`]).
    pub(crate) fn open(file: File) -> io::Result<Self> {
        let mut bytes = [0; HEADER_BYTES];
        file.read_exact_at(&mut bytes, 0)?;
        let header = Header::decode(&bytes).ok_or_else(damaged)?;
        Ok(Self { file, header, cached: None })
    }

    /// The header.
    #[must_use]
    pub(crate) const fn header(&self) -> &Header {
        &self.header
    }

    /// The addresses whose lease files had a content with this hash.
    ///
    /// # Errors
    /// Reading failed, or a slot on the way is damaged.
    pub(crate) fn find(&mut self, hash: u64) -> io::Result<Vec<IpAddr>> {
        let mut found = Vec::new();
        self.probe(hash, |_, slot| match slot {
            Slot::Live(entry) if entry.hash == hash => {
                found.push(entry.address);
                false
            }
            slot => slot == Slot::Empty,
        })?;
        Ok(found)
    }

    /// Whether an insertion should wait for a larger table.
    #[must_use]
    pub(crate) fn is_crowded(&self) -> bool {
        self.header.is_crowded()
    }

    /// Adds an entry, whose lease exists already.
    ///
    /// # Errors
    /// As [`Self::find`]; writing failed.
    pub(crate) fn insert(&mut self, entry: Entry) -> io::Result<()> {
        let (at, found) =
            self.probe(entry.hash, |_, slot| !matches!(slot, Slot::Live(other) if other != entry))?;
        match found {
            Slot::Live(_) => return Ok(()),
            Slot::Dead => self.header.dead = self.header.dead.saturating_sub(1),
            Slot::Empty => {}
        }
        self.write_slot(at, Slot::Live(entry))?;
        self.header.live += 1;
        Ok(())
    }

    /// Removes an entry, whose lease has gone already; `bare` when that was in the old format.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub(crate) fn remove(&mut self, entry: Entry, bare: bool) -> io::Result<()> {
        let stop = |_, slot| slot == Slot::Empty || slot == Slot::Live(entry);
        let (at, found) = self.probe(entry.hash, stop)?;
        if found == Slot::Empty {
            return Ok(());
        }
        // No probe needs to pass a slot that is followed by an empty one.
        let next = self.slot((at + 1) % self.header.capacity)?;
        let left = if next == Slot::Empty { Slot::Empty } else { Slot::Dead };
        self.write_slot(at, left)?;
        self.header.dead += u32::from(left == Slot::Dead);
        self.header.live = self.header.live.saturating_sub(1);
        self.header.bare = self.header.bare.saturating_sub(u32::from(bare));
        Ok(())
    }

    /// Writes the header with `stamp`: from now on the table is valid again.
    ///
    /// # Errors
    /// Writing failed.
    pub(crate) fn seal(&mut self, stamp: Option<super::DirectoryStamp>) -> io::Result<()> {
        self.header.stamp = stamp;
        self.file.write_all_at(&self.header.encode(), 0)
    }

    /// Pretends that another boot wrote the table.
    #[cfg(test)]
    pub(crate) const fn set_boot(&mut self, boot: [u8; 16]) {
        self.header.boot = boot;
    }

    /// All entries, read from the first slot to the last.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub(crate) fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::with_capacity(self.header.live as usize);
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut position = 0;
        while position < self.header.capacity {
            let slots = (self.header.capacity - position).min((BUFFER_BYTES / SLOT_BYTES) as u32);
            let part = buffer.get_mut(..slots as usize * SLOT_BYTES).ok_or_else(damaged)?;
            self.file.read_exact_at(part, offset(position))?;
            for bytes in part.chunks_exact(SLOT_BYTES) {
                if let Slot::Live(entry) = self.decode(bytes, position)? {
                    entries.push(entry);
                }
                position += 1;
            }
        }
        Ok(entries)
    }

    /// Fills the new, empty `file` with a table of `entries`, which is not valid until it is
    /// sealed. `None` when there are too many of them.
    ///
    /// # Errors
    /// Writing failed.
    pub(crate) fn create(
        file: File,
        boot: [u8; 16],
        entries: &mut [Entry],
        bare: u32,
    ) -> io::Result<Option<Self>> {
        let Some(capacity) = capacity_for(entries.len()) else { return Ok(None) };
        let mut table = Self { file, header: Header::new(boot, capacity), cached: None };
        // In the order of their first places the entries can be written as a stream. What would
        // come after the last slot wraps to the front, as probes do.
        entries.sort_unstable_by_key(|entry| home(entry.hash, capacity));
        let wrapped = table.stream(entries)?;
        for entry in wrapped {
            table.insert(*entry)?;
        }
        table.header.live = u32::try_from(entries.len()).map_err(|_| damaged())?;
        table.header.bare = bare;
        Ok(Some(table))
    }

    /// Writes header and slots one after the other; returns the entries that found no place.
    fn stream<'a>(&self, entries: &'a [Entry]) -> io::Result<&'a [Entry]> {
        let capacity = self.header.capacity;
        let mut out = io::BufWriter::with_capacity(BUFFER_BYTES, &self.file);
        let mut head = self.header.encode();
        head.resize(TABLE_OFFSET as usize, 0);
        out.write_all(&head)?;
        let mut rest = entries;
        for position in 0..capacity {
            let slot = match rest.split_first() {
                Some((entry, others)) if home(entry.hash, capacity) <= position => {
                    rest = others;
                    Slot::Live(*entry)
                }
                _ => Slot::Empty,
            };
            out.write_all(&slot.encode(position, capacity))?;
        }
        out.flush()?;
        Ok(rest)
    }

    /// Flushes the file to the disk.
    ///
    /// # Errors
    /// Writing failed.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Walks from the home of `hash` until `stop` says so; returns the place and its slot.
    fn probe(
        &mut self,
        hash: u64,
        mut stop: impl FnMut(u32, Slot) -> bool,
    ) -> io::Result<(u32, Slot)> {
        let capacity = self.header.capacity;
        let start = home(hash, capacity);
        for step in 0..capacity {
            let position = (start + step) % capacity;
            let slot = self.slot(position)?;
            if stop(position, slot) {
                return Ok((position, slot));
            }
        }
        Err(damaged())
    }

    fn slot(&mut self, position: u32) -> io::Result<Slot> {
        let (chunk, within) = (position / CHUNK_SLOTS, (position % CHUNK_SLOTS) as usize);
        let bytes = match &self.cached {
            Some((cached, bytes)) if *cached == chunk => *bytes,
            _ => {
                let mut bytes = [0; CHUNK_BYTES];
                self.file.read_exact_at(&mut bytes, offset(chunk * CHUNK_SLOTS))?;
                self.cached = Some((chunk, bytes));
                bytes
            }
        };
        let bytes = bytes.chunks_exact(SLOT_BYTES).nth(within).ok_or_else(damaged)?;
        self.decode(bytes, position)
    }

    fn write_slot(&mut self, position: u32, slot: Slot) -> io::Result<()> {
        self.cached = None;
        self.file.write_all_at(&slot.encode(position, self.header.capacity), offset(position))
    }

    fn decode(&self, bytes: &[u8], position: u32) -> io::Result<Slot> {
        Slot::decode(bytes, position, self.header.capacity).ok_or_else(damaged)
    }
}

/// Where the probe for `hash` begins. The capacity is a power of two.
const fn home(hash: u64, capacity: u32) -> u32 {
    (hash % capacity as u64) as u32
}

fn offset(position: u32) -> u64 {
    TABLE_OFFSET + u64::from(position) * SLOT_BYTES as u64
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
