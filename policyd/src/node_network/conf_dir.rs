//! The folder that the container runtime reads its networks from.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use serde_json::Value;

use super::Error;
use super::conflist::{is_meta, is_ours, is_rendered};

/// No list is longer. A longer file is somebody else's mistake, and replaced.
const LONGEST: u64 = 1 << 20;
/// As others write such files: there is nothing secret in them.
const MODE: u32 = 0o644;
/// What runtimes take for a network.
const KINDS: [&str; 3] = ["conf", "conflist", "json"];
/// So many files that come before ours are looked at; more are nobody's intention.
const MOST_RIVALS: usize = 16;

/// The folder, and our file in it.
#[derive(Debug, Clone)]
pub struct ConfDir {
    dir: PathBuf,
    name: String,
}

impl ConfDir {
    /// The file `name` of the folder `dir`.
    #[must_use]
    pub fn new(dir: &Path, name: &str) -> Self {
        Self { dir: dir.to_owned(), name: name.to_owned() }
    }

    fn file(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// Runtimes pass over a file without a known ending. One name for all writes: who is killed in
    /// between leaves one such file at most, and the next write takes it.
    fn draft(&self) -> PathBuf {
        self.dir.join(format!(".{}.new", self.name))
    }

    /// What the file holds; `None`: there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self) -> Result<Option<Vec<u8>>, Error> {
        let failed = self.failed("read");
        // Opening a pipe would wait for who writes to it.
        let mut options = File::options();
        options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
        match options.open(self.file()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
            Ok(file) => {
                if !file.metadata().map_err(&failed)?.is_file() {
                    return Err(failed(io::Error::other("it is not a regular file")));
                }
                let mut content = Vec::new();
                file.take(LONGEST + 1).read_to_end(&mut content).map_err(failed)?;
                Ok(Some(content))
            }
        }
    }

    /// Makes the file hold `text`: whole, or as it was before, also when the power fails. The folder
    /// is made where there is none.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, text: &str) -> Result<(), Error> {
        self.put(text).map_err(self.failed("write"))
    }

    fn put(&self, text: &str) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let draft = self.draft();
        let mut options = File::options();
        let mut file = options.write(true).create(true).truncate(true).mode(MODE).open(&draft)?;
        // The process may have been told to withhold some rights from new files.
        file.set_permissions(Permissions::from_mode(MODE))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, self.file())?;
        File::open(&self.dir)?.sync_all()
    }

    /// Where what was there before us waits for [`ConfDir::remove`]: no name that a runtime takes.
    fn saved(&self) -> PathBuf {
        self.dir.join(format!(".{}.podwire-saved", self.name))
    }

    /// Saves what the file holds, if it is somebody else's: whoever had the node's network before.
    ///
    /// # Errors
    /// It cannot be read or saved.
    pub fn save_others(&self) -> Result<(), Error> {
        match self.read()? {
            Some(content) if !is_ours(&content) => {
                let _ = fs::remove_file(self.saved());
                // A second name: the first is never without a file.
                fs::hard_link(self.file(), self.saved()).map_err(self.failed("save"))
            }
            _ => Ok(()),
        }
    }

    /// Removes the file, if it is ours, and what a killed write left; what was saved takes its place, and
    /// also that of a file that is no list any more, or is not there. Whether it was ours.
    ///
    /// # Errors
    /// It cannot be read or removed.
    pub fn remove(&self) -> Result<bool, Error> {
        let gone = |file: &Path| match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        gone(&self.draft()).map_err(self.failed("remove the draft of"))?;
        let held = self.read()?;
        let is_ours = held.as_ref().is_some_and(|content| is_ours(content));
        let is_list = |content: &Vec<u8>| serde_json::from_slice::<Value>(content).is_ok();
        if !is_ours && held.as_ref().is_some_and(is_list) {
            // What somebody put there after us is newer than what was saved.
            gone(&self.saved()).map_err(self.failed("remove what was saved of"))?;
            return Ok(false);
        }
        match fs::rename(self.saved(), self.file()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.failed("restore")(error));
            }
            Ok(()) => {}
            Err(_) if is_ours => gone(&self.file()).map_err(self.failed("remove"))?,
            Err(_) => {}
        }
        Ok(is_ours)
    }

    /// The same for all files of the folder that were surely written here, whatever names they have: who
    /// removes it may not know the name that was chosen.
    ///
    /// # Errors
    /// What could not be read or removed; the others are all the same.
    pub fn remove_all(&self) -> Result<(), Error> {
        let mut removed = self.remove().map(drop);
        for name in self.networks() {
            let other = Self::new(&self.dir, &name);
            let is_rendered = other.read().map(|it| it.is_some_and(|it| is_rendered(&it)));
            let done =
                is_rendered.and_then(|it| if it { other.remove().map(drop) } else { Ok(()) });
            removed = removed.and(done);
        }
        removed
    }

    /// The names of the regular files that runtimes take for networks.
    fn networks(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let files = entries.filter(|it| it.path().is_file());
        let names = files.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| is_network(name)).collect()
    }

    /// The files that the runtime takes before ours. That of a plugin that calls others' networks
    /// belongs there.
    #[must_use]
    pub fn rivals(&self) -> Vec<String> {
        let names = self.networks().into_iter().filter(|name| *name < self.name);
        let mut rivals: Vec<String> = names.take(MOST_RIVALS).collect();
        rivals.retain(|name| {
            let other = Self::new(&self.dir, name);
            other.read().ok().flatten().is_none_or(|content| !is_meta(&content))
        });
        rivals.sort();
        rivals
    }

    fn failed(&self, what: &'static str) -> impl Fn(io::Error) -> Error + use<> {
        let file = self.file();
        move |source| Error::File { what, file: file.clone(), source }
    }
}

fn is_network(name: &str) -> bool {
    let kind = Path::new(name).extension().and_then(|it| it.to_str());
    kind.is_some_and(|kind| KINDS.contains(&kind))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn conf_dir() -> (tempfile::TempDir, ConfDir) {
        let folder = tempfile::tempdir().unwrap();
        let dir = ConfDir::new(&folder.path().join("net.d"), "10-podwire.conflist");
        (folder, dir)
    }

    const OURS: &str = r#"{"name":"podwire","plugins":[{"type":"podwire-policy"}]}"#;

    #[test]
    fn a_file_is_replaced_whole() {
        let (_folder, dir) = conf_dir();
        assert_eq!(dir.read().unwrap(), None);
        dir.write("one").unwrap();
        let first = fs::metadata(dir.file()).unwrap();
        assert_eq!(first.mode() & 0o7777, MODE);
        // Whoever has it open goes on reading what it was.
        let mut open = File::open(dir.file()).unwrap();
        fs::write(dir.draft(), "left by one who was killed, and longer than the next").unwrap();
        dir.write("two").unwrap();
        let mut text = String::new();
        open.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one");
        assert_eq!(dir.read().unwrap().unwrap(), b"two");
        assert_eq!(fs::read_dir(&dir.dir).unwrap().count(), 1);
    }

    #[test]
    fn only_what_is_ours_is_removed() {
        let (_folder, dir) = conf_dir();
        assert!(!dir.remove().unwrap());
        dir.write("{}").unwrap();
        fs::write(dir.draft(), "torn").unwrap();
        assert!(!dir.remove().unwrap());
        assert_eq!(fs::read_dir(&dir.dir).unwrap().count(), 1);
        dir.write(OURS).unwrap();
        assert!(dir.remove().unwrap());
        assert_eq!(fs::read_dir(&dir.dir).unwrap().count(), 0);
    }

    #[test]
    fn lists_that_were_written_under_other_names_are_removed_as_well() {
        let (_folder, dir) = conf_dir();
        let rendered = |plugins: &str| {
            format!(r#"{{"cniVersions":["1.0.0"],"name":"podwire","plugins":[{plugins}]}}"#)
        };
        dir.write(OURS).unwrap();
        let other = ConfDir::new(&dir.dir, "05-mine.conflist");
        other.write("before").unwrap();
        other.save_others().unwrap();
        let text = rendered(r#"{"type":"ptp"},{"type":"podwire-policy"},{"type":"istio-cni"}"#);
        other.write(&text).unwrap();
        for (name, text) in [
            // Written by hand, and not called podwire's policy.
            ("20-hand.conflist", OURS.to_owned()),
            ("30-ptp.conflist", rendered(r#"{"type":"ptp"}"#)),
            ("40-ours.conflist.bak", text),
        ] {
            fs::write(dir.dir.join(name), text).unwrap();
        }
        fs::create_dir(dir.dir.join("50-folder.conflist")).unwrap();
        dir.remove_all().unwrap();
        assert_eq!(other.read().unwrap().unwrap(), b"before");
        let mut left: Vec<_> = fs::read_dir(&dir.dir)
            .unwrap()
            .map(|it| it.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(
            left,
            [
                "05-mine.conflist",
                "20-hand.conflist",
                "30-ptp.conflist",
                "40-ours.conflist.bak",
                "50-folder.conflist"
            ]
        );
    }

    #[test]
    fn what_was_there_before_is_restored() {
        let (_folder, dir) = conf_dir();
        dir.save_others().unwrap();
        dir.write("theirs").unwrap();
        for _ in 0..2 {
            // Ours is not saved.
            dir.save_others().unwrap();
            dir.write(OURS).unwrap();
        }
        assert!(dir.remove().unwrap());
        assert_eq!(dir.read().unwrap().unwrap(), b"theirs");
        dir.save_others().unwrap();
        dir.write(OURS).unwrap();
        dir.write("{}").unwrap();
        assert!(!dir.remove().unwrap());
        assert_eq!(dir.read().unwrap().unwrap(), b"{}");
        // Of ours nothing may be left, or a part.
        for torn in ["", "{\"name\":\"podw"] {
            dir.save_others().unwrap();
            dir.write(torn).unwrap();
            assert!(!dir.remove().unwrap());
            assert_eq!(dir.read().unwrap().unwrap(), b"{}");
        }
        dir.save_others().unwrap();
        fs::remove_file(dir.file()).unwrap();
        assert!(!dir.remove().unwrap());
        assert_eq!(dir.read().unwrap().unwrap(), b"{}");
        assert_eq!(fs::read_dir(&dir.dir).unwrap().count(), 1);
    }

    #[test]
    fn what_comes_before_ours_is_told() {
        let (_folder, dir) = conf_dir();
        dir.write(OURS).unwrap();
        for (name, text) in [
            ("00-multus.conf", r#"{"type":"multus"}"#),
            ("05-cilium.conflist", "{}"),
            ("10-flannel.conflist", "{}"),
            ("10-flannel.conflist.bak", "{}"),
            ("99-loopback.conf", "{}"),
        ] {
            fs::write(dir.dir.join(name), text).unwrap();
        }
        assert_eq!(dir.rivals(), ["05-cilium.conflist", "10-flannel.conflist"]);
    }

    #[test]
    fn nobody_waits_for_a_pipe() {
        let (folder, _) = conf_dir();
        let dir = ConfDir::new(folder.path(), "10-podwire.conflist");
        nix::unistd::mkfifo(&dir.file(), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for error in [dir.read().unwrap_err(), dir.save_others().unwrap_err()] {
            assert!(crate::chain(&error).contains("not a regular file"), "{error}");
        }
        assert!(dir.remove_all().is_err());
        assert!(dir.file().exists());
    }

    #[test]
    fn what_cannot_be_written_is_told_with_its_name() {
        let (folder, _) = conf_dir();
        fs::write(folder.path().join("net.d"), "a file").unwrap();
        let dir = ConfDir::new(&folder.path().join("net.d"), "10-podwire.conflist");
        let error = dir.write("x").unwrap_err().to_string();
        assert!(error.starts_with("cannot write ") && error.contains("10-podwire"), "{error}");
    }
}
