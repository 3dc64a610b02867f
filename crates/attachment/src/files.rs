//! The attachments as files: one for each container, readable by root alone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flock::Mode;

use crate::message::is_container_id;
use crate::{Attachment, Error};

const ENDING: &str = ".json";
/// Whoever holds the lock writes one small file.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// Bytes of the largest file that is read: 64 addresses and a few names.
const SIZE_LIMIT: u64 = 64 << 10;

/// The folder of the files, which is made when the first is written. A file appears and changes as a
/// whole. There is no flush to the disk: a power cut ends the containers, too.
#[derive(Debug, Clone)]
pub struct Files {
    folder: PathBuf,
}

impl Files {
    /// The files of a folder.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Writes a container's; one that says the same stays as it is.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Lock`].
    pub fn put(&self, attachment: &Attachment) -> Result<(), Error> {
        if self.get(&attachment.container_id).is_ok_and(|held| held.as_ref() == Some(attachment)) {
            return Ok(());
        }
        self.make_folder()?;
        let _lock = self.lock()?;
        let new = self.folder.join(format!(".{}", attachment.container_id));
        let path = self.path(&attachment.container_id);
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .and_then(|mut file| file.write_all(&attachment.encode()))
            .and_then(|()| fs::rename(&new, &path))
            .map_err(|source| {
                // What is half written is of no use.
                let _ = fs::remove_file(&new);
                Error::File { what: "write", path, source }
            })
    }

    /// A container's; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Damaged`].
    pub fn get(&self, container_id: &str) -> Result<Option<Attachment>, Error> {
        let path = self.path(container_id);
        match read(&path) {
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            result => result.map(Some),
        }
    }

    /// Removes a container's; none is fine.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Lock`].
    pub fn remove(&self, container_id: &str) -> Result<(), Error> {
        if !self.folder.exists() {
            return Ok(());
        }
        let _lock = self.lock()?;
        // The other is there when its writer was killed.
        for path in [self.path(container_id), self.folder.join(format!(".{container_id}"))] {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::File { what: "remove", path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// All that can be read, in the order in which they were written, and what is wrong with the
    /// others.
    ///
    /// # Errors
    /// [`Error::File`] when the folder cannot be read; a folder that is not there is empty.
    pub fn list(&self) -> Result<(Vec<Attachment>, Vec<Error>), Error> {
        let failed = |source| Error::File { what: "read", path: self.folder.clone(), source };
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
            result => result.map_err(failed)?,
        };
        let (mut attachments, mut problems) = (Vec::new(), Vec::new());
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // One that begins with a dot is about to get its name.
            let Some(container_id) = name.strip_suffix(ENDING).filter(|it| is_container_id(it))
            else {
                continue;
            };
            match read(&path) {
                Ok(attachment) if attachment.container_id == container_id => {
                    // One that goes in this moment is as good as gone.
                    let Ok(written) = fs::metadata(&path).and_then(|it| it.modified()) else {
                        continue;
                    };
                    attachments.push((written, attachment));
                }
                Ok(attachment) => {
                    let problem = format!("it is of container {:?}", attachment.container_id);
                    let source = Box::new(Error::Invalid { what: "its content", problem });
                    problems.push(Error::Damaged { path, source });
                }
                Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => problems.push(error),
            }
        }
        attachments.sort_by_key(|(written, _)| *written);
        Ok((attachments.into_iter().map(|(_, attachment)| attachment).collect(), problems))
    }

    fn path(&self, container_id: &str) -> PathBuf {
        self.folder.join(format!("{container_id}{ENDING}"))
    }

    fn make_folder(&self) -> Result<(), Error> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.map_err(|source| Error::File { what: "make", path: self.folder.clone(), source })
    }

    /// Has only one process at a time write: files in the making have the name that their container
    /// gives them, so that none stays for good.
    fn lock(&self) -> Result<File, Error> {
        let path = || self.folder.clone();
        let folder = File::open(&self.folder).map_err(|source| Error::File {
            what: "open",
            path: path(),
            source,
        })?;
        flock::acquire(folder, Mode::Exclusive, LOCK_WAIT)
            .map_err(|source| Error::Lock { path: path(), source })
    }
}

fn read(path: &Path) -> Result<Attachment, Error> {
    let failed = |source| Error::File { what: "read", path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(failed)?;
    file.take(SIZE_LIMIT).read_to_end(&mut bytes).map_err(failed)?;
    Attachment::decode(&bytes)
        .map_err(|error| Error::Damaged { path: path.to_owned(), source: Box::new(error) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn attachment(container_id: &str, address: &str) -> Attachment {
        Attachment {
            container_id: container_id.into(),
            ifname: "eth0".into(),
            netns: String::new(),
            network: "net".into(),
            pod: None,
            addresses: [address.parse().unwrap()].into(),
            host_interface: None,
        }
    }

    fn listed(files: &Files) -> Vec<String> {
        let (attachments, problems) = files.list().unwrap();
        let mut told: Vec<_> = attachments.into_iter().map(|it| it.container_id).collect();
        told.extend(problems.iter().map(ToString::to_string));
        told.sort();
        told
    }

    #[test]
    fn what_is_written_is_read_until_it_is_removed() {
        let home = tempfile::tempdir().unwrap();
        let files = Files::new(&home.path().join("a/b"));
        assert_eq!(listed(&files), [""; 0]);
        files.remove("c1").unwrap();
        assert_eq!(files.get("c1").unwrap(), None);
        files.put(&attachment("c1", "10.0.0.1")).unwrap();
        files.put(&attachment("c2", "10.0.0.2")).unwrap();
        files.put(&attachment("c2", "10.0.0.3")).unwrap();
        assert_eq!(listed(&files), ["c1", "c2"]);
        assert_eq!(files.get("c2").unwrap(), Some(attachment("c2", "10.0.0.3")));
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(home.path().join("a/b")), 0o700);
        assert_eq!(mode(home.path().join("a/b/c1.json")), 0o600);
        files.remove("c1").unwrap();
        files.remove("c2").unwrap();
        assert_eq!(fs::read_dir(home.path().join("a/b")).unwrap().count(), 0);
    }

    #[test]
    fn the_same_again_changes_nothing() {
        let home = tempfile::tempdir().unwrap();
        let files = Files::new(home.path());
        files.put(&attachment("c1", "10.0.0.1")).unwrap();
        let identity = || {
            use std::os::unix::fs::MetadataExt;
            fs::metadata(home.path().join("c1.json")).unwrap().ino()
        };
        let before = identity();
        files.put(&attachment("c1", "10.0.0.1")).unwrap();
        assert_eq!(identity(), before);
    }

    #[test]
    fn a_damaged_file_is_told_and_the_others_are_read() {
        let home = tempfile::tempdir().unwrap();
        let files = Files::new(home.path());
        files.put(&attachment("c1", "10.0.0.1")).unwrap();
        fs::write(home.path().join("empty.json"), "").unwrap();
        fs::copy(home.path().join("c1.json"), home.path().join("other.json")).unwrap();
        fs::write(home.path().join(".half"), "{").unwrap();
        fs::write(home.path().join("README"), "").unwrap();
        let told = listed(&files);
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].ends_with("empty.json holds no attachment"), "{told:?}");
        assert!(told[1].ends_with("other.json holds no attachment"), "{told:?}");
        assert_eq!(told[2], "c1");
        files.put(&attachment("empty", "10.0.0.2")).unwrap();
        assert_eq!(files.get("empty").unwrap(), Some(attachment("empty", "10.0.0.2")));
        files.remove("half").unwrap();
        assert!(!home.path().join(".half").exists());
    }

    #[test]
    fn many_writers_of_one_file_leave_one_whole_file() {
        let home = tempfile::tempdir().unwrap();
        let files = Files::new(home.path());
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let files = &files;
                scope.spawn(move || {
                    for round in 0..50 {
                        let address = format!("10.0.{writer}.{round}");
                        files.put(&attachment("c1", &address)).unwrap();
                        assert!(files.get("c1").unwrap().is_some());
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }
}
