//! `podwire install` and `uninstall`: the plugins' folder, changed one atomic rename at a time, so
//! that a pod that starts in between finds either the old plugin or the new one.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

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
/// What was replaced waits here for `uninstall`.
const SAVED: &str = ".podwire-saved";
/// Its bytes are in every podwire binary of every version and in nobody else's.
static MARKER: &[u8] = b"podwire: this file is a podwire plugin binary\0";
/// Where SELinux keeps a file's label.
const SELINUX_LABEL: &str = "security.selinux";

fn failed(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let (what, path) = (what.to_owned(), path.to_owned());
    move |source| Error::File { what, path, source }
}

/// Puts the plugins into `bin_dir`.
pub(super) fn install(bin_dir: &Path, method: Method) -> Result<(), Error> {
    fs::create_dir_all(bin_dir).map_err(failed("create", bin_dir))?;
    let own = Path::new("/proc/self/exe");
    let target = bin_dir.join(PROGRAM);
    if !is_same_file(own, &target) {
        save(bin_dir, PROGRAM)?;
        place(bin_dir, PROGRAM, |temporary| copy_program(own, temporary))?;
    }
    let mut lines = String::new();
    for plugin in plugin::ALL {
        let name = plugin.name();
        let saved = save(bin_dir, name)?;
        place(bin_dir, name, |temporary| match method {
            Method::Link => symlink(PROGRAM, temporary),
            Method::Copy => copy_program(own, temporary),
        })?;
        let note = if saved { format!(" (the old one is in {SAVED})") } else { String::new() };
        lines.push_str(&format!("{}{note}\n", bin_dir.join(name).display()));
    }
    say(&lines)
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::symlink_metadata(other)) {
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

/// Makes `name` by `make` under a temporary name, with the label that it must have, and renames.
fn place(
    bin_dir: &Path,
    name: &str,
    make: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<(), Error> {
    let path = bin_dir.join(name);
    let temporary = bin_dir.join(format!(".{name}.podwire-{}", std::process::id()));
    let placed = make(&temporary)
        .and_then(|()| keep_label(bin_dir, &path, &temporary))
        .and_then(|()| fs::rename(&temporary, &path));
    if placed.is_err() {
        // The error that matters is the first.
        let _ = fs::remove_file(&temporary);
    }
    placed.map_err(failed("install", &path))
}

/// The new file gets the SELinux label of the one that it replaces, else the folder's: the
/// runtime may only execute what is labelled so.
fn keep_label(bin_dir: &Path, old: &Path, new: &Path) -> io::Result<()> {
    let label = |path: &Path| xattr::get(path, SELINUX_LABEL).ok().flatten();
    let is_ours = is_podwire(old).unwrap_or_default();
    let kept = label(old).filter(|_| !is_ours).or_else(|| label(bin_dir));
    match kept {
        Some(kept) if label(new).as_ref() != Some(&kept) => xattr::set(new, SELINUX_LABEL, &kept),
        _ => Ok(()),
    }
}

/// Saves what is at `name` unless that is podwire's; whether there was anything to save.
fn save(bin_dir: &Path, name: &str) -> Result<bool, Error> {
    let path = bin_dir.join(name);
    let Ok(metadata) = fs::symlink_metadata(&path) else { return Ok(false) };
    if metadata.is_dir() {
        return Err(Error::Conflict(format!("{} is a directory", path.display())));
    }
    if is_podwire(&path).map_err(failed("read", &path))? {
        return Ok(false);
    }
    let folder = bin_dir.join(SAVED);
    fs::create_dir_all(&folder).map_err(failed("create", &folder))?;
    let saved = folder.join(name);
    let temporary = folder.join(format!(".{name}.podwire-{}", std::process::id()));
    // A second link to the same file (or symbolic link): the name itself is never without one.
    let kept = fs::hard_link(&path, &temporary).or_else(|_| match fs::read_link(&path) {
        Ok(target) => symlink(target, &temporary),
        Err(_) => fs::copy(&path, &temporary).map(|_| ()),
    });
    kept.and_then(|()| fs::rename(&temporary, &saved)).map_err(failed("save", &path))?;
    Ok(true)
}

/// Whether a path leads to a podwire binary, of whatever version. What leads nowhere does not.
fn is_podwire(path: &Path) -> io::Result<bool> {
    // A link to us is ours even while the program itself is being replaced.
    if fs::read_link(path).is_ok_and(|target| target == Path::new(PROGRAM)) {
        return Ok(true);
    }
    match fs::read(path) {
        Ok(bytes) => Ok(memchr::memmem::find(&bytes, MARKER).is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes the plugins out of `bin_dir` and puts back what was there.
pub(super) fn uninstall(bin_dir: &Path) -> Result<(), Error> {
    let mut lines = String::new();
    // The links first: without the program they would lead nowhere.
    for name in podwire_names(bin_dir)? {
        let path = bin_dir.join(&name);
        let saved = bin_dir.join(SAVED).join(&name);
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

/// The names in the folder that are podwire's, the program's own last.
fn podwire_names(bin_dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(bin_dir).map_err(failed("list", bin_dir))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("list", bin_dir))?;
        let kind = entry.file_type().map_err(failed("look at", &entry.path()))?;
        if !kind.is_dir() && is_podwire(&entry.path()).map_err(failed("read", &entry.path()))? {
            names.push(PathBuf::from(entry.file_name()));
        }
    }
    names.sort_by_key(|name| (name == Path::new(PROGRAM), name.clone()));
    Ok(names)
}

#[cfg(test)]
mod tests;
