//! Putting a new text in the place of a file: at once whole, and as the old one was.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

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

/// Replaces the file, which held `before`. Where its name is a link, the link stays.
pub(super) fn replace(file: &Path, before: &[u8], after: &str) -> Result<Outcome, Error> {
    let target = fs::canonicalize(file).map_err(failed("find", file))?;
    let draft = draft(&target)?;
    let written = write(&target, &draft, after).map_err(failed("write beside", &target));
    let done = written.and_then(|()| {
        // As late as can be: what the owner wrote after this is seen by the next look, or lost.
        if read(file)? != before {
            return Ok(Outcome::Changed);
        }
        fs::rename(&draft, &target).map_err(failed("replace", &target))?;
        Ok(Outcome::Replaced)
    });
    if !matches!(done, Ok(Outcome::Replaced)) {
        // It is not there when it could not be made.
        let _ = fs::remove_file(&draft);
    }
    let done = done?;
    let folder = target.parent().unwrap_or(Path::new("/"));
    File::open(folder).and_then(|it| it.sync_all()).map_err(failed("write to disk", folder))?;
    Ok(done)
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
