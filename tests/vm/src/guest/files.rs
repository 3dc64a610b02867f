//! The files that a virtual machine sees: the machine's own, at the same places. What it writes goes to
//! its memory.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::unistd::{chdir, chroot, sethostname};

use crate::error::{Error, Result};
use crate::plan::{MODULES, Plan, SHARE};

const NONE: Option<&str> = None;

/// How the machine's files are read: nobody changes them meanwhile, so that they may be kept.
const HOW: &str = "trans=virtio,version=9p2000.L,msize=512000,cache=loose";

/// Where the machine's files, those that were written, and both together are before they are all that
/// there is.
const LOWER: &str = "/lower";
const UPPER: &str = "/upper";
const BOTH: &str = "/both";

/// Has the kernel show its devices.
///
/// # Errors
/// It refuses.
pub(super) fn devices() -> Result<()> {
    on("devtmpfs", "/dev", "mode=755")
}

/// Takes the machine's files for the only ones.
///
/// # Errors
/// The kernel refuses.
pub(super) fn take() -> Result<()> {
    load()?;
    [LOWER, UPPER, BOTH].iter().try_for_each(|it| folder(it))?;
    mount(Some(SHARE), LOWER, Some("9p"), MsFlags::MS_RDONLY | MsFlags::MS_NOATIME, Some(HOW))
        .map_err(Error::kernel("mount the machine's files"))?;
    on("tmpfs", UPPER, "mode=755")?;
    let (files, work) = (format!("{UPPER}/files"), format!("{UPPER}/work"));
    [&files, &work].iter().try_for_each(|it| folder(it))?;
    on("overlay", BOTH, &format!("lowerdir={LOWER},upperdir={files},workdir={work}"))?;
    for (kind, place, options) in [
        ("proc", "proc", ""),
        ("sysfs", "sys", ""),
        ("devtmpfs", "dev", "mode=755"),
        ("tmpfs", "run", "mode=755"),
        ("tmpfs", "dev/shm", "mode=1777"),
        ("devpts", "dev/pts", "mode=620,ptmxmode=666"),
    ] {
        let place = format!("{BOTH}/{place}");
        folder(&place)?;
        on(kind, &place, options)?;
    }
    enter()?;
    // As udev makes them, for shells and for what reads its input by a name.
    for (name, target) in [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        let name = format!("/dev/{name}");
        symlink(format!("/proc/self/{target}"), &name).map_err(Error::file("link", name))?;
    }
    folder("/run/lock")?;
    sethostname("vm").map_err(Error::kernel("set a host name"))
}

/// Loads what was packed into the archive, in the order of the names.
fn load() -> Result<()> {
    let entries = fs::read_dir(format!("/{MODULES}")).map_err(Error::file("list", MODULES))?;
    let mut files: Vec<_> = entries.filter_map(|it| Some(it.ok()?.path())).collect();
    files.sort();
    for path in files {
        let file = File::open(&path).map_err(Error::file("open", &path))?;
        finit_module(file, c"", ModuleInitFlags::empty())
            .map_err(Error::kernel(format!("load the module {}", path.display())))?;
    }
    Ok(())
}

/// Leaves the files that the kernel started from, for which there is no pivot_root.
fn enter() -> Result<()> {
    chdir(BOTH).map_err(Error::kernel("enter the machine's files"))?;
    mount(Some("."), "/", NONE, MsFlags::MS_MOVE, NONE)
        .and_then(|()| chroot("."))
        .and_then(|()| chdir("/"))
        .map_err(Error::kernel("stay in the machine's files"))
}

/// Puts the lane's modules where the kernel's own program looks for them.
///
/// # Errors
/// The kernel refuses, or is another one.
pub(super) fn have_modules(plan: &Plan) -> Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if release.trim() != plan.release {
        let why = format!("this is kernel {}, not {}", release.trim(), plan.release);
        return Err(Error::Broken(why));
    }
    let place = Path::new("/lib/modules").join(&plan.release);
    fs::create_dir_all(&place).map_err(Error::file("make the folder", &place))?;
    mount(Some(&plan.modules), &place, NONE, MsFlags::MS_BIND, NONE)
        .map_err(Error::kernel("put the modules into their place"))
}

fn on(kind: &str, place: &str, options: &str) -> Result<()> {
    mount(Some(kind), place, Some(kind), MsFlags::empty(), Some(options))
        .map_err(Error::kernel(format!("mount {kind} on {place}")))
}

fn folder(path: &str) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::file("make the folder", path))
}
