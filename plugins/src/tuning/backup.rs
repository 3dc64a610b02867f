//! What interfaces were like before ADD, in files that both suites read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cni::Call;
use nix::fcntl::OFlag;
use serde_json::{Map, Value, json};

use super::settings::Settings;
use crate::error::Error;

/// Of a draft's name, which is that of its file otherwise.
const DRAFT: &str = ".draft";
/// The key of what the reference plugin's files do not have. It reads past it.
const OWN: &str = "podwire";
/// No file of ours is longer.
const SIZE_LIMIT: u64 = 1 << 16;

/// Whose interface a file is about; only podwire's files tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attachment {
    /// The network's name.
    pub(super) network: String,
    /// Path of the container's namespace.
    pub(super) netns: PathBuf,
    /// The interface's name.
    pub(super) ifname: String,
}

impl Attachment {
    /// The attachment that a call is about.
    pub(super) fn of(call: &Call) -> Self {
        Self {
            network: call.conf.name.clone(),
            netns: call.netns.clone().unwrap_or_default(),
            ifname: call.ifname.clone(),
        }
    }
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backup {
    /// What the interface was like.
    pub(super) before: Settings,
    /// `None` in files of the reference plugin.
    pub(super) attachment: Option<Attachment>,
}

impl Backup {
    fn encode(&self) -> String {
        let mut members = self.before.to_json();
        if let Some(Attachment { network, netns, ifname }) = &self.attachment {
            let own =
                json!({"network": network, "netns": netns.display().to_string(), "ifname": ifname});
            members.insert(OWN.into(), own);
        }
        cni::serve::pretty(&Value::Object(members), " ")
    }

    /// `None` for what is none of either suite, such as the half that a killed one left.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let members: Map<String, Value> = serde_json::from_slice(bytes).ok()?;
        let attachment = members.get(OWN).and_then(|own| {
            let text = |key| own.get(key).and_then(Value::as_str).map(str::to_owned);
            Some(Attachment {
                network: text("network")?,
                netns: text("netns")?.into(),
                ifname: text("ifname")?,
            })
        });
        Some(Self { before: Settings::from_json(&members)?, attachment })
    }
}

/// The file of one attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BackupFile {
    path: PathBuf,
}

impl BackupFile {
    /// The file of an attachment, there or not.
    pub(super) fn of(folder: &Path, container_id: &str, ifname: &str) -> Self {
        Self { path: folder.join(format!("{container_id}_{ifname}.json")) }
    }

    /// All files of a folder, and those of which there is a draft alone.
    pub(super) fn list(folder: &Path) -> Result<Vec<Self>, Error> {
        let failed = |source| failed("list", folder, source);
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.map_err(failed)?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let name = name.to_string_lossy();
            let name = name.strip_suffix(DRAFT).unwrap_or(&name);
            let file = Self { path: folder.join(name) };
            if name.ends_with(".json") && !files.contains(&file) {
                files.push(file);
            }
        }
        Ok(files)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn draft(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(DRAFT);
        name.into()
    }

    /// Its bytes; `None` when there is no file.
    pub(super) fn read(&self) -> Result<Option<Vec<u8>>, Error> {
        read(&self.path)
    }

    /// Those of the draft that a killed ADD left.
    pub(super) fn read_draft(&self) -> Result<Option<Vec<u8>>, Error> {
        read(&self.draft())
    }

    /// Writes it: whole, or not at all.
    pub(super) fn write(&self, backup: &Backup) -> Result<(), Error> {
        self.put(backup.encode().as_bytes())
    }

    /// As [`Self::write`], for bytes that were read.
    pub(super) fn put(&self, bytes: &[u8]) -> Result<(), Error> {
        if let Some(folder) = self.path.parent() {
            // Mode as the reference plugin has it; root needs no more.
            let made = DirBuilder::new().recursive(true).mode(0o600).create(folder);
            made.map_err(|source| failed("create", folder, source))?;
        }
        let draft = self.draft();
        let written = create(&draft).and_then(|mut file| file.write_all(bytes));
        let renamed = written.and_then(|()| fs::rename(&draft, &self.path));
        renamed.map_err(|source| {
            // Why it was not written is what counts.
            let _ = fs::remove_file(&draft);
            failed("write", &self.path, source)
        })
    }

    /// Removes it, and a draft that was left; none is fine.
    pub(super) fn remove(&self) -> Result<(), Error> {
        for path in [&self.draft(), &self.path] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", path, error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let mut bytes = Vec::new();
    // Not to wait for a writer, should it be a pipe.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .and_then(|file| file.take(SIZE_LIMIT).read_to_end(&mut bytes));
    match file {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed("read", path, source)),
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn failed(what: &str, path: &Path, source: io::Error) -> Error {
    Error::File { what: what.into(), path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn backup(network: &str) -> Backup {
        let attachment = Attachment {
            network: network.into(),
            netns: "/run/netns/x".into(),
            ifname: "eth0".into(),
        };
        let before = Settings { mtu: Some(1500), ..Settings::default() };
        Backup { before, attachment: Some(attachment) }
    }

    #[test]
    fn a_file_is_written_whole_read_and_removed() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("cni/tuning");
        let file = BackupFile::of(&folder, "c1", "eth0");
        assert_eq!(file.read().unwrap(), None);
        file.remove().unwrap();
        assert_eq!(BackupFile::list(&folder).unwrap(), []);
        file.write(&backup("net1")).unwrap();
        file.write(&backup("net2")).unwrap();
        let bytes = file.read().unwrap().unwrap();
        assert_eq!(Backup::decode(&bytes), Some(backup("net2")));
        assert!(bytes.starts_with(b"{\n \"mtu\": 1500,\n \"podwire\": {\n  \"network\""));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(file.path()), 0o600);
        assert_eq!(mode(&folder), 0o600);
        file.remove().unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn a_draft_that_was_left_is_listed_and_removed() {
        let home = tempfile::tempdir().unwrap();
        let file = BackupFile::of(home.path(), "c1", "eth0");
        fs::write(file.draft(), "{").unwrap();
        fs::write(home.path().join("README"), "").unwrap();
        assert_eq!(BackupFile::list(home.path()).unwrap(), std::slice::from_ref(&file));
        file.write(&backup("net1")).unwrap();
        fs::write(file.draft(), "").unwrap();
        assert_eq!(BackupFile::list(home.path()).unwrap(), std::slice::from_ref(&file));
        file.remove().unwrap();
        assert_eq!(BackupFile::list(home.path()).unwrap(), []);
    }

    #[test]
    fn the_reference_plugins_files_name_no_attachment() {
        let read = Backup::decode(b"{\n \"mtu\": 1500\n}").unwrap();
        assert_eq!(read, Backup { attachment: None, ..backup("net1") });
        for wrong in [&b""[..], b"{", b"[]", b"{\"mtu\":\"x\"}", b"\xff"] {
            assert_eq!(Backup::decode(wrong), None);
        }
    }
}
