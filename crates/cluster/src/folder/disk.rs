//! Reading the files of a folder, each only when it has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use libc::O_NONBLOCK;

use super::kinds::Kinds;
use super::manifest::{Format, Manifest, parse};
use super::report::{Defect, Place, Problem, Report, State};
use super::watch::Seen;

/// Most manifests of a folder.
const MOST_FILES: usize = 10_000;

/// Longest manifest, in bytes.
pub const LONGEST_FILE: u64 = 32 << 20;

/// Who may be writing a file without that being seen is taken to have ended after this time, if nothing more was written.
const PAUSE: Duration = Duration::from_secs(1);

/// The files of a folder, as they were read last.
#[derive(Debug)]
pub(super) struct Disk<T> {
    dir: PathBuf,
    files: BTreeMap<PathBuf, Manuscript<T>>,
    /// Of those that are otherwise since [`Self::begin`] or the one before, as they were then, and since which; `None`: they were
    /// not there.
    before: BTreeMap<PathBuf, (u64, Option<Manuscript<T>>)>,
    /// How often there was a beginning.
    reading: u64,
    /// Files of which nothing is known, as somebody is writing them, or may be.
    awaited: BTreeSet<PathBuf>,
}

/// Files, each with what it says.
pub(super) type Manifests<T> = Vec<(PathBuf, Arc<Manifest<T>>)>;

/// A file: what it said when it was last good, and what is wrong with it now.
#[derive(Debug)]
struct Manuscript<T> {
    /// `None`: it could not be read, as where a link leads nowhere; the next time it may be, though nobody has touched it.
    stamp: Option<Stamp>,
    good: Option<Arc<Manifest<T>>>,
    /// What can be read of it, where that counts for a file that was never good.
    rest: Option<Arc<Manifest<T>>>,
    reports: Vec<Report>,
}

/// What tells a file from the same file otherwise.
type Stamp = (u64, u64, u64, i64, i64, i64, i64);

impl<T: PartialEq> Disk<T> {
    pub(super) fn new(dir: PathBuf) -> Self {
        let (files, before) = (BTreeMap::new(), BTreeMap::new());
        Self { dir, files, before, reading: 0, awaited: BTreeSet::new() }
    }

    /// Begins to read, as often as it takes.
    pub(super) const fn begin(&mut self) {
        self.reading += 1;
    }

    /// Reads the files that have changed, one after the other, but those that somebody is writing: half a
    /// manifest may be a good one that lacks a policy. They are as they were at [`Self::begin`], though they
    /// were read since. Which say something else is returned: if none does, all were there at once as they are here.
    /// `bad` is what becomes of a file that was never good.
    pub(super) fn read(
        &mut self,
        kinds: &impl Kinds<Object = T>,
        seen: &mut Seen,
        bad: State,
    ) -> Result<BTreeSet<PathBuf>, Report> {
        let names = self.list()?;
        let mut changed = BTreeSet::new();
        self.awaited.clear();
        let doubted = std::mem::take(&mut seen.doubted);
        let is_gone = |path: &PathBuf| path.file_name().is_none_or(|name| !names.contains(name));
        let gone: Vec<_> = self.files.extract_if(.., |path, _| is_gone(path)).collect();
        for (path, file) in gone {
            self.remember(&path, Some(file));
            changed.insert(path);
        }
        for name in names {
            let path = self.dir.join(&name);
            let about_to = || seen.made.contains(&name) && is_empty(&path);
            let was_doubted = doubted.contains(&name);
            let may_be_written = seen.missed && !seen.whole.contains(&name);
            let is_doubted = (may_be_written || was_doubted) && is_fresh(&path);
            if seen.writing.contains(&name) || about_to() || is_doubted {
                if self.put_back(&path) {
                    changed.insert(path.clone());
                }
                // Nobody may ever write more into an empty one.
                if !self.files.contains_key(&path) && !about_to() {
                    self.awaited.insert(path);
                }
                seen.doubted.extend(is_doubted.then_some(name));
                continue;
            }
            let anew = seen.everything || was_doubted || seen.touched.contains(&name);
            let held = self.files.get(&path);
            let stamp = fs::metadata(&path).ok().map(|metadata| stamp(&metadata));
            if !anew && held.is_some_and(|it| it.stamp == stamp) {
                continue;
            }
            // What was read since may be half of it.
            let last = self.before.get(&path).map_or(held, |it| it.1.as_ref());
            let good = last.and_then(|it| it.good.clone());
            let file = Manuscript::read(&path, kinds, stamp, good, bad);
            let says_the_same = held.is_some_and(|it| it.says_the_same(&file));
            let held = self.files.insert(path.clone(), file);
            self.remember(&path, held);
            if !says_the_same {
                changed.insert(path);
            }
        }
        let reading = self.reading;
        self.before.retain(|_, (since, _)| *since == reading);
        Ok(changed)
    }

    /// All are to be as they are here from now on, should somebody write them.
    pub(super) fn settle(&mut self) {
        self.before.clear();
    }

    /// What a file was at the beginning.
    fn remember(&mut self, path: &Path, file: Option<Manuscript<T>>) {
        if self.before.get(path).is_none_or(|it| it.0 < self.reading) {
            self.before.insert(path.to_owned(), (self.reading, file));
        }
    }

    /// A file is as it was at the beginning; whether it was otherwise.
    fn put_back(&mut self, path: &Path) -> bool {
        match self.before.remove(path) {
            Some((_, Some(file))) => _ = self.files.insert(path.to_owned(), file),
            Some((_, None)) => _ = self.files.remove(path),
            None => return false,
        }
        true
    }

    /// What the files say now.
    pub(super) fn as_read(&self) -> Manifests<T> {
        let files = self.files.iter();
        files.filter_map(|(path, file)| Some((path.clone(), file.counting()?.clone()))).collect()
    }

    /// The manifests that count, in the order of their names.
    pub(super) fn manifests(&self) -> impl Iterator<Item = (&Path, &Manifest<T>)> {
        let files = self.files.iter();
        files.filter_map(|(path, file)| Some((path.as_path(), &**file.counting()?)))
    }

    /// The files of which nothing is known yet, as somebody is writing them.
    pub(super) const fn awaited(&self) -> &BTreeSet<PathBuf> {
        &self.awaited
    }

    /// Whether each file was good at least once.
    pub(super) fn is_known(&self) -> bool {
        self.files.values().all(|file| file.good.is_some())
    }

    /// What is to be said of the files.
    pub(super) fn reports(&self) -> impl Iterator<Item = &Report> {
        self.files.values().flat_map(|file| &file.reports)
    }

    /// How many files may have objects that could not be read.
    pub(super) fn defective(&self) -> usize {
        self.files.values().filter(|file| file.reports.iter().any(Report::hides_objects)).count()
    }

    fn list(&self) -> Result<BTreeSet<OsString>, Report> {
        let failed = |source| Report::Folder { dir: self.dir.clone(), source };
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if Format::of(Path::new(&name)).is_some() {
                if names.len() == MOST_FILES {
                    return Err(Report::TooMany { dir: self.dir.clone(), limit: MOST_FILES });
                }
                names.insert(name);
            }
        }
        Ok(names)
    }
}

impl<T: PartialEq> Manuscript<T> {
    /// What counts of it.
    const fn counting(&self) -> Option<&Arc<Manifest<T>>> {
        if self.good.is_some() { self.good.as_ref() } else { self.rest.as_ref() }
    }

    /// Whether another one means the same.
    fn says_the_same(&self, other: &Self) -> bool {
        self.good == other.good && self.rest == other.rest
    }

    /// The file that has this stamp; `good` is what it said when it was last good.
    fn read(
        path: &Path,
        kinds: &impl Kinds<Object = T>,
        mut stamp: Option<Stamp>,
        mut good: Option<Arc<Manifest<T>>>,
        bad: State,
    ) -> Self {
        let mut rest = None;
        let state = if good.is_some() { State::LastGood } else { bad };
        let file = path.to_owned();
        let bad = |defect| Report::Bad { file: file.clone(), state, defect };
        let reports = match content(path) {
            Err(source) => {
                stamp = None;
                vec![Report::Unreadable { file, state, source }]
            }
            Ok(content) if content.len() as u64 > LONGEST_FILE => {
                let problem = Problem::TooLong(LONGEST_FILE);
                vec![bad(Defect { document: 1, path: None, problem })]
            }
            Ok(content) => {
                let format = Format::of(path).unwrap_or(Format::Yaml);
                let (manifest, defects) = parse(format, &content, kinds);
                if defects.is_empty() {
                    let reports = others(path, &manifest);
                    good = Some(Arc::new(manifest));
                    reports
                } else {
                    rest = (state == State::Rest).then(|| Arc::new(manifest));
                    defects.into_iter().map(bad).collect()
                }
            }
        };
        Self { stamp, good, rest, reports }
    }
}

/// Whether it was written just now.
fn is_fresh(path: &Path) -> bool {
    let written = fs::metadata(path).and_then(|it| it.modified());
    written.is_ok_and(|it| it.elapsed().is_ok_and(|time| time < PAUSE))
}

fn is_empty(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == 0)
}

/// The content of a file, up to one byte more than is allowed.
///
/// # Errors
/// It cannot be read, or is no regular file.
pub fn content(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a named pipe would wait for its writer.
    let mut options = File::options();
    let file = options.read(true).custom_flags(O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut content = Vec::new();
    file.take(LONGEST_FILE + 1).read_to_end(&mut content)?;
    Ok(content)
}

fn others<T>(path: &Path, manifest: &Manifest<T>) -> Vec<Report> {
    let report = |(document, kind): &(usize, String)| {
        let place = Place { file: path.to_owned(), document: *document };
        Report::OtherKind { place, kind: kind.clone() }
    };
    manifest.others.iter().map(report).collect()
}

fn stamp(metadata: &Metadata) -> Stamp {
    (
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    )
}
