//! Running other programs (delegated plugins, `iptables-restore`): with a bounded wait, and in a
//! way that none of them outlives the process that started it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// What a program printed may take this much memory at most; more is cut off.
const OUTPUT_LIMIT: usize = 16 << 20;
/// A program that is being replaced while we start it is tried again this often.
const BUSY_RETRIES: u32 = 50;
/// And after this pause each time.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

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
    /// A lock that it keeps holding should we die before it.
    pub inherited: Option<BorrowedFd<'a>>,
}

/// How a program ended.
#[derive(Debug, Clone)]
pub struct Output {
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
        let mut child = start(program).map_err(failed)?;
        let printed = collect(&mut child, program.timeout.map(|timeout| Instant::now() + timeout));
        if printed.is_err() {
            // Ends it in every case; a child that is already gone is not an error.
            let _ = child.kill();
        }
        let status = child.wait().map_err(failed)?;
        let (stdout, stderr) = printed.map_err(failed)?;
        Ok(Output { status, stdout, stderr })
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
    die_with_parent(&mut command, program.inherited);
    for _ in 0..BUSY_RETRIES {
        command.stdin(document(program.stdin)?);
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => sleep(BUSY_PAUSE),
            result => return result,
        }
    }
    Err(io::ErrorKind::ExecutableFileBusy.into())
}

/// stdin as a file in memory: unlike a pipe it needs nobody to feed it, so a program that does not
/// read its input cannot make us wait.
fn document(bytes: &[u8]) -> io::Result<Stdio> {
    if bytes.is_empty() {
        return Ok(Stdio::null());
    }
    let mut file = File::from(memfd_create(c"stdin", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(OwnedFd::from(file).into())
}

/// Has the kernel kill the child when we die, so that it cannot act after us.
fn die_with_parent(command: &mut Command, inherited: Option<BorrowedFd<'_>>) {
    let parent = nix::unistd::getpid();
    let inherited = inherited.map(|fd| fd.as_raw_fd());
    let prepare = move || {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        // The signal is only sent by a death after this call.
        if nix::unistd::getppid() != parent {
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

/// Reads both outputs until both are closed.
fn collect(child: &mut Child, deadline: Option<Instant>) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut stdout = Stream::new(child.stdout.take().map(OwnedFd::from));
    let mut stderr = Stream::new(child.stderr.take().map(OwnedFd::from));
    while stdout.file.is_some() || stderr.file.is_some() {
        let mut waiting: Vec<PollFd<'_>> = [&stdout, &stderr]
            .into_iter()
            .filter_map(|stream| {
                Some(PollFd::new(stream.file.as_ref()?.as_fd(), PollFlags::POLLIN))
            })
            .collect();
        match poll(&mut waiting, remaining(deadline)?) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<i32> = waiting
            .iter()
            .filter(|fd| fd.any().unwrap_or(true))
            .map(|fd| fd.as_fd().as_raw_fd())
            .collect();
        drop(waiting);
        stdout.read_if(&ready)?;
        stderr.read_if(&ready)?;
    }
    Ok((stdout.bytes, stderr.bytes))
}

fn remaining(deadline: Option<Instant>) -> io::Result<PollTimeout> {
    let Some(deadline) = deadline else { return Ok(PollTimeout::NONE) };
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    // Rounded up, so that the last wait does not spin.
    Ok(PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX))
}

struct Stream {
    file: Option<File>,
    bytes: Vec<u8>,
}

impl Stream {
    fn new(descriptor: Option<OwnedFd>) -> Self {
        Self { file: descriptor.map(File::from), bytes: Vec::new() }
    }

    fn read_if(&mut self, ready: &[i32]) -> io::Result<()> {
        let Some(file) = self.file.as_mut().filter(|file| ready.contains(&file.as_raw_fd())) else {
            return Ok(());
        };
        let mut buffer = [0; 8192];
        let count = file.read(&mut buffer)?;
        let room = OUTPUT_LIMIT.saturating_sub(self.bytes.len());
        self.bytes.extend(buffer.iter().take(count.min(room)));
        if count == 0 {
            self.file = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn an_inherited_lock_is_held_until_the_program_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lock = File::create(&path).unwrap();
        lock.lock().unwrap();
        let args = ["-c", "flock -n \"$0\" true && echo free || echo held", path.to_str().unwrap()];
        let program = Program { inherited: Some(lock.as_fd()), ..shell(&args, b"") };
        assert_eq!(OsRunner.run(&program).unwrap().stdout, b"held\n");
    }
}
