//! What a node sees of the machine's files: programs and libraries, which it cannot change, and in
//! the places that a node writes to, folders of its own.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{self, OFlag};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;

use crate::error::{Error, Result};
use crate::state::{Record, State, make_folder, write};

/// Where a node has the programs that others made ...
pub(crate) const PROGRAMS: &str = "/opt/testbed";

/// ... the archives of images ...
pub(crate) const IMAGES: &str = "/opt/images";

/// ... and what all nodes share.
pub(crate) const SHARED: &str = "/var/lib/testbed";

/// Parameters that are the whole machine's and that a kubelet wants to have certain values. It finds
/// them so in files that cover the real ones, and changes nothing.
const COVERED: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

const NONE: Option<&str> = None;

/// Folders of a node's own: name below the cluster's folder, and where the node sees it.
const OWN: [(&str, &str); 3] = [("lib", "/var/lib"), ("log", "/var/log"), ("opt", "/opt")];

/// Makes the folders that a node finds when it starts for the first time.
///
/// # Errors
/// The cluster's folder cannot be written.
pub(crate) fn prepare(state: &State, number: u8, files: &[(&str, String)]) -> Result<()> {
    let home = state.node(number);
    let folders = [
        "lib/testbed",
        "opt/testbed",
        "opt/images",
        "opt/cni/bin",
        "log/testbed",
        "etc",
        "etc-work",
    ];
    for folder in folders {
        make_folder(&home.join(folder))?;
    }
    for (name, content) in files {
        write(&home.join("etc").join(name), content)?;
    }
    Ok(())
}

/// Gives the calling process, which has a mount namespace of its own, a node's view.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn enter(state: &State, record: &Record, number: u8) -> Result<()> {
    let home = state.node(number);
    propagate(MsFlags::MS_PRIVATE)?;
    // All are looked up before the first is mounted, which may cover others.
    let own = OWN.map(|(name, place)| (home.join(name), place));
    let parts = [
        (state.shared(), SHARED),
        (record.peers.clone(), PROGRAMS),
        (record.images.clone(), IMAGES),
    ];
    let sources = own.into_iter().chain(parts).map(|(path, place)| Ok((open(&path)?, path, place)));
    let sources: Vec<_> = sources.collect::<Result<_>>()?;
    overlay_etc(&home)?;
    for (source, path, place) in &sources {
        let by_descriptor = format!("/proc/self/fd/{}", source.as_raw_fd());
        mount(Some(by_descriptor.as_str()), *place, NONE, MsFlags::MS_BIND, NONE)
            .map_err(Error::kernel(format!("mount {} on {place}", path.display())))?;
    }
    drop(sources);
    for place in [PROGRAMS, IMAGES, "/"] {
        read_only(place)?;
    }
    // From here on the machine's own folders below these are out of sight.
    fresh("tmpfs", "/run", Some("mode=755"))?;
    fresh("tmpfs", "/tmp", Some("mode=1777"))?;
    make_folder(Path::new("/run/lock"))?;
    make_folder(Path::new("/run/testbed"))?;
    instead("proc", "/proc")?;
    cover_parameters()?;
    control_groups(record)?;
    propagate(MsFlags::MS_SHARED)
}

/// Private first, that nothing comes to the machine; shared in the end, as a machine's mounts are.
fn propagate(how: MsFlags) -> Result<()> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | how, NONE)
        .map_err(Error::kernel("set how mounts propagate"))
}

fn overlay_etc(home: &Path) -> Result<()> {
    let path = |name: &str| home.join(name).display().to_string();
    let options = format!("lowerdir=/etc,upperdir={},workdir={}", path("etc"), path("etc-work"));
    mount(Some("overlay"), "/etc", Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .map_err(Error::kernel("mount an overlay over /etc"))
}

/// Keeps hold of a folder, wherever its path leads later.
fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    fcntl::open(path, flags, Mode::empty()).map_err(|errno| Error::file("open", path)(errno.into()))
}

fn bind(source: &Path, place: &str) -> Result<()> {
    mount(Some(source), place, NONE, MsFlags::MS_BIND, NONE)
        .map_err(Error::kernel(format!("mount {} on {place}", source.display())))
}

fn read_only(place: &str) -> Result<()> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(NONE, place, NONE, flags, NONE).map_err(Error::kernel(format!("make {place} read-only")))
}

/// Mounts a file system that has nothing of others in it.
pub(crate) fn fresh(kind: &str, place: &str, options: Option<&str>) -> Result<()> {
    mount(Some(kind), place, Some(kind), MsFlags::empty(), options)
        .map_err(Error::kernel(format!("mount {kind} on {place}")))
}

/// The same, and takes away what was there: hidden mounts of the machine's control groups would still
/// be told of, and taken for the node's.
fn instead(kind: &str, place: &str) -> Result<()> {
    umount2(place, MntFlags::MNT_DETACH)
        .map_err(Error::kernel(format!("unmount the machine's {place}")))?;
    fresh(kind, place, NONE)
}

fn cover_parameters() -> Result<()> {
    for (name, value) in COVERED {
        let own = PathBuf::from("/run/testbed/sys").join(name);
        write(&own, format!("{value}\n"))?;
        let place = format!("/proc/sys/{name}");
        // What the kernel does not have, a kubelet does not look for.
        if Path::new(&place).exists() {
            bind(&own, &place)?;
        }
    }
    Ok(())
}

/// Shows the control groups that the process is in, and no others.
fn control_groups(record: &Record) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWCGROUP)
        .map_err(Error::kernel("make a namespace of control groups"))?;
    // Links and their parameters below /sys are those of the namespace that mounted it.
    instead("sysfs", "/sys")?;
    let root = Path::new("/sys/fs/cgroup");
    fresh("tmpfs", "/sys/fs/cgroup", Some("mode=755"))?;
    record.groups.iter().try_for_each(|group| group.mount(root))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread;

    use super::*;
    use crate::settings::{Backend, Family, Proxy, Settings};

    /// As a thread of its own, which keeps the view.
    fn seen(state: &'static str, peers: &'static str) {
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
            propagate(MsFlags::MS_PRIVATE).unwrap();
            for place in ["/opt", "/var/lib", "/var/log"] {
                fresh("tmpfs", place, NONE).unwrap();
            }
            let state = State::at(Path::new(state)).unwrap();
            prepare(&state, 1, &[]).unwrap();
            write(&state.shared().join("tokens"), "shared").unwrap();
            write(&state.logs(1).join("said"), "before").unwrap();
            let peers = PathBuf::from(peers);
            write(&peers.join("kubelet"), "program").unwrap();
            let images = peers.join("images");
            write(&images.join("pause.tar"), "image").unwrap();
            let record = Record {
                settings: Settings {
                    nodes: 1,
                    family: Family::Ipv4,
                    proxy: Proxy::Nftables,
                    backend: Backend::Auto,
                },
                peers,
                images,
                groups: Vec::new(),
                supervisor: None,
                is_coming_up: false,
            };
            enter(&state, &record, 1).unwrap();
            for (file, text) in [
                ("/opt/testbed/kubelet", "program"),
                ("/opt/images/pause.tar", "image"),
                ("/var/lib/testbed/tokens", "shared"),
                ("/var/log/testbed/said", "before"),
            ] {
                assert_eq!(fs::read_to_string(file).unwrap(), text, "{file}");
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_node_covers_no_place_that_it_needs() {
        seen("/opt/mine", "/opt/peers");
        seen("/var/lib/mine", "/var/log/peers");
        seen("/var/log/mine", "/var/lib/peers");
    }
}
