//! Child processes: started inside namespaces, waited for with a bound.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// No program of the tests runs longer than this, unless it hangs.
const BOUND: Duration = Duration::from_secs(60);

/// A program to run, with the environment of this process until the caller clears it, and in it the backend
/// that policyd shall have.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the runner of the plugins knows no namespaces")]
pub fn program(file: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(file);
    command.env("POLICYD_BACKEND", crate::backend());
    command
}

/// A namespace that a child enters before it runs its program.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Enter {
    pub(crate) fd: RawFd,
    pub(crate) kind: CloneFlags,
}

/// A program that runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    what: String,
    stdout: File,
    stderr: File,
}

/// A program that ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Running {
    /// Starts `command` with `stdin` as its standard input, inside the given namespaces and as the
    /// leader of a process group. Plain files carry its input and output: nobody has to pump them.
    pub(crate) fn start(mut command: Command, stdin: &[u8], doors: Vec<Enter>) -> Self {
        let mut input = scratch();
        input.write_all(stdin).and_then(|()| input.rewind()).expect("cannot write a scratch file");
        let (stdout, stderr) = (scratch(), scratch());
        let share = |file: &File| file.try_clone().expect("out of descriptors");
        command.stdin(input).stdout(share(&stdout)).stderr(share(&stderr)).process_group(0);
        let enter = move || {
            for door in &doors {
                // SAFETY: the namespace's owner is borrowed by the caller of start() until the
                // child has been spawned, so the descriptor is open.
                #[expect(unsafe_code, reason = "a borrow cannot cross into a pre_exec closure")]
                let fd = unsafe { BorrowedFd::borrow_raw(door.fd) };
                setns(fd, door.kind)?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec the closure does nothing but setns system calls.
        #[expect(unsafe_code, reason = "a program inside a namespace: pre_exec is the only way")]
        unsafe {
            command.pre_exec(enter);
        }
        let what = format!("{command:?}");
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("cannot run {what}: {error} (is it installed? do the tests run as root?)")
        });
        Self { child, what, stdout, stderr }
    }

    /// Kills the program, and all that it started, with SIGKILL.
    pub fn kill(&self) {
        // It may have ended by itself already: that is no error here.
        let _ = killpg(self.pid(), Signal::SIGKILL);
    }

    /// Sends a signal to the program, which must run.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("it runs");
    }

    /// Kills the program alone, as the kernel's out-of-memory killer would.
    pub fn kill_alone(&mut self) {
        self.child.kill().expect("cannot kill a child of ours");
    }

    /// Waits for the end; a program that hangs is killed and fails the test.
    #[must_use]
    pub fn finish(mut self) -> Finished {
        let started = Instant::now();
        let mut pause = Duration::from_micros(200);
        loop {
            if let Some(status) = self.child.try_wait().expect("cannot wait for a child of ours") {
                let (stdout, stderr) = (content(&mut self.stdout), content(&mut self.stderr));
                return Finished { status, stdout, stderr };
            }
            if started.elapsed() > BOUND {
                self.kill();
                let _ = self.child.wait();
                let (out, err) = (content(&mut self.stdout), content(&mut self.stderr));
                panic!("{} hung and was killed after {BOUND:?}:\n{out}\n{err}", self.what);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(2));
        }
    }

    /// Its id, which is that of its process group as well.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid is positive"))
    }
}

impl Finished {
    /// What was printed, when the program succeeded; else a panic that shows what it said.
    pub(crate) fn stdout_or_panic(self, what: &str) -> String {
        assert!(
            self.status.success(),
            "{what}\nended with {}\n{}\n{}",
            self.status,
            self.stdout,
            self.stderr
        );
        self.stdout
    }

    /// Whether SIGKILL ended it.
    #[must_use]
    pub fn was_killed(&self) -> bool {
        self.status.signal() == Some(Signal::SIGKILL as i32)
    }
}

fn scratch() -> File {
    tempfile::tempfile().expect("cannot make a temporary file")
}

fn content(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("cannot read a scratch file");
    String::from_utf8_lossy(&bytes).into_owned()
}
