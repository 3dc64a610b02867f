//! The folder of a cluster: all that it writes is below it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cgroups::Hierarchy;
use crate::error::{Error, Result};
use crate::process::Identity;
use crate::settings::{MOST_NODES, Settings, node_name};

/// Who has this file locked is at work.
const LOCK: &str = "lock";
const RECORD: &str = "cluster.json";
const DRAFT: &str = "cluster.json.new";
const SHARED: &str = "shared";
const SUPERVISOR_LOG: &str = "supervisor.log";
/// What is of the world outside of the cluster.
const WORLD: &str = "world";

/// The folder of a cluster.
#[derive(Debug, Clone)]
pub struct State {
    root: PathBuf,
}

/// What has to be known to end a cluster, and to find one's way in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// What was asked for.
    pub settings: Settings,
    /// Where the programs are that others made.
    pub peers: PathBuf,
    /// Where the images are, as archives.
    pub images: PathBuf,
    /// The control groups that were made for it.
    pub(crate) groups: Vec<Hierarchy>,
    /// The process that all others descend from; not there before it has been started.
    pub supervisor: Option<Identity>,
    /// Whether it is not known to have come up: who was at it may have been ended.
    #[serde(default)]
    pub(crate) is_coming_up: bool,
}

impl State {
    /// That folder, whether it is there or not.
    ///
    /// # Errors
    /// The path is relative, and nobody knows to what.
    pub fn at(path: &Path) -> Result<Self> {
        let root = std::path::absolute(path).map_err(Error::file("find", path))?;
        Ok(Self { root })
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What all nodes see as `/var/lib/testbed`: certificates, tokens, configurations, images.
    #[must_use]
    pub fn shared(&self) -> PathBuf {
        self.root.join(SHARED)
    }

    /// What is of one node.
    #[must_use]
    pub fn node(&self, number: u8) -> PathBuf {
        self.root.join(node_name(number))
    }

    /// While this file is there, a node is off.
    #[must_use]
    pub(crate) fn off_mark(&self, number: u8) -> PathBuf {
        self.node(number).join("off")
    }

    /// Where a node's programs write what they have to say.
    #[must_use]
    pub fn logs(&self, number: u8) -> PathBuf {
        self.node(number).join("log/testbed")
    }

    /// Where the supervisor writes what it has to say.
    #[must_use]
    pub fn supervisor_log(&self) -> PathBuf {
        self.root.join(SUPERVISOR_LOG)
    }

    /// What is of the world outside of the cluster.
    #[must_use]
    pub(crate) fn world(&self) -> PathBuf {
        self.root.join(WORLD)
    }

    /// Keeps others from bringing a cluster up or down here, until what is returned is dropped.
    ///
    /// # Errors
    /// [`Error::Busy`], or the folder cannot be written.
    pub fn lock(&self) -> Result<File> {
        make_folder(&self.root)?;
        let path = self.root.join(LOCK);
        let file = File::create(&path).map_err(Error::file("write", path))?;
        file.try_lock().map_err(|_| Error::Busy(self.root.clone()))?;
        Ok(file)
    }

    /// Removes what an earlier cluster has left: logs.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn clear(&self) -> Result<()> {
        for name in self.names()?.into_iter().filter(|it| it != LOCK) {
            let path = self.root.join(name);
            if path.is_dir() {
                remove_folder(&path)?;
            } else {
                fs::remove_file(&path).map_err(Error::file("remove", path))?;
            }
        }
        Ok(())
    }

    /// Refuses a folder that has something in it which is not of a cluster: all in it would go. Whether there is
    /// something in it.
    ///
    /// # Errors
    /// [`Error::NotOurs`], or it cannot be read.
    pub fn refuse_others(&self) -> Result<bool> {
        let names = self.names()?;
        let has_lock = names.iter().any(|it| it == LOCK);
        let is_other = |name: &&OsString| !has_lock || !is_of_cluster(name);
        match names.iter().find(is_other) {
            Some(name) => {
                Err(Error::NotOurs { root: self.root.clone(), name: PathBuf::from(name) })
            }
            None => Ok(!names.is_empty()),
        }
    }

    /// What is in the folder; nothing where there is none.
    fn names(&self) -> Result<Vec<OsString>> {
        let failed = || Error::file("read", &self.root);
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed())?,
        };
        entries.map(|entry| Ok(entry.map_err(failed())?.file_name())).collect()
    }

    fn record(&self) -> PathBuf {
        self.root.join(RECORD)
    }

    /// Reads the record; `None` where there is no cluster, not even a dead one.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn load(&self) -> Result<Option<Record>> {
        let path = self.record();
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| Error::Damaged { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file("read", path)(error)),
        }
    }

    /// The record of a cluster that runs.
    ///
    /// # Errors
    /// [`Error::Down`], and what reading it can lead to.
    pub fn running(&self) -> Result<(Record, Identity)> {
        let down = || Error::Down(self.root.clone());
        let record = self.load()?.ok_or_else(down)?;
        let supervisor = record.supervisor.filter(Identity::is_alive).ok_or_else(down)?;
        Ok((record, supervisor))
    }

    /// Removes the record: there is nothing left to take down.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn forget(&self) -> Result<()> {
        let path = self.record();
        fs::remove_file(&path).map_err(Error::file("remove", path))
    }

    /// Writes the record, whole or not at all.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn save(&self, record: &Record) -> Result<()> {
        let (path, draft) = (self.record(), self.root.join(DRAFT));
        let text = serde_json::to_vec_pretty(record)
            .map_err(|source| Error::Damaged { path: path.clone(), source })?;
        write(&draft, text)?;
        fs::rename(&draft, &path).map_err(Error::file("replace", path))
    }
}

/// Whether a cluster has something of this name in its folder.
fn is_of_cluster(name: &OsStr) -> bool {
    let fixed = [LOCK, RECORD, DRAFT, SHARED, SUPERVISOR_LOG, WORLD];
    fixed.iter().any(|it| name == *it) || (1..=MOST_NODES).any(|it| name == node_name(it).as_str())
}

/// Writes a file, and the folders that it is in.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    fs::write(path, content).map_err(Error::file("write", path))
}

/// Makes a folder and those that it is in, unless it is there.
pub(crate) fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::file("make the folder", path))
}

/// Removes a folder with all that is in it, if it is there.
pub(crate) fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::file("remove the folder", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bring_up;
    use crate::settings::{Backend, Family, Proxy};

    #[test]
    fn a_folder_of_others_is_refused_and_a_clusters_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::at(folder.path()).unwrap();
        assert!(!state.refuse_others().unwrap());
        assert!(!State::at(&folder.path().join("none")).unwrap().refuse_others().unwrap());
        let thesis = folder.path().join("thesis.txt");
        for other in [&thesis, &folder.path().join("shared")] {
            fs::write(other, "years").unwrap();
            let error = state.refuse_others().unwrap_err().to_string();
            assert!(error.contains("is not a cluster's folder"), "{error}");
            // Nor does taking it down make it one.
            let error = bring_up::down(&state).unwrap_err().to_string();
            assert!(error.contains("is not a cluster's folder"), "{error}");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
            fs::remove_file(other).unwrap();
        }
        drop(state.lock().unwrap());
        for name in ["shared", "node-1", "node-2", "world"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::write(state.supervisor_log(), "").unwrap();
        assert!(state.refuse_others().unwrap());
        fs::write(&thesis, "years").unwrap();
        assert!(state.refuse_others().unwrap_err().to_string().contains("thesis.txt"));
        fs::remove_file(&thesis).unwrap();
        state.clear().unwrap();
        assert!(state.refuse_others().unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        bring_up::down(&state).unwrap();
        // One that is there is taken down whatever else came into its folder, which stays.
        let settings = Settings {
            nodes: 2,
            family: Family::Ipv4,
            proxy: Proxy::Nftables,
            backend: Backend::Auto,
        };
        let nowhere = PathBuf::from("/nonexistent");
        let (peers, images) = (nowhere.clone(), nowhere);
        let (groups, supervisor) = (Vec::new(), None);
        let record = Record { settings, peers, images, groups, supervisor, is_coming_up: false };
        state.save(&record).unwrap();
        write(&state.shared().join("tokens"), "").unwrap();
        fs::write(&thesis, "years").unwrap();
        bring_up::down(&state).unwrap();
        assert_eq!(fs::read_to_string(&thesis).unwrap(), "years");
        assert!(!state.shared().exists() && state.load().unwrap().is_none());
        assert!(state.refuse_others().is_err());
    }
}
