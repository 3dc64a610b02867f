//! A folder of manifests as the source of objects: for nodes without a cluster.
//!
//! `*.yaml`, `*.yml` and `*.json` are read, those of subfolders are not. A file that is wrong
//! somewhere counts as it was when it was last good. Nothing is told before each has been good once:
//! what the kernel has from before may be just what the bad one said. Pods, Namespaces and NetworkPolicies are
//! told apart by their names.

mod contents;
mod disk;
mod manifest;
mod report;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep, timeout};

use self::contents::Contents;
use self::disk::Disk;
pub(crate) use self::disk::{LONGEST_FILE, content};
pub(crate) use self::manifest::{Format, Written, parse_as};
pub use self::report::{Defect, Place, Problem, Report, State};
use self::watch::{Seen, Watch};
use super::{Event, Node};

/// How often the folder is looked at though nothing was seen: manifests may be links to places
/// that are not watched.
const LOOK: Duration = Duration::from_secs(10);

/// The same while it cannot be listed or watched.
const RETRY: Duration = Duration::from_secs(1);

/// How long nothing may be seen before the folder is read: what several system calls change (an
/// editor that puts a new file in the place of the old one) is read once, and whole.
const QUIET: Duration = Duration::from_millis(30);

/// The most that a folder can delay being read by changing all the time.
const MOST_DELAY: Duration = Duration::from_millis(500);

/// A folder of manifests, and the node that policyd runs on.
#[derive(Debug)]
pub struct Folder {
    /// The folder.
    pub dir: PathBuf,
    /// The node. Pods whose manifest names none are on it.
    pub node: Node,
}

impl Folder {
    /// Sends what the folder holds and how it changes, until nobody receives it any more. What the
    /// manifests' author should know is given to `report`, once for as long as it stands; `defective`
    /// is told, after each reading, how many files may have objects that could not be read, and how many
    /// objects are left out as others have their names.
    pub async fn run(
        self,
        events: Sender<Event>,
        mut report: impl FnMut(&Report),
        mut defective: impl FnMut(usize),
    ) {
        let mut source = Source::new(&self);
        if events.send(Event::Node(self.node)).await.is_err() {
            return;
        }
        while !events.is_closed() {
            let read = source.read(&mut report);
            defective(source.disk.defective() + source.duplicates.len());
            for event in read {
                if events.send(event).await.is_err() {
                    return;
                }
            }
            source.wait().await;
        }
    }
}

struct Source {
    dir: PathBuf,
    disk: Disk,
    watch: Option<Watch>,
    seen: Seen,
    contents: Option<Contents>,
    duplicates: Vec<Report>,
    told: BTreeSet<String>,
}

impl Source {
    fn new(folder: &Folder) -> Self {
        Self {
            dir: folder.dir.clone(),
            disk: Disk::new(folder.dir.clone(), folder.node.name.clone()),
            watch: None,
            seen: Seen::default(),
            contents: None,
            duplicates: Vec::new(),
            told: BTreeSet::new(),
        }
    }

    /// Reads what has changed and returns what that means.
    fn read(&mut self, report: &mut impl FnMut(&Report)) -> Vec<Event> {
        let mut reports = Vec::new();
        if let Err(source) = self.keep_watch() {
            let seconds = RETRY.as_secs();
            reports.push(Report::Watch { dir: self.dir.clone(), seconds, source });
        }
        let bad = if self.contents.is_some() { State::Nothing } else { State::Awaited };
        let events = match self.disk.read(&self.seen, bad) {
            Ok(changed) => self.changes(changed),
            // One report of a folder that is not there is enough.
            Err(failed) => {
                reports = vec![failed];
                Vec::new()
            }
        };
        self.seen.reset();
        let mut standing = BTreeSet::new();
        for it in self.disk.reports().chain(&self.duplicates).chain(&reports) {
            let text = it.to_string();
            if !self.told.contains(&text) && !standing.contains(&text) {
                report(it);
            }
            standing.insert(text);
        }
        self.told = standing;
        events
    }

    /// Watches the folder, and anew when it is another one of that name.
    fn keep_watch(&mut self) -> std::io::Result<()> {
        let lasts = |watch: &mut Watch| watch.is_of(&self.dir) && !self.seen.gone;
        if self.watch.as_mut().is_some_and(lasts) {
            return Ok(());
        }
        self.watch = None;
        self.seen = Seen { everything: true, ..Seen::default() };
        self.watch = Some(Watch::new(&self.dir)?);
        Ok(())
    }

    fn changes(&mut self, changed: bool) -> Vec<Event> {
        let is_started = self.contents.is_some();
        if !changed && is_started || !is_started && !self.disk.is_known() {
            return Vec::new();
        }
        let (contents, duplicates) = Contents::of(self.disk.manifests(), self.contents.as_ref());
        self.duplicates = duplicates;
        let events = match &self.contents {
            None => contents.listed().into(),
            Some(before) => contents.since(before),
        };
        self.contents = Some(contents);
        events
    }

    /// Waits until the folder should be read again.
    async fn wait(&mut self) {
        let patience = if self.contents.is_some() { LOOK } else { RETRY };
        let Some(watch) = self.watch.as_mut().filter(|_| !self.seen.gone) else {
            return sleep(RETRY).await;
        };
        if timeout(patience, watch.wait(&mut self.seen)).await.is_err() {
            return;
        }
        let end = Instant::now() + MOST_DELAY;
        while Instant::now() < end && !self.seen.gone {
            if timeout(QUIET, watch.wait(&mut self.seen)).await.is_err() {
                return;
            }
        }
    }
}
