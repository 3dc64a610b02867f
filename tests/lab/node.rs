//! Nodes and pods.

use std::fs::{self, File};
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use tempfile::TempDir;

use crate::process::{Enter, Finished, Running};
use crate::space::Space;

/// How the namespaces of a node and of its pods are made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Duplicate address detection ends at once instead of after one to two seconds. The sysctls
    /// that plugins write (`accept_dad`, `enhanced_dad`) keep the kernel's defaults.
    pub instant_dad: bool,
    /// Programs on the node see another `/etc`: the machine's, with a folder `/etc/cni` that is
    /// `etc/cni` of the node's home.
    pub own_etc: bool,
}

/// A machine: a network namespace, and a mount namespace in which `/run` and `/var/lib` are its own.
#[derive(Debug)]
pub struct Node {
    space: Space,
    mounts: File,
    home: TempDir,
    options: Options,
}

/// A container's network namespace, fresh: loopback is down, as a runtime leaves it.
#[derive(Debug)]
pub struct Pod {
    space: Space,
    name: String,
}

impl Node {
    /// A node as the kernel makes one.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Options::default())
    }

    /// A node where IPv6 addresses are usable at once (see [`Options::instant_dad`]).
    #[must_use]
    pub fn quick() -> Self {
        Self::with(Options { instant_dad: true, ..Options::default() })
    }

    /// A node with options.
    #[must_use]
    pub fn with(options: Options) -> Self {
        let home = tempfile::tempdir().expect("cannot make a temporary directory");
        for below in ["run", "lib/cni", "data"] {
            fs::create_dir_all(home.path().join(below)).expect("cannot make a directory");
        }
        let mounts = Mutex::new(None);
        let space = Space::new(CloneFlags::CLONE_NEWNS, || {
            cover(&home.path().join("run"), "/run");
            cover(&home.path().join("lib"), "/var/lib");
            if options.own_etc {
                cover(&etc_with_own_cni(home.path()), "/etc");
            }
            *mounts.lock().unwrap() = Some(File::open("/proc/thread-self/ns/mnt").unwrap());
            set_defaults(options);
        });
        space.set_sysctl("net/ipv4/ip_forward", "0");
        space.set_sysctl("net/ipv6/conf/all/forwarding", "0");
        space.sh("ip link set lo up");
        let mounts = mounts.into_inner().unwrap().expect("the thread set it");
        Self { space, mounts, home, options }
    }

    /// A new pod for this node. The name is only for dumps.
    #[must_use]
    pub fn pod(&self, name: &str) -> Pod {
        let options = self.options;
        Pod {
            space: Space::new(CloneFlags::empty(), || set_defaults(options)),
            name: name.to_owned(),
        }
    }

    /// A directory of the test's own, seen at the same path by programs on the node.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The directory that tests give to host-local as `dataDir`.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// What programs on the node see as `/var/lib`.
    #[must_use]
    pub fn var_lib(&self) -> PathBuf {
        self.home.path().join("lib")
    }

    /// What programs on the node see as `/run`.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.home.path().join("run")
    }

    /// Starts a program on the node.
    #[must_use]
    pub fn start(&self, command: Command, stdin: &[u8]) -> Running {
        let mounts = Enter { fd: self.mounts.as_raw_fd(), kind: CloneFlags::CLONE_NEWNS };
        let mut doors = self.space.doors();
        doors.push(mounts);
        Running::start(command, stdin, doors)
    }

    /// Runs a program on the node to its end.
    #[must_use]
    pub fn run(&self, command: Command) -> Finished {
        self.start(command, &[]).finish()
    }
}

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for Node {
    type Target = Space;

    fn deref(&self) -> &Space {
        &self.space
    }
}

impl Pod {
    /// Its name in dumps.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes a path that can vanish before the pod does: a symbolic link in the node's home.
    #[must_use]
    pub fn link_in(&self, node: &Node) -> PathBuf {
        let link = node.home().join(format!("netns-{}", self.name));
        std::os::unix::fs::symlink(self.path(), &link).expect("cannot make a symbolic link");
        link
    }
}

impl Deref for Pod {
    type Target = Space;

    fn deref(&self) -> &Space {
        &self.space
    }
}

/// Mounts `source` over `target`, for the mount namespace of this thread alone.
fn cover(source: &Path, target: &str) {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .and_then(|()| mount(Some(source), target, none, MsFlags::MS_BIND, none))
        .unwrap_or_else(|error| panic!("cannot mount over {target}: {error} (root is needed)"));
}

/// Makes the folder of [`Options::own_etc`].
fn etc_with_own_cni(home: &Path) -> PathBuf {
    let etc = home.join("etc");
    fs::create_dir_all(etc.join("cni")).expect("cannot make a directory");
    for entry in fs::read_dir("/etc").expect("there is /etc") {
        let name = entry.expect("it can be listed").file_name();
        if name != "cni" {
            // What is covered is seen through the first process's eyes.
            std::os::unix::fs::symlink(Path::new("/proc/1/root/etc").join(&name), etc.join(&name))
                .expect("cannot make a symbolic link");
        }
    }
    etc
}

/// Settings that later interfaces of the namespace inherit.
fn set_defaults(options: Options) {
    if options.instant_dad {
        for key in ["dad_transmits", "router_solicitation_delay"] {
            fs::write(format!("/proc/sys/net/ipv6/conf/default/{key}"), "0")
                .unwrap_or_else(|error| panic!("cannot set {key}: {error} (is IPv6 enabled?)"));
        }
    }
}
