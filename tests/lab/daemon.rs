//! Programs that run until the test is over.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread::{panicking, sleep};
use std::time::{Duration, Instant};
use std::{fs, io};

use nix::sched::setns;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::space::Space;
use crate::suite::slowed;

/// A program that runs until this is dropped, or the thread that started it ends.
#[derive(Debug)]
pub struct Daemon {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it inside `space`. What it says is appended to the file `log`, and shown when the
    /// test fails.
    #[must_use]
    pub fn start(name: &'static str, mut command: Command, space: &Space, log: PathBuf) -> Self {
        let file =
            File::options().create(true).append(true).open(&log).expect("cannot write a log");
        command.stdout(file.try_clone().expect("out of descriptors")).stderr(file);
        let doors = space.doors();
        let enter = move || {
            for door in &doors {
                // SAFETY: the space is borrowed until the child has been spawned, so the
                // descriptor is open.
                #[expect(unsafe_code, reason = "a borrow cannot cross into a pre_exec closure")]
                let fd = unsafe { BorrowedFd::borrow_raw(door.fd) };
                setns(fd, door.kind)?;
            }
            set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from)
        };
        // SAFETY: between fork and exec the closure makes system calls and nothing else.
        #[expect(unsafe_code, reason = "a program inside a namespace: pre_exec is the only way")]
        unsafe {
            command.pre_exec(enter);
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot run {name}: {error}"));
        Self { name, child, log }
    }

    /// Waits until `ready` says so; a program that ends before, or takes longer than `bound`, fails
    /// the test.
    pub fn wait_until(&mut self, bound: Duration, mut ready: impl FnMut() -> bool) {
        let started = Instant::now();
        let bound = slowed(bound);
        while !ready() {
            let ended = self.child.try_wait().expect("cannot wait for a child of ours");
            assert!(ended.is_none(), "{} ended early: {ended:?}", self.name);
            assert!(started.elapsed() < bound, "{} is not ready after {bound:?}", self.name);
            sleep(Duration::from_millis(20));
        }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, which must succeed within `bound`.
    pub fn terminate(&mut self, bound: Duration) {
        self.signal(Signal::SIGTERM);
        let (started, bound) = (Instant::now(), slowed(bound));
        loop {
            match self.child.try_wait().expect("cannot wait for a child of ours") {
                Some(status) => return assert!(status.success(), "{}: {status}", self.name),
                None => sleep(Duration::from_millis(5)),
            }
            assert!(started.elapsed() < bound, "{} has not ended after {bound:?}", self.name);
        }
    }

    /// Waits until it has ended by itself, which must be within `bound`; whether it succeeded.
    pub fn ends_by_itself(&mut self, bound: Duration) -> bool {
        let (started, bound) = (Instant::now(), slowed(bound));
        loop {
            match self.child.try_wait().expect("cannot wait for a child of ours") {
                Some(status) => return status.success(),
                None => sleep(Duration::from_millis(20)),
            }
            assert!(started.elapsed() < bound, "{} has not ended after {bound:?}", self.name);
        }
    }

    /// Stops it until it is resumed: it does nothing, and is still there.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Has it go on.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let process = Pid::from_raw(self.child.id().try_into().expect("no such process id"));
        kill(process, signal).expect("it runs");
    }

    /// Kills it, and waits until it has gone.
    pub fn kill(&mut self) {
        // It may have ended by itself already: that is no error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        if panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<_> = log.lines().map(|line| line.get(..300).unwrap_or(line)).collect();
            let tail = lines.get(lines.len().saturating_sub(40)..).unwrap_or_default();
            println!("the end of what {} said:\n{}\n", self.name, tail.join("\n"));
        }
    }
}
