//! A folder of manifests as the source of objects: for nodes without a cluster.
//!
//! `*.yaml`, `*.yml` and `*.json` are read, those of subfolders are not. A file that is wrong
//! somewhere counts as it was when it was last good. For a file that was never good see [`Kinds::NEEDS_ALL`]. Objects are told
//! apart by their kinds and names. What is told of several files was there at one time,
//! as long as the folder ever rests.

mod contents;
mod disk;
mod kinds;
mod manifest;
mod report;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep, timeout};

use self::contents::Contents;
use self::disk::{Disk, Manifests};
pub use self::disk::{LONGEST_FILE, content};
pub use self::kinds::{Kind, Kinds, Wrong, typed};
pub use self::manifest::{Entry, Format, Manifest, parse};
pub use self::report::{Defect, Place, Problem, Report, State};
use self::watch::{Seen, Watch};
use crate::Change;

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

/// So often the folder is read, one time after the other, until nothing has changed since the time before.
const MOST_PASSES: usize = 6;
/// A file that is otherwise so many times in a row is not waited for.
const RESTLESS: usize = 3;

/// An object's kind and its name, which has the namespace and a slash before it where the kind has namespaces.
pub type Identity = (&'static str, String);

/// Objects by their identities.
pub type Objects<T> = BTreeMap<Identity, T>;

/// A folder of manifests.
pub struct Folder<K: Kinds> {
    dir: PathBuf,
    kinds: K,
    disk: Disk<K::Object>,
    watch: Option<Watch>,
    seen: Seen,
    contents: Option<Contents<K::Object>>,
    /// What the last pass but one has found, where the folder did not rest while it was read.
    torn: Option<Manifests<K::Object>>,
    duplicates: Vec<Report>,
    told: BTreeSet<String>,
    /// What was read is not in `contents` yet.
    is_stale: bool,
    begun: Instant,
}

impl<K: Kinds> Folder<K> {
    /// The folder `dir`, of which these kinds are read.
    pub fn new(dir: PathBuf, kinds: K) -> Self {
        Self {
            disk: Disk::new(dir.clone()),
            dir,
            kinds,
            watch: None,
            seen: Seen::default(),
            contents: None,
            torn: None,
            duplicates: Vec::new(),
            told: BTreeSet::new(),
            is_stale: false,
            begun: Instant::now(),
        }
    }

    /// Sends what the folder holds and how it changes, until nobody receives it any more. `tell` makes
    /// events of it: at first of one list of all objects, and then of what each reading has found to be
    /// new, otherwise or gone. What the manifests' author should know is given to `report`, once for as
    /// long as it stands; `defective` is told, after each reading, how many files may have objects that
    /// could not be read, and how many objects are left out as others have their names.
    pub async fn run<E>(
        mut self,
        events: Sender<E>,
        tell: impl Fn(Vec<Change<K::Object>>) -> Vec<E>,
        mut report: impl FnMut(&Report),
        mut defective: impl FnMut(usize),
    ) {
        while !events.is_closed() {
            let changes = self.read(&mut report).await;
            defective(self.disk.defective() + self.duplicates.len());
            if !changes.is_empty() {
                for event in tell(changes) {
                    if events.send(event).await.is_err() {
                        return;
                    }
                }
            }
            self.wait().await;
        }
    }

    /// Reads what has changed and returns what that means.
    async fn read(&mut self, report: &mut impl FnMut(&Report)) -> Vec<Change<K::Object>> {
        let mut reports = Vec::new();
        let changes = match self.snapshot(&mut reports).await {
            Ok(()) if self.is_stale || self.contents.is_none() => self.changes(),
            Ok(()) => Vec::new(),
            // One report of a folder that is not there is enough.
            Err(failed) => {
                reports = vec![failed];
                Vec::new()
            }
        };
        if self.contents.is_none() {
            reports.extend(self.awaited());
        }
        let mut standing = BTreeSet::new();
        for it in self.disk.reports().chain(&self.duplicates).chain(&reports) {
            let text = it.to_string();
            if !self.told.contains(&text) && !standing.contains(&text) {
                report(it);
            }
            standing.insert(text);
        }
        self.told = standing;
        changes
    }

    /// Reads what has changed until nothing has any more, but for files that never rest: all others were there at once then as
    /// they were read. What somebody moves from one to another meanwhile could be in neither else.
    async fn snapshot(&mut self, reports: &mut Vec<Report>) -> Result<(), Report> {
        // What was kept by the last reading may go with this one.
        self.is_stale |= self.torn.take().is_some();
        let mut passes: Vec<BTreeSet<PathBuf>> = Vec::new();
        self.disk.begin();
        for pass in 1..=MOST_PASSES {
            reports.clear();
            let before = (pass >= RESTLESS).then(|| self.disk.as_read());
            let changed = self.pass(reports)?;
            if changed.is_empty() {
                self.disk.settle();
                break;
            }
            self.is_stale = true;
            passes.push(changed);
            if pass == MOST_PASSES || never_rests(&passes) {
                self.torn = before;
                break;
            }
            if let Some(watch) = &mut self.watch {
                watch.take(&mut self.seen).await;
            }
        }
        Ok(())
    }

    /// Reads once what has changed; which files have.
    fn pass(&mut self, reports: &mut Vec<Report>) -> Result<BTreeSet<PathBuf>, Report> {
        if let Err(source) = self.keep_watch() {
            let seconds = RETRY.as_secs();
            reports.push(Report::Watch { dir: self.dir.clone(), seconds, source });
        }
        let bad = match self.contents {
            _ if !K::NEEDS_ALL => State::Rest,
            Some(_) => State::Nothing,
            None => State::Awaited,
        };
        let changed = self.disk.read(&self.kinds, &mut self.seen, bad)?;
        self.seen.reset();
        Ok(changed)
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

    fn changes(&mut self) -> Vec<Change<K::Object>> {
        let is_known = !K::NEEDS_ALL || self.disk.is_known();
        if self.contents.is_none() && (!is_known || self.awaited().next().is_some()) {
            return Vec::new();
        }
        let before = self.contents.as_ref();
        let (mut contents, duplicates) = Contents::of(self.disk.manifests(), &self.kinds, before);
        self.duplicates = duplicates;
        if let Some(torn) = &self.torn {
            let files = torn.iter().map(|(path, manifest)| (path.as_path(), &**manifest));
            contents.keep(Contents::of(files, &self.kinds, before).0, before);
        }
        let changes = before.map_or_else(|| vec![contents.listed()], |it| contents.since(it));
        self.contents = Some(contents);
        self.is_stale = false;
        changes
    }

    /// The files that the first list waits for, as somebody is writing them: the kernel may hold what they said.
    fn awaited(&self) -> impl Iterator<Item = Report> {
        let limit = (!K::NEEDS_ALL).then_some(LOOK);
        let is_over = limit.is_some_and(|limit| self.begun.elapsed() >= limit);
        let files = self.disk.awaited().iter().filter(move |_| !is_over);
        files.map(move |file| Report::BeingWritten { file: file.clone(), limit })
    }

    /// Waits until the folder should be read again.
    async fn wait(&mut self) {
        let patience = match &self.contents {
            _ if self.torn.is_some() || !self.seen.doubted.is_empty() => MOST_DELAY,
            Some(_) => LOOK,
            None => RETRY,
        };
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

/// Whether what the last pass has found otherwise was so in each of the last ones.
fn never_rests(passes: &[BTreeSet<PathBuf>]) -> bool {
    let latest = passes.last_chunk::<RESTLESS>();
    latest.is_some_and(|latest| latest.iter().all(|it| latest[RESTLESS - 1].is_subset(it)))
}
