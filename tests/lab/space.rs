//! A network namespace that lives as long as a descriptor.

use std::fs::File;
use std::net::Ipv6Addr;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fs, panic, thread};

use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns, unshare};

use serde_json::Value;

use crate::process::{Enter, Finished, Running, program};

/// The kernel gives a link its address within this time.
const PATIENCE: Duration = Duration::from_secs(20);

/// A network namespace, kept alive by one descriptor of this process.
#[derive(Debug)]
pub struct Space {
    net: File,
}

impl Space {
    /// Makes a new namespace; `f` runs in it first, on the thread that made it.
    pub(crate) fn new(flags: CloneFlags, f: impl FnOnce() + Send) -> Self {
        let make = || {
            unshare(flags | CloneFlags::CLONE_NEWNET)
                .expect("cannot make a namespace: the tests must run as root (CAP_SYS_ADMIN)");
            f();
            File::open("/proc/thread-self/ns/net").expect("/proc is not mounted")
        };
        Self { net: on_a_thread(make) }
    }

    /// The path to give to a plugin as `CNI_NETNS`: good while this process and the space live.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.net.as_raw_fd()))
    }

    /// Runs `f` inside, on a thread of its own that ends with it: no thread can stay in the wrong place.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        on_a_thread(|| {
            setns(&self.net, CloneFlags::CLONE_NEWNET).expect("setns needs root");
            f()
        })
    }

    /// Starts a thread inside, which may outlive this.
    pub fn spawn<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let net = self.net.try_clone().expect("out of descriptors");
        thread::spawn(move || {
            setns(&net, CloneFlags::CLONE_NEWNET).expect("setns needs root");
            f()
        })
    }

    /// Runs a shell line inside and returns what it printed; panics when it fails.
    pub fn sh(&self, line: &str) -> String {
        self.try_sh(line).stdout_or_panic(line)
    }

    /// Runs a shell line inside.
    #[must_use]
    pub fn try_sh(&self, line: &str) -> Finished {
        let mut command = program("/bin/sh");
        command.args(["-euc", line]);
        Running::start(command, &[], self.doors()).finish()
    }

    /// Reads a file below `/proc/sys`; `None` when there is none.
    #[must_use]
    pub fn sysctl(&self, key: &str) -> Option<String> {
        self.enter(|| fs::read_to_string(format!("/proc/sys/{key}")))
            .ok()
            .map(|text| text.trim().to_owned())
    }

    /// Writes a file below `/proc/sys`.
    pub fn set_sysctl(&self, key: &str, value: &str) {
        self.enter(|| fs::write(format!("/proc/sys/{key}"), value))
            .unwrap_or_else(|error| panic!("cannot set {key}={value}: {error}"));
    }

    /// The index of an interface.
    #[must_use]
    pub fn index(&self, interface: &str) -> u32 {
        self.enter(|| if_nametoindex(interface))
            .unwrap_or_else(|error| panic!("no interface {interface}: {error}"))
    }

    /// An interface's address of IPv6 on its link, once it has one.
    #[must_use]
    pub fn link_local(&self, interface: &str) -> Ipv6Addr {
        let started = Instant::now();
        loop {
            let shown = self.sh(&format!("ip -j -6 addr show dev {interface} scope link"));
            let shown: Value = serde_json::from_str(&shown).expect("ip writes JSON");
            // What is left out leaves empty objects.
            let links = shown.as_array().into_iter().flatten();
            let mut addresses = links.filter_map(|it| it["addr_info"].as_array()).flatten();
            if let Some(found) = addresses.find_map(|it| it["local"].as_str()) {
                return found.parse().expect("ip writes addresses");
            }
            assert!(started.elapsed() < PATIENCE, "{interface} has no address on its link");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// What a child process has to enter before it runs its program.
    pub(crate) fn doors(&self) -> Vec<Enter> {
        vec![Enter { fd: self.net.as_raw_fd(), kind: CloneFlags::CLONE_NEWNET }]
    }
}

/// Runs `f` on a fresh thread and hands on its panic.
fn on_a_thread<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(f).join()).unwrap_or_else(|cause| panic::resume_unwind(cause))
}
