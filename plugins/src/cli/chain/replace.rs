//! Putting a new text in the place of a file: at once whole, and as the old one was.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::{failed, read};
use crate::cli::SELINUX_LABEL;
use crate::error::Error;

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Replaced,
    /// Its owner wrote it meanwhile: nothing was done.
    Changed,
}

/// One who writes in place has the file open for less than that.
const QUIET: Duration = Duration::from_millis(50);

/// Replaces the file, which held `before`. Where its name is a link, the link stays.
pub(super) fn replace(file: &Path, before: &[u8], after: &str) -> Result<Outcome, Error> {
    let target = fs::canonicalize(file).map_err(failed("find", file))?;
    let draft = draft(&target)?;
    let written = write(&target, &draft, after).map_err(failed("write beside", &target));
    let done = written.and_then(|()| put_there(&target, &draft, before, after.as_bytes()));
    // It is not there when it could not be made, or is kept for its owner.
    let _ = fs::remove_file(&draft);
    let done = done?;
    let folder = target.parent().unwrap_or(Path::new("/"));
    File::open(folder).and_then(|it| it.sync_all()).map_err(failed("write to disk", folder))?;
    Ok(done)
}

/// Removes what one who was killed left beside the file. One who is at it has touched it within the last second.
pub(super) fn remove_left_over(file: &Path) {
    let Some(draft) = fs::canonicalize(file).ok().and_then(|it| draft(&it).ok()) else { return };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let touched = fs::symlink_metadata(&draft).ok().and_then(|it| u64::try_from(it.ctime()).ok());
    if touched.is_some_and(|it| it + 2 <= now) {
        // What cannot be removed is in nobody's way.
        let _ = fs::remove_file(&draft);
    }
}

/// Puts the draft in the file's place, unless it is not `before` that comes out: that goes back.
fn put_there(target: &Path, draft: &Path, before: &[u8], after: &[u8]) -> Result<Outcome, Error> {
    if read(target)? != before {
        return Ok(Outcome::Changed);
    }
    match exchange(target, draft) {
        // Not every file system can (NFS): what the owner writes right now is lost.
        Err(Errno::INVAL) => {
            fs::rename(draft, target).map_err(failed("replace", target))?;
            return Ok(Outcome::Replaced);
        }
        done => done.map_err(|error| failed("replace", target)(error.into()))?,
    }
    for pause in [Duration::ZERO, QUIET] {
        // The owner may have opened it before, and write into what is the draft now.
        sleep(pause);
        if !holds(draft, before) {
            put_back(target, draft, after)?;
            return Ok(Outcome::Changed);
        }
    }
    Ok(Outcome::Replaced)
}

/// Gives the file back what the owner wrote, unless he has put something newer there since.
fn put_back(target: &Path, draft: &Path, after: &[u8]) -> Result<(), Error> {
    let exchange = || exchange(target, draft).map_err(|error| keep(target, draft, error));
    if holds(target, after) {
        exchange()?;
        if !holds(draft, after) {
            exchange()?;
        }
    }
    Ok(())
}

/// Keeps what the owner wrote beside the file, where no draft takes its place.
pub(super) fn keep(target: &Path, draft: &Path, error: Errno) -> Error {
    let kept = draft.with_extension("podwire-kept");
    let place = match fs::rename(draft, &kept) {
        Ok(()) => format!(", now in {}", kept.display()),
        Err(_) => String::new(),
    };
    failed(&format!("give back what its owner wrote{place}, to"), target)(error.into())
}

fn holds(file: &Path, content: &[u8]) -> bool {
    read(file).is_ok_and(|it| it == content)
}

fn exchange(one: &Path, other: &Path) -> Result<(), Errno> {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)
}

/// A name that no runtime takes for a network, and the same each time.
fn draft(target: &Path) -> Result<PathBuf, Error> {
    let name = target.file_name().map(|name| name.to_string_lossy().into_owned());
    let missing = || Error::Config(format!("{} is not the name of a file", target.display()));
    Ok(target.with_file_name(format!(".{}.podwire-new", name.ok_or_else(missing)?)))
}

fn write(target: &Path, draft: &Path, text: &str) -> io::Result<()> {
    let old = fs::metadata(target)?;
    // What one who was killed left may be a link by now.
    let _ = fs::remove_file(draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    fchown(&file, Some(old.uid()), Some(old.gid()))?;
    file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))?;
    if let Some(label) = xattr::get(target, SELINUX_LABEL).ok().flatten() {
        xattr::set(draft, SELINUX_LABEL, &label)?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
