//! Making the virtual machine what its lane promises, and looking whether it is.

use std::fs;
use std::path::PathBuf;

use runner::{OsRunner, Runner};

use super::program;
use crate::error::{Error, Result};
use crate::plan::{PROGRAMS, Plan};

/// What comes in waits in a queue of each processor.
const QUEUES: &str = "/proc/sys/net/core/netdev_max_backlog";

/// Has as much wait as comes. Linux before 6.5 leaves a queue to a thread whenever there is much in it
/// (`ksoftirqd_running`), and an emulated processor comes to that so late that of the usual 1,000 packets others are
/// dropped: by nobody whom tests are about.
///
/// # Errors
/// The kernel refuses.
pub(super) fn lengthen_queues() -> Result<()> {
    fs::write(QUEUES, "1000000").map_err(Error::file("write", QUEUES))
}

/// Removes the programs whose names begin so.
///
/// # Errors
/// One stays.
pub(super) fn remove_programs(beginnings: &[String]) -> Result<()> {
    for path in programs(beginnings) {
        // Two folders may be the same one.
        if fs::symlink_metadata(&path).is_ok() {
            fs::remove_file(&path).map_err(Error::file("remove", &path))?;
        }
    }
    Ok(())
}

/// Looks whether all is away that should be.
///
/// # Errors
/// [`Error::Broken`], with what is there.
pub(super) fn check(plan: &Plan) -> Result<()> {
    let broken = |what: String| Err(Error::Broken(what));
    if let Some(path) = programs(&plan.without_programs).first() {
        return broken(format!("the program {} is there", path.display()));
    }
    let loaded =
        fs::read_to_string("/proc/modules").map_err(Error::file("read", "/proc/modules"))?;
    for module in &plan.without_modules {
        let is_loaded = loaded.lines().any(|line| line.split(' ').next() == Some(module));
        // modprobe succeeds also with what is built in.
        if is_loaded || OsRunner.run(&program("modprobe", &[module]))?.status.success() {
            return broken(format!("the module {module} is there, or can be loaded"));
        }
    }
    Ok(())
}

fn programs(beginnings: &[String]) -> Vec<PathBuf> {
    let entries = PROGRAMS.split(':').filter_map(|it| fs::read_dir(it).ok()).flatten().flatten();
    let begins_so = |name: &str| beginnings.iter().any(|it| name.starts_with(it.as_str()));
    entries.filter(|it| begins_so(&it.file_name().to_string_lossy())).map(|it| it.path()).collect()
}
