//! Control groups: the cluster has one of its own in each hierarchy, below that of whoever brings it
//! up, and each node one in that. Containers' groups come into being below them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::state::make_folder;

/// Where the hierarchies of version 1 are mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// A group may be in use for a moment after its last process has gone.
const EMPTY: Duration = Duration::from_secs(10);

/// A hierarchy of version 1, and the cluster's group in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hierarchy {
    /// Name of its folder.
    name: String,
    /// How it is mounted: its controllers, or its name.
    options: String,
    /// The cluster's group.
    group: PathBuf,
}

/// Names the groups that a cluster is to have; none is made.
///
/// # Errors
/// [`Error::NoControlGroups`], or `/proc` cannot be read.
pub(crate) fn plan(name: &str) -> Result<Vec<Hierarchy>> {
    let read = |path: &str| fs::read_to_string(path).map_err(Error::file("read", path));
    let (mounts, own) = (read("/proc/self/mountinfo")?, read("/proc/self/cgroup")?);
    let found = hierarchies(&mounts, &own, name);
    if found.is_empty() { Err(Error::NoControlGroups(ROOT.into())) } else { Ok(found) }
}

fn hierarchies(mounts: &str, own: &str, name: &str) -> Vec<Hierarchy> {
    let hierarchy = |line: &str| {
        let (place, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let (kind, options) = (kind.next()?, kind.nth(1)?);
        let place = Path::new(place.split(' ').nth(4)?);
        if kind != "cgroup" || place.parent() != Some(Path::new(ROOT)) {
            return None;
        }
        let options: Vec<_> = options.split(',').filter(|it| !matches!(*it, "rw" | "ro")).collect();
        let options = options.join(",");
        // `4:memory:/where/we/are`
        let of = |line: &&str| line.split(':').nth(1) == Some(&*options);
        let parent = own.lines().find(of)?.splitn(3, ':').nth(2)?.trim_start_matches('/');
        let group = place.join(parent).join(name);
        Some(Hierarchy { name: place.file_name()?.to_str()?.to_owned(), options, group })
    };
    mounts.lines().filter_map(hierarchy).collect()
}

impl Hierarchy {
    /// Makes the cluster's group, and one in it for a node.
    ///
    /// # Errors
    /// The hierarchy cannot be written.
    pub(crate) fn create(&self, node: &str) -> Result<()> {
        for group in [self.group.clone(), self.group.join(node)] {
            make_folder(&group)?;
            // A group of cpuset takes no process until it has been told where they may run.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let (of_parent, own) = (group.with_file_name(file), group.join(file));
                if own.exists() {
                    fs::copy(&of_parent, &own).map_err(Error::file("write", own))?;
                }
            }
        }
        Ok(())
    }

    /// Moves the calling process into the group of a node.
    ///
    /// # Errors
    /// The hierarchy cannot be written.
    pub(crate) fn join(&self, node: &str) -> Result<()> {
        let file = self.group.join(node).join("cgroup.procs");
        fs::write(&file, "0").map_err(Error::file("write", file))
    }

    /// Mounts the hierarchy below `root`, as the namespace of the caller shows it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn mount(&self, root: &Path) -> Result<()> {
        let place = root.join(&self.name);
        make_folder(&place)?;
        let options = match self.options.strip_prefix("name=") {
            Some(_) => format!("none,{}", self.options),
            None => self.options.clone(),
        };
        mount(Some("cgroup"), &place, Some("cgroup"), MsFlags::empty(), Some(options.as_str()))
            .map_err(Error::kernel(format!("mount control groups on {}", place.display())))
    }

    /// Removes the cluster's group with all in it; their processes have to be gone.
    ///
    /// # Errors
    /// One is in use still after some seconds.
    pub(crate) fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + EMPTY;
        loop {
            match remove(&self.group) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) if Instant::now() >= deadline => {
                    return Err(Error::file("remove the control group", &self.group)(error));
                }
                Err(_) => sleep(Duration::from_millis(50)),
            }
        }
    }
}

/// Removes a group and those in it. The files in a group are the kernel's, and go with it.
fn remove(group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hierarchy_has_a_group_below_our_own() {
        let mounts = "\
            31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
            42 31 0:39 / /elsewhere rw - cgroup cgroup rw,memory\n";
        let own = "9:name=systemd:/\n2:cpu,cpuacct:/of/us\n0::/\n";
        let hierarchy = |name: &str, options: &str, group: &str| Hierarchy {
            name: name.to_owned(),
            options: options.to_owned(),
            group: group.into(),
        };
        assert_eq!(
            hierarchies(mounts, own, "new"),
            [
                hierarchy("cpu,cpuacct", "cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/of/us/new"),
                hierarchy("systemd", "name=systemd", "/sys/fs/cgroup/systemd/new"),
            ]
        );
    }
}
