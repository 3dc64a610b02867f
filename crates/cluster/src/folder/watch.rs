//! Being told by the kernel that a folder changes.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use futures_util::{FutureExt, StreamExt};
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchMask};
use tokio::task::yield_now;

use super::manifest::Format;

/// Bytes that the kernel's answers are read into, some 50 events.
const BUFFER: usize = 4096;

/// What was seen of a folder's manifests.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Those that were changed: read again, whatever their times say.
    pub(super) touched: BTreeSet<OsString>,
    /// Those that somebody is writing. The kernel tells the end of it also when the writer dies.
    pub(super) writing: BTreeSet<OsString>,
    /// Those that were made: as long as they are empty, somebody is about to write them.
    pub(super) made: BTreeSet<OsString>,
    /// Something may have been missed: all are to be read again.
    pub(super) everything: bool,
    /// It was, as the kernel keeps so many events and no more: that somebody is writing, too.
    pub(super) missed: bool,
    /// Those that were seen to be written to their end since: they are whole.
    pub(super) whole: BTreeSet<OsString>,
    /// Those that somebody may be writing who was missed.
    pub(super) doubted: BTreeSet<OsString>,
    /// The folder itself has gone or moved.
    pub(super) gone: bool,
}

impl Seen {
    /// Begins anew, but for the files that are still being written, or may be.
    pub(super) fn reset(&mut self) {
        let Self { writing, made, doubted, .. } = std::mem::take(self);
        *self = Self { writing, made, doubted, ..Self::default() };
    }

    fn add(&mut self, event: EventOwned) {
        let mask = event.mask;
        if mask.contains(EventMask::Q_OVERFLOW) {
            *self = Self { everything: true, missed: true, ..Self::default() };
        }
        if mask.intersects(EventMask::IGNORED | EventMask::MOVE_SELF) {
            self.gone = true;
        }
        let Some(name) = event.name.filter(|name| Format::of(Path::new(name)).is_some()) else {
            return;
        };
        if mask.contains(EventMask::MODIFY) {
            self.whole.remove(&name);
            self.writing.insert(name);
            return;
        }
        let ends = EventMask::CLOSE_WRITE | EventMask::MOVED_TO | EventMask::DELETE;
        if mask.intersects(ends) {
            self.doubted.remove(&name);
            if self.missed {
                self.whole.insert(name.clone());
            }
        }
        if !mask.contains(EventMask::ATTRIB) {
            self.writing.remove(&name);
            self.made.remove(&name);
        }
        if mask.contains(EventMask::CREATE) {
            self.made.insert(name.clone());
        }
        self.touched.insert(name);
    }
}

/// A watch of a folder.
pub(super) struct Watch {
    events: EventStream<Vec<u8>>,
    folder: (u64, u64),
}

impl Watch {
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        let wanted = WatchMask::CREATE
            | WatchMask::MODIFY
            | WatchMask::CLOSE_WRITE
            | WatchMask::ATTRIB
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::DELETE
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        let inotify = Inotify::init()?;
        inotify.watches().add(dir, wanted)?;
        let folder = identity(dir)?;
        Ok(Self { events: inotify.into_event_stream(vec![0; BUFFER])?, folder })
    }

    /// Whether `dir` is still the folder that is watched: it may be a symbolic link.
    pub(super) fn is_of(&self, dir: &Path) -> bool {
        identity(dir).is_ok_and(|folder| folder == self.folder)
    }

    /// Waits until something is seen.
    pub(super) async fn wait(&mut self, seen: &mut Seen) {
        let event = self.events.next().await;
        add(seen, event);
    }

    /// Takes in what there is to be seen by now.
    pub(super) async fn take(&mut self, seen: &mut Seen) {
        // The runtime looks for it.
        yield_now().await;
        while !seen.gone
            && let Some(event) = self.events.next().now_or_never()
        {
            add(seen, event);
        }
    }
}

fn add(seen: &mut Seen, event: Option<io::Result<EventOwned>>) {
    match event {
        Some(Ok(event)) => seen.add(event),
        // The kernel knows no reason for this; a new watch is the cure.
        Some(Err(_)) | None => seen.gone = true,
    }
}

fn identity(dir: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(dir)?;
    Ok((metadata.dev(), metadata.ino()))
}
