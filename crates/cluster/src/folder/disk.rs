//! Reading the files of a folder, each only when it has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use libc::O_NONBLOCK;

use super::kinds::Kinds;
use super::manifest::{Format, Manifest, parse};
use super::report::{Defect, Place, Problem, Report, State};
use super::watch::Seen;

/// Most manifests of a folder.
const MOST_FILES: usize = 10_000;

/// Longest manifest, in bytes.
pub const LONGEST_FILE: u64 = 32 << 20;

/// The files of a folder, as they were read last.
#[derive(Debug)]
pub(super) struct Disk<T> {
    dir: PathBuf,
    files: BTreeMap<PathBuf, Manuscript<T>>,
}

/// A file: what it said when it was last good, and what is wrong with it now.
#[derive(Debug)]
struct Manuscript<T> {
    stamp: Option<Stamp>,
    good: Option<Manifest<T>>,
    /// What can be read of it, where that counts for a file that was never good.
    rest: Option<Manifest<T>>,
    reports: Vec<Report>,
}

impl<T> Default for Manuscript<T> {
    fn default() -> Self {
        Self { stamp: None, good: None, rest: None, reports: Vec::new() }
    }
}

/// What tells a file from the same file otherwise.
type Stamp = (u64, u64, u64, i64, i64, i64, i64);

impl<T> Disk<T> {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, files: BTreeMap::new() }
    }

    /// Reads the files that have changed, but those that somebody is writing: half a manifest may
    /// be a good one that lacks a policy. Whether any did is returned. `bad` is what becomes of a
    /// file that was never good.
    pub(super) fn read(
        &mut self,
        kinds: &impl Kinds<Object = T>,
        seen: &Seen,
        bad: State,
    ) -> Result<bool, Report> {
        let names = self.list()?;
        let before = self.files.len();
        self.files.retain(|path, _| path.file_name().is_some_and(|name| names.contains(name)));
        let mut changed = self.files.len() != before;
        for name in names {
            let path = self.dir.join(&name);
            let about_to = || seen.made.contains(&name) && is_empty(&path);
            if !seen.writing.contains(&name) && !about_to() {
                let file = self.files.entry(path.clone()).or_default();
                let anew = seen.everything || seen.touched.contains(&name);
                changed |= file.read(&path, kinds, anew, bad);
            }
        }
        Ok(changed)
    }

    /// The manifests that count, in the order of their names.
    pub(super) fn manifests(&self) -> impl Iterator<Item = (&Path, &Manifest<T>)> {
        let files = self.files.iter();
        files.filter_map(|(path, file)| {
            Some((path.as_path(), file.good.as_ref().or(file.rest.as_ref())?))
        })
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

impl<T> Manuscript<T> {
    /// Reads the file, when it is otherwise than before, or when told to.
    fn read(
        &mut self,
        path: &Path,
        kinds: &impl Kinds<Object = T>,
        anew: bool,
        bad: State,
    ) -> bool {
        let stamp = fs::metadata(path).ok().map(|metadata| stamp(&metadata));
        if stamp == self.stamp && stamp.is_some() && !anew {
            return false;
        }
        self.stamp = stamp;
        let state = if self.good.is_some() { State::LastGood } else { bad };
        let file = path.to_owned();
        let bad = |defect| Report::Bad { file: file.clone(), state, defect };
        self.rest = None;
        self.reports = match content(path) {
            Err(source) => vec![Report::Unreadable { file, state, source }],
            Ok(content) if content.len() as u64 > LONGEST_FILE => {
                let problem = Problem::TooLong(LONGEST_FILE);
                vec![bad(Defect { document: 1, path: None, problem })]
            }
            Ok(content) => {
                let format = Format::of(path).unwrap_or(Format::Yaml);
                let (manifest, defects) = parse(format, &content, kinds);
                if defects.is_empty() {
                    let reports = others(path, &manifest);
                    self.good = Some(manifest);
                    reports
                } else {
                    self.rest = Some(manifest).filter(|_| state == State::Rest);
                    defects.into_iter().map(bad).collect()
                }
            }
        };
        true
    }
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
