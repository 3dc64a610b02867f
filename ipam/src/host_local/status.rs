//! STATUS: could an ADD succeed? Takes no lock, runs nothing, changes nothing.

use std::fs;
use std::io;
use std::path::Path;

use cni::Call;
use nix::sys::statfs::{
    CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, FsType, PROC_SUPER_MAGIC, SYSFS_MAGIC, statfs,
};
use nix::unistd::{AccessFlags, access};

use super::{Conf, store_options};
use crate::Error;
use crate::allocator::Pool;
use crate::error::hint;
use crate::lease::Name;
use crate::range::RangeSet;
use crate::store::{Directory, Options, indexed_leases};

/// STATUS: the configuration is right and leases can be stored.
///
/// An exhausted pool is no failure unless `ipam.statusOnExhaustion` says so: runtimes take the whole
/// node out of service when STATUS fails, while a pod that goes cures exhaustion.
///
/// # Errors
/// [`Error::Unusable`], or what is wrong with the configuration.
pub fn status(call: &Call) -> Result<(), Error> {
    let conf = Conf::of(call)?;
    let options = store_options(call)?;
    usable(&options.directory())?;
    if conf.status_on_exhaustion {
        for set in &conf.sets {
            has_free(&options, set, &conf)?;
        }
    }
    Ok(())
}

/// Whether `directory` can be written, or created where it does not exist.
///
/// # Errors
/// [`Error::Unusable`].
pub fn usable(directory: &Path) -> Result<(), Error> {
    let unusable = |path: &Path, error: &io::Error| Error::Unusable {
        path: path.to_owned(),
        problem: format!("{error}{}", hint(error)),
    };
    for path in directory.ancestors() {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unusable(path, &error)),
            Ok(metadata) if !metadata.is_dir() => {
                return Err(unusable(path, &io::ErrorKind::NotADirectory.into()));
            }
            Ok(_) => {
                let access = access(path, AccessFlags::W_OK | AccessFlags::X_OK);
                access.map_err(|error| unusable(path, &error.into()))?;
                return refuse_kernel_files(path);
            }
        }
    }
    Ok(())
}

/// Refuses what lets root write by its mode bits, but holds nothing that the kernel did not make.
fn refuse_kernel_files(path: &Path) -> Result<(), Error> {
    const OF_KERNEL: [FsType; 4] =
        [PROC_SUPER_MAGIC, SYSFS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC];
    match statfs(path) {
        Ok(found) if OF_KERNEL.contains(&found.filesystem_type()) => Err(Error::Unusable {
            path: path.to_owned(),
            problem: "only the kernel makes files there (proc, sysfs or cgroup file system)".into(),
        }),
        // What it is else, or that it cannot be told, ADD will see.
        _ => Ok(()),
    }
}

fn has_free(options: &Options, set: &RangeSet, conf: &Conf) -> Result<(), Error> {
    let path = options.directory();
    let Some(directory) = Directory::open(&path)? else { return Ok(()) };
    let pool = Pool::new(set, &conf.exclude);
    // Fewer leases than the set has addresses, whichever these are: enough, and quick to tell.
    if indexed_leases(options, &directory).is_some_and(|leases| u128::from(leases) < pool.size()) {
        return Ok(());
    }
    let mut taken = 0_u128;
    directory.list(|name, _| {
        if let Name::Lease(address) = Name::read(name)
            && pool.contains(address)
        {
            taken += 1;
        }
    })?;
    if taken < pool.size() {
        return Ok(());
    }
    let problem =
        format!("no IP addresses available in range set: {set} (ipam.statusOnExhaustion)");
    Err(Error::Unusable { path, problem })
}
