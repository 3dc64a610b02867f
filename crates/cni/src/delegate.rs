//! Delegation: running the plugin named by `ipam.type` for a part of the work (SPEC 1.1,
//! "Plugin Delegation").

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use runner::{OsRunner, Output, Program, Runner};
use serde_json::Value;

use crate::{AddResult, Call, Command, Error, ErrorObject};

/// The plugin of a name, found along `CNI_PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegate {
    name: String,
    file: PathBuf,
}

impl Delegate {
    /// Looks for plugin `name` in the directories of `path`; the first regular file wins.
    ///
    /// # Errors
    /// [`Error::DelegateName`], [`Error::NoPaths`], [`Error::DelegateNotFound`].
    pub fn find(name: &str, path: &str) -> Result<Self, Error> {
        if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            return Err(Error::DelegateName(name.to_owned()));
        }
        if path.is_empty() {
            return Err(Error::NoPaths(name.to_owned()));
        }
        path.split(':')
            .filter(|directory| !directory.is_empty())
            .map(|directory| Path::new(directory).join(name))
            .find(|file| fs::metadata(file).is_ok_and(|metadata| metadata.is_file()))
            .map(|file| Self { name: name.to_owned(), file })
            .ok_or_else(|| Error::DelegateNotFound { plugin: name.into(), path: path.into() })
    }

    /// Whether the file is the program that is running: the same inode, or a copy with the same
    /// build id. It can then be called instead of executed.
    #[must_use]
    pub fn is_this_program(&self) -> bool {
        let own = Path::new("/proc/self/exe");
        let (Ok(theirs), Ok(ours)) = (fs::metadata(&self.file), fs::metadata(own)) else {
            return false;
        };
        if (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()) {
            return true;
        }
        // Reading two ELF headers is only worth it when it may be a copy.
        theirs.size() == ours.size()
            && build_id_of(own).is_some_and(|id| build_id_of(&self.file) == Some(id))
    }

    /// Executes the plugin for `command` with the call's own environment and stdin.
    ///
    /// # Errors
    /// [`Error::Delegate`] with the plugin's own error object; otherwise [`Error::DelegateRun`],
    /// [`Error::DelegateFailed`].
    pub fn execute(&self, call: &Call, command: Command) -> Result<Vec<u8>, Error> {
        let program = Program {
            file: self.file.clone(),
            env: vec![("CNI_COMMAND", command.as_str().into())],
            stdin: &call.stdin,
            ..Program::default()
        };
        let output = OsRunner.run(&program).map_err(|error| Error::DelegateRun {
            file: self.file.clone(),
            source: io::Error::other(error),
        })?;
        pass_on(&output.stderr);
        if output.status.success() { Ok(output.stdout) } else { Err(self.failure(&output)) }
    }

    /// Executes ADD and reads its result.
    ///
    /// # Errors
    /// As [`Self::execute`], and [`Error::DelegateResult`] when it printed no result.
    pub fn execute_add(&self, call: &Call) -> Result<AddResult, Error> {
        let printed = self.execute(call, Command::Add)?;
        let document: Value = serde_json::from_slice(&printed).map_err(|source| {
            Error::DelegateResult { plugin: self.name.clone(), problem: source.to_string() }
        })?;
        AddResult::from_delegate(&document, call.conf.version, &self.name)
    }

    fn failure(&self, output: &Output) -> Error {
        let document = serde_json::from_slice::<Value>(&output.stdout).ok();
        if let Some(object) = document.as_ref().and_then(ErrorObject::from_json) {
            return Error::Delegate(object);
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let problem = match (text(&output.stdout), text(&output.stderr)) {
            (stdout, stderr) if stdout.is_empty() && stderr.is_empty() => {
                "it printed no error message".to_owned()
            }
            (stdout, stderr) if stdout.is_empty() => format!("it printed {stderr:?}"),
            (stdout, _) => format!("it printed no error object but {stdout:?}"),
        };
        Error::DelegateFailed {
            plugin: self.name.clone(),
            status: output.status.to_string(),
            problem,
        }
    }
}

/// A delegate's complaints belong where ours go: to the runtime's log.
fn pass_on(stderr: &[u8]) {
    // Nobody is left to tell when stderr is closed.
    let _ = io::Write::write_all(&mut io::stderr(), stderr);
}

/// Beyond this, program headers and the note are not where linkers put them.
const ELF_HEAD: usize = 8192;

fn build_id_of(file: &Path) -> Option<Vec<u8>> {
    let mut head = vec![0; ELF_HEAD];
    let length = File::open(file).ok()?.read_at(&mut head, 0).ok()?;
    head.truncate(length);
    build_id(&head).map(<[u8]>::to_vec)
}

/// The GNU build id in the first bytes of a 64-bit little-endian ELF file.
fn build_id(elf: &[u8]) -> Option<&[u8]> {
    const CLASS_64_LITTLE_ENDIAN: [u8; 6] = [0x7f, b'E', b'L', b'F', 2, 1];
    const PT_NOTE: u64 = 4;
    if !elf.starts_with(&CLASS_64_LITTLE_ENDIAN) {
        return None;
    }
    let table = number(elf, 32, 8)?;
    let entry_size = number(elf, 54, 2)?;
    let entries = number(elf, 56, 2)?;
    for index in 0..entries {
        let entry = usize::try_from(table.checked_add(index * entry_size)?).ok()?;
        if number(elf, entry, 4)? != PT_NOTE {
            continue;
        }
        let offset = usize::try_from(number(elf, entry.checked_add(8)?, 8)?).ok()?;
        let size = usize::try_from(number(elf, entry.checked_add(32)?, 8)?).ok()?;
        let notes = elf.get(offset..offset.checked_add(size)?)?;
        if let Some(id) = build_id_note(notes) {
            return Some(id);
        }
    }
    None
}

fn build_id_note(mut notes: &[u8]) -> Option<&[u8]> {
    const NT_GNU_BUILD_ID: u64 = 3;
    while !notes.is_empty() {
        let name_size = usize::try_from(number(notes, 0, 4)?).ok()?;
        let id_size = usize::try_from(number(notes, 4, 4)?).ok()?;
        let id_at = 12usize.checked_add(name_size.checked_next_multiple_of(4)?)?;
        let end = id_at.checked_add(id_size)?;
        let name = notes.get(12..12usize.checked_add(name_size)?)?;
        if number(notes, 8, 4)? == NT_GNU_BUILD_ID && name == b"GNU\0" {
            return notes.get(id_at..end);
        }
        notes = notes.get(end.checked_next_multiple_of(4)?..)?;
    }
    None
}

/// The little-endian number of `size` bytes at `at`.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(size)?)?;
    Some(field.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests;
