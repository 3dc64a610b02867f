//! Running other programs (delegated plugins, `iptables-restore`): with a bounded wait, and in a
//! way that none of them outlives the process that started it.

mod conversation;
mod lock;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub use lock::Lock;

/// A program that is being replaced while we start it is tried again this often.
const BUSY_RETRIES: u32 = 50;
/// And after this pause each time.
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two looks whether a program has ended.
const LONGEST_PAUSE: Duration = Duration::from_millis(1);

/// A program to run.
#[derive(Debug, Clone, Default)]
pub struct Program<'a> {
    /// Its file, or a name to look for along `PATH`.
    pub file: PathBuf,
    /// Arguments after the name.
    pub args: &'a [&'a str],
    /// Variables that are added to, or replace, those of our own environment.
    pub env: Vec<(&'static str, OsString)>,
    /// What it reads on stdin.
    pub stdin: &'a [u8],
    /// It is killed after this long; `None` waits for as long as we live.
    pub timeout: Option<Duration>,
    /// A lock under which it gets its input, or, when it gets none, is started; and which it keeps
    /// should we die before it. Starting a program takes longer than most need the lock for.
    pub lock: Option<&'a Lock>,
}

/// How a program ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// What its process id was.
    pub process_id: u32,
    /// Exit status.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it complained.
    pub stderr: Vec<u8>,
}

/// Why a program could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there.
    #[error("{} is not installed, or not in PATH", .0.display())]
    NotFound(PathBuf),
    /// It could not be started or waited for.
    #[error("cannot run {}", file.display())]
    Run {
        /// Its file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its lock cannot be taken.
    #[error("cannot lock {}", lock.display())]
    Lock {
        /// The lock file.
        lock: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its lock was not free in time.
    #[error("lock {} is still held by another process after {} s", lock.display(), waited.as_secs())]
    LockTimeout {
        /// The lock file.
        lock: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
    /// It did not end in time and was killed.
    #[error("{} did not end within {} s and was killed", file.display(), timeout.as_secs())]
    TimedOut {
        /// Its file.
        file: PathBuf,
        /// How long it was given.
        timeout: Duration,
    },
}

/// The seam between deciding what to run and running it.
pub trait Runner {
    /// Runs `program` to its end.
    ///
    /// # Errors
    /// [`Error`] when there is no exit status to tell; a status other than 0 is none.
    fn run(&mut self, program: &Program<'_>) -> Result<Output, Error>;
}

/// Runs programs on this system.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsRunner;

impl Runner for OsRunner {
    fn run(&mut self, program: &Program<'_>) -> Result<Output, Error> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => Error::NotFound(program.file.clone()),
            io::ErrorKind::TimedOut => Error::TimedOut {
                file: program.file.clone(),
                timeout: program.timeout.unwrap_or_default(),
            },
            _ => Error::Run { file: program.file.clone(), source },
        };
        let lock = || program.lock.map_or(Ok(()), Lock::acquire);
        let is_fed = !program.stdin.is_empty();
        if !is_fed {
            lock()?;
        }
        let mut child = start(program).map_err(failed)?;
        let locked = if is_fed { lock() } else { Ok(()) };
        let deadline = program.timeout.map(|timeout| Instant::now() + timeout);
        let mut converse = || {
            let printed = conversation::hold(&mut child, program.stdin, deadline)?;
            Ok((wait(&mut child, deadline)?, printed))
        };
        let ended = locked.and_then(|()| converse().map_err(failed));
        if ended.is_err() {
            // Ends it in every case; a child that is already gone is not an error.
            let _ = child.kill();
            child.wait().map_err(failed)?;
        }
        let (status, (stdout, stderr)) = ended?;
        Ok(Output { process_id: child.id(), status, stdout, stderr })
    }
}

/// Waits for the end of a program that has closed its outputs: mostly that is now.
fn wait(child: &mut Child, deadline: Option<Instant>) -> io::Result<ExitStatus> {
    let Some(deadline) = deadline else { return child.wait() };
    let mut pause = Duration::from_micros(20);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn start(program: &Program<'_>) -> io::Result<Child> {
    #[expect(clippy::disallowed_methods, reason = "this is the place that bounds programs")]
    let mut command = Command::new(&program.file);
    command
        .args(program.args)
        .envs(program.env.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    die_with_parent(&mut command, program.lock.map(Lock::as_fd));
    for _ in 0..BUSY_RETRIES {
        command.stdin(if program.stdin.is_empty() { Stdio::null() } else { Stdio::piped() });
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => sleep(BUSY_PAUSE),
            result => return result,
        }
    }
    Err(io::ErrorKind::ExecutableFileBusy.into())
}

/// Has the kernel kill the child when we die, so that it cannot act after us.
fn die_with_parent(command: &mut Command, inherited: Option<BorrowedFd<'_>>) {
    let parent = nix::unistd::getpid();
    let inherited = inherited.map(|fd| fd.as_raw_fd());
    let prepare = move || {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        // The signal is only sent by a death after this call. Who was started into another namespace
        // of processes has 0 for a parent that is outside of it and lives, and 1 for one that died.
        let now = nix::unistd::getppid();
        if now != parent && now.as_raw() != 0 {
            return Err(io::ErrorKind::NotFound.into());
        }
        if let Some(fd) = inherited {
            clear_close_on_exec(fd)?;
        }
        Ok(())
    };
    #[expect(unsafe_code, reason = "pre_exec runs between fork and exec")]
    // SAFETY: only async-signal-safe system calls; nothing is allocated, no lock is taken.
    unsafe {
        command.pre_exec(prepare);
    }
}

fn clear_close_on_exec(fd: i32) -> io::Result<()> {
    #[expect(unsafe_code, reason = "nix wants a borrowed descriptor, and lifetimes end at fork")]
    // SAFETY: the caller of `start` borrows the descriptor for as long as the call lasts.
    let result = unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn shell<'a>(args: &'a [&'a str], stdin: &'a [u8]) -> Program<'a> {
        Program { file: "/bin/sh".into(), args, stdin, ..Program::default() }
    }

    #[test]
    fn both_outputs_and_the_status_are_kept() {
        let program = Program {
            env: vec![("GREETING", "hello".into())],
            ..shell(&["-c", "cat; echo $GREETING >&2; exit 3"], b"input")
        };
        let output = OsRunner.run(&program).unwrap();
        assert_eq!(output.stdout, b"input");
        assert_eq!(output.stderr, b"hello\n");
        assert_eq!(output.status.code(), Some(3));
    }

    #[test]
    fn a_large_input_that_nobody_reads_does_not_block() {
        let input = vec![b'x'; 1 << 20];
        assert!(OsRunner.run(&shell(&["-c", "true"], &input)).unwrap().status.success());
    }

    #[test]
    fn a_program_that_hangs_is_killed() {
        let program =
            Program { timeout: Some(Duration::from_millis(50)), ..shell(&["-c", "sleep 60"], b"") };
        assert!(matches!(OsRunner.run(&program), Err(Error::TimedOut { .. })));
    }

    #[test]
    fn a_program_that_closes_its_outputs_and_stays_is_killed() {
        let args = ["-c", "exec >&- 2>&-; exec sleep 60"];
        let program =
            Program { timeout: Some(Duration::from_millis(50)), ..shell(&args, b"input") };
        assert!(matches!(OsRunner.run(&program), Err(Error::TimedOut { .. })));
    }

    #[test]
    fn what_printed_more_than_anybody_reads_has_failed() {
        let error = OsRunner.run(&shell(&["-c", "head -c 135000000 /dev/zero"], b"")).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        assert!(source.unwrap().contains("more than 128 MiB"));
    }

    /// Set for the process that the next test starts and kills.
    const ROLE: &str = "RUNNER_TEST_PID_FILE";

    #[test]
    fn plays_the_parent_that_is_killed() {
        let Ok(pid_file) = std::env::var(ROLE) else { return };
        let args = ["-c", "echo $$ >\"$0.new\"; mv \"$0.new\" \"$0\"; exec sleep 60", &pid_file];
        OsRunner.run(&shell(&args, b"")).unwrap();
    }

    #[test]
    fn a_program_dies_with_the_process_that_runs_it() {
        let folder = tempfile::tempdir().unwrap();
        let pid_file = folder.path().join("pid");
        #[expect(clippy::disallowed_methods, reason = "the process that is killed is ours")]
        let mut parent = Command::new("/proc/self/exe")
            .args(["--exact", "tests::plays_the_parent_that_is_killed"])
            .env(ROLE, &pid_file)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let wait_until = |done: &dyn Fn() -> bool| {
            let deadline = Instant::now() + Duration::from_secs(20);
            while !done() {
                assert!(Instant::now() < deadline, "waited for 20 s");
                sleep(Duration::from_millis(5));
            }
        };
        wait_until(&|| pid_file.exists());
        let pid = std::fs::read_to_string(&pid_file).unwrap();
        let program = PathBuf::from(format!("/proc/{}/exe", pid.trim()));
        assert!(program.read_link().is_ok());
        parent.kill().unwrap();
        parent.wait().unwrap();
        wait_until(&|| program.read_link().is_err());
    }

    #[test]
    fn a_missing_program_is_named() {
        let program = Program { file: "no-such-program".into(), ..Program::default() };
        let error = OsRunner.run(&program).unwrap_err();
        assert_eq!(error.to_string(), "no-such-program is not installed, or not in PATH");
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_lock_is_held_until_the_program_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let script = "cat; flock -n \"$0\" true && echo free || echo held";
        for stdin in [b"".as_slice(), b"input "] {
            let lock = Lock::new(File::create(&path).unwrap(), &path, LONG);
            let args = ["-c", script, path.to_str().unwrap()];
            let program = Program { lock: Some(&lock), ..shell(&args, stdin) };
            let printed = OsRunner.run(&program).unwrap().stdout;
            assert_eq!(printed, [stdin, b"held\n"].concat());
        }
    }

    /// Holds the lock until the program has said, by a file, that it was started.
    #[test]
    fn a_program_is_started_before_its_lock_is_free_but_fed_after() {
        let folder = tempfile::tempdir().unwrap();
        let (path, started) = (folder.path().join("lock"), folder.path().join("started"));
        let held = File::create(&path).unwrap();
        held.lock().unwrap();
        let holder = std::thread::spawn({
            let started = started.clone();
            move || {
                let deadline = Instant::now() + LONG;
                while !started.exists() {
                    assert!(Instant::now() < deadline, "it is not started");
                    sleep(Duration::from_millis(2));
                }
                std::fs::write(&started, "free").unwrap();
                drop(held);
            }
        });
        let lock = Lock::new(File::create(&path).unwrap(), &path, LONG);
        let script = "echo started > \"$0\"; cat; cat \"$0\"";
        let args = ["-c", script, started.to_str().unwrap()];
        let program = Program { lock: Some(&lock), ..shell(&args, b"input ") };
        assert_eq!(OsRunner.run(&program).unwrap().stdout, b"input free");
        holder.join().unwrap();
    }

    #[test]
    fn a_program_whose_lock_is_not_free_gets_no_input_and_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = File::create(&path).unwrap();
        held.lock().unwrap();
        let lock = Lock::new(File::create(&path).unwrap(), &path, Duration::from_millis(30));
        let fed = folder.path().join("fed");
        let args = ["-c", "read line && touch \"$0\"; exec sleep 60", fed.to_str().unwrap()];
        let program = Program { lock: Some(&lock), ..shell(&args, b"input\n") };
        assert!(matches!(OsRunner.run(&program), Err(Error::LockTimeout { .. })));
        assert!(!fed.exists());
    }
}
