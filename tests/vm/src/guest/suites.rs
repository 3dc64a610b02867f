//! Running a binary of tests.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{Port, uptime};
use crate::error::{Error, Result};
use crate::plan::Planned;
use crate::results::{ENDED, SUCCESS, SUITE};

/// A suite that takes longer hangs; the table names the parts of those that would.
const BOUND: Duration = Duration::from_secs(45 * 60);

/// As many tests run at once as there are processors.
const AT_ONCE: &str = "--test-threads=2";

/// Runs a binary to its end, whatever that is.
///
/// # Errors
/// It cannot be started, or nothing can be told.
pub(super) fn run(
    suite: &Planned,
    environment: &BTreeMap<String, String>,
    port: &mut Port,
) -> Result<()> {
    port.tell(&format!("{SUITE}{}", suite.name))?;
    let started = uptime();
    let share = port.0.try_clone().map_err(Error::file("share", super::PORT))?;
    let mut command = program(&suite.file);
    command
        .env_clear()
        .envs(environment)
        // As cargo does.
        .env("CARGO_MANIFEST_DIR", &suite.folder)
        .current_dir(&suite.folder)
        .args(["--color=never", AT_ONCE, "--exact"])
        .args(&suite.tests)
        .stdin(Stdio::null())
        .stdout(share)
        .process_group(0);
    let child = command.spawn().map_err(Error::file("run", &suite.file))?;
    let how = wait(Pid::from_raw(child.id().cast_signed()))?;
    port.tell(&format!("{ENDED}after {} s: {how}", uptime() - started))
}

/// Waits for a child, and ends it when it takes too long. The first process is also left with all that
/// others started and did not wait for.
fn wait(child: Pid) -> Result<String> {
    let started = Instant::now();
    loop {
        let ended = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            // Whoever is traced, or only stopped, has not ended.
            Ok(WaitStatus::Exited(pid, 0)) if pid == child => SUCCESS.to_owned(),
            Ok(WaitStatus::Exited(pid, code)) if pid == child => format!("exit status: {code}"),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => format!("signal: {signal}"),
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => {
                if started.elapsed() > BOUND {
                    // What it says while it is ended need not be waited for.
                    killpg(child, Signal::SIGKILL).map_err(Error::kernel("end a suite"))?;
                    return Ok(format!("it hung and was killed after {} s", BOUND.as_secs()));
                }
                sleep(Duration::from_millis(50));
                continue;
            }
            Ok(_) => continue,
            Err(errno) => return Err(Error::kernel("wait for a suite")(errno)),
        };
        return Ok(ended);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "it is bounded here, and its output is not read but sent"
)]
fn program(file: &Path) -> Command {
    Command::new(file)
}
