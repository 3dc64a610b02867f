//! `podwire install` and `uninstall`: the plugins' folder, changed one atomic rename at a time, so
//! that a pod that starts in between finds either the old plugin or the new one.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use runner::Lock;

use super::SELINUX_LABEL;
use super::output::say;
use crate::error::{Error, warn};
use crate::plugin;

/// How the plugins come into the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// Relative links to one file: an installer's container sees the folder under another path.
    Link,
    /// A copy for each name.
    Copy,
}

/// The name of the program's own file in the folder.
const PROGRAM: &str = "podwire";
/// The program that runs.
const OWN: &str = "/proc/self/exe";
/// How long another installation may take.
const LOCK_WAIT: Duration = Duration::from_secs(30);
/// What was replaced waits here for `uninstall`.
const SAVED: &str = ".podwire-saved";
/// Its bytes are in every podwire binary of every version and in nobody else's.
static MARKER: &[u8] = b"podwire: this file is a podwire plugin binary\0";

fn failed(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let (what, path) = (what.to_owned(), path.to_owned());
    move |source| Error::File { what, path, source }
}

/// Has only one installation at a time work on a folder, for as long as the result lives.
fn lock(bin_dir: &Path) -> Result<Lock, Error> {
    let folder = File::open(bin_dir).map_err(failed("open", bin_dir))?;
    let lock = Lock::new(folder, bin_dir, LOCK_WAIT);
    match lock.acquire() {
        // Not every file system has locks.
        Err(runner::Error::Lock { source, .. }) => {
            warn(&format!("cannot lock {}, going on: {source}", bin_dir.display()));
        }
        result => result.map_err(Error::Lock)?,
    }
    Ok(lock)
}

/// Puts these plugins into `bin_dir`: all of them, or none.
pub(super) fn install(
    bin_dir: &Path,
    method: Method,
    plugins: &[&'static str],
) -> Result<(), Error> {
    fs::create_dir_all(bin_dir).map_err(failed("create", bin_dir))?;
    let _lock = lock(bin_dir)?;
    let is_there = is_same_file(Path::new(OWN), &bin_dir.join(PROGRAM));
    let program = (!is_there).then(|| Change::plan(bin_dir, PROGRAM, Method::Copy));
    let plugins = plugins.iter().map(|plugin| Change::plan(bin_dir, plugin, method));
    // The program first: links lead to it.
    let changes = program.into_iter().chain(plugins).collect::<Result<Vec<_>, _>>()?;
    make(&changes).inspect_err(|_| {
        // Only goes when it is empty.
        let _ = fs::remove_dir(bin_dir.join(SAVED));
    })?;
    let mut lines = String::new();
    for change in changes {
        change.forget();
        let is_replaced = change.before == Before::Others;
        let note = if is_replaced { &format!(" (the old one is in {SAVED})") } else { "" };
        lines.push_str(&format!("{}{note}\n", change.path.display()));
    }
    say(&lines)
}

/// Makes all changes, or takes back those that were made.
fn make(changes: &[Change]) -> Result<(), Error> {
    let mut made = 0;
    let outcome = changes
        .iter()
        .try_for_each(Change::prepare)
        .and_then(|()| changes.iter().try_for_each(|change| change.make().inspect(|()| made += 1)));
    if outcome.is_err() {
        changes.iter().take(made).rev().for_each(Change::undo);
        changes.iter().for_each(|change| {
            change.forget();
            change.discard_saved();
        });
    }
    outcome
}

/// What a name of the folder was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Podwire,
    Others,
}

/// One name of the folder and what it becomes.
struct Change {
    bin_dir: PathBuf,
    method: Method,
    path: PathBuf,
    before: Before,
    /// The new file until it gets its name.
    new: PathBuf,
    /// A second name of the old one until all names are changed.
    old: PathBuf,
    /// Where others' program waits for `uninstall`.
    saved: PathBuf,
}

impl Change {
    /// Looks at what is there, and refuses what no program is. Changes nothing.
    fn plan(bin_dir: &Path, name: &'static str, method: Method) -> Result<Self, Error> {
        let path = bin_dir.join(name);
        let saved = bin_dir.join(SAVED).join(name);
        for path in [&path, &saved] {
            let kind = fs::symlink_metadata(path).map(|metadata| metadata.file_type());
            if kind.is_ok_and(|kind| !kind.is_file() && !kind.is_symlink()) {
                let text = "is in the way: it is neither a file nor a link (nothing was changed)";
                return Err(Error::Conflict(format!("{} {text}", path.display())));
            }
        }
        let before = match fs::symlink_metadata(&path) {
            Err(_) => Before::Nothing,
            Ok(_) if is_podwire(&path).map_err(failed("read", &path))? => Before::Podwire,
            Ok(_) => Before::Others,
        };
        let [new, old] = temporary_names(bin_dir, name);
        Ok(Self { bin_dir: bin_dir.to_owned(), method, path, before, new, old, saved })
    }

    /// Makes the new file and a second name for the old one. What others made is saved before
    /// anything is changed: an installer that is killed has lost nothing.
    fn prepare(&self) -> Result<(), Error> {
        // An earlier installation may have died here.
        self.forget();
        match self.method {
            Method::Link => symlink(PROGRAM, &self.new),
            Method::Copy => copy_program(Path::new(OWN), &self.new),
        }
        .and_then(|()| self.keep_label())
        .map_err(failed("install", &self.path))?;
        if self.before == Before::Nothing {
            return Ok(());
        }
        second_name(&self.path, &self.old).map_err(failed("save", &self.path))?;
        if self.before == Before::Others {
            let folder = self.bin_dir.join(SAVED);
            fs::create_dir_all(&folder).map_err(failed("create", &folder))?;
            fs::rename(&self.old, &self.saved).map_err(failed("save", &self.saved))?;
        }
        Ok(())
    }

    /// The new file gets the SELinux label of the one that it replaces, else the folder's: the
    /// runtime may only execute what is labelled so.
    fn keep_label(&self) -> io::Result<()> {
        let label = |path: &Path| xattr::get(path, SELINUX_LABEL).ok().flatten();
        let of_old = label(&self.path).filter(|_| self.before == Before::Others);
        match of_old.or_else(|| label(&self.bin_dir)) {
            Some(kept) if label(&self.new).as_ref() != Some(&kept) => {
                xattr::set(&self.new, SELINUX_LABEL, &kept)
            }
            _ => Ok(()),
        }
    }

    fn make(&self) -> Result<(), Error> {
        fs::rename(&self.new, &self.path).map_err(failed("install", &self.path))
    }

    fn undo(&self) {
        let undone = match self.before {
            Before::Nothing => fs::remove_file(&self.path),
            Before::Podwire => fs::rename(&self.old, &self.path),
            Before::Others => fs::rename(&self.saved, &self.path),
        };
        if let Err(error) = undone {
            warn(&format!("could not put {} back: {error}", self.path.display()));
        }
    }

    /// Removes what only an installation that goes on needs.
    fn forget(&self) {
        // Mostly there is nothing.
        let _ = fs::remove_file(&self.new);
        let _ = fs::remove_file(&self.old);
    }

    /// Removes what was saved of a name that was not changed.
    fn discard_saved(&self) {
        if self.before == Before::Others {
            // It is not there when it was put back, or was never saved.
            let _ = fs::remove_file(&self.saved);
        }
    }
}

/// The names of a new file, and of the old one, until all names are changed.
fn temporary_names(bin_dir: &Path, name: &str) -> [PathBuf; 2] {
    ["new", "old"].map(|what| bin_dir.join(format!(".{name}.podwire-{what}")))
}

/// A second link to the same file (or symbolic link): the first name is never without one.
fn second_name(path: &Path, second: &Path) -> io::Result<()> {
    fs::hard_link(path, second).or_else(|_| match fs::read_link(path) {
        Ok(target) => symlink(target, second),
        Err(_) => fs::copy(path, second).map(|_| ()),
    })
}

/// Whether `other` is no link and the file that `one` leads to.
fn is_same_file(one: &Path, other: &Path) -> bool {
    is_same(fs::metadata(one), fs::symlink_metadata(other))
}

/// Whether both are names of one file or one symbolic link.
fn is_same_entry(one: &Path, other: &Path) -> bool {
    is_same(fs::symlink_metadata(one), fs::symlink_metadata(other))
}

fn is_same(one: io::Result<fs::Metadata>, other: io::Result<fs::Metadata>) -> bool {
    match (one, other) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

fn copy_program(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    // A name that leads to half a program after a power cut would break every pod.
    File::open(to)?.sync_all()
}

/// Whether a path leads to a podwire binary, of whatever version. What leads nowhere does not.
fn is_podwire(path: &Path) -> io::Result<bool> {
    // A link to us is ours even while the program itself is being replaced.
    if fs::read_link(path).is_ok_and(|target| target == Path::new(PROGRAM)) {
        return Ok(true);
    }
    // What is no file may have no end, or wait for a writer.
    if !fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        return Ok(false);
    }
    Ok(memchr::memmem::find(&fs::read(path)?, MARKER).is_some())
}

/// Takes the plugins out of `bin_dir` and puts back what was there.
pub(super) fn uninstall(bin_dir: &Path) -> Result<(), Error> {
    // A folder that is not there is a slip of the pen, not an empty one.
    let _lock = lock(bin_dir)?;
    let mut lines = String::new();
    // The links first: without the program they would lead nowhere.
    for name in podwire_names(bin_dir)? {
        let path = bin_dir.join(name);
        let saved = bin_dir.join(SAVED).join(name);
        let word = match fs::rename(&saved, &path) {
            Ok(()) => "restored",
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::remove_file(&path).map_err(failed("remove", &path))?;
                "removed"
            }
            Err(error) => return Err(failed("restore", &path)(error)),
        };
        lines.push_str(&format!("{word} {}\n", path.display()));
    }
    remove_leftovers(bin_dir);
    let folder = bin_dir.join(SAVED);
    match fs::remove_dir(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            // What somebody replaced after us is newer than what we saved.
            warn(&format!("keeping {}: {error}", folder.display()));
        }
        _ => {}
    }
    say(&lines)
}

/// Removes what an installation that was killed left beside the names that it had not changed yet.
fn remove_leftovers(bin_dir: &Path) {
    for name in plugin::ALL.iter().map(|plugin| plugin.name()).chain([PROGRAM]) {
        let saved = bin_dir.join(SAVED).join(name);
        let is_second_name = is_same_entry(&saved, &bin_dir.join(name));
        let [new, old] = temporary_names(bin_dir, name);
        for path in [new, old].into_iter().chain(is_second_name.then_some(saved)) {
            // Mostly there is nothing.
            let _ = fs::remove_file(path);
        }
    }
}

/// The names in the folder that are podwire's, the program's own last. Others' copies of the program
/// under names that it never gave are theirs.
fn podwire_names(bin_dir: &Path) -> Result<Vec<&'static str>, Error> {
    let mut names = Vec::new();
    for name in plugin::ALL.iter().map(|plugin| plugin.name()).chain([PROGRAM]) {
        let path = bin_dir.join(name);
        if is_podwire(&path).map_err(failed("read", &path))? {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
