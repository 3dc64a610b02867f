//! The first process of a namespace: it starts programs, starts those again that end, and reaps what
//! is left to it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::error::{Error, Result};
use crate::services::Service;
use crate::state::write;

/// Between two looks at what has ended, and what can start.
const PAUSE: Duration = Duration::from_millis(50);

/// A program that ended is started again after this long.
const AGAIN: Duration = Duration::from_secs(1);

/// The programs of this namespace.
#[derive(Debug)]
pub(crate) struct Running {
    services: Vec<(Service, Phase)>,
    places: Places,
}

/// Where what belongs to programs is.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// Their files.
    pub(crate) programs: PathBuf,
    /// What they say, in a file for each.
    pub(crate) logs: PathBuf,
    /// Their process ids, in a file for each. A program is not started while there is a file here with its name and `.off`.
    pub(crate) ids: PathBuf,
}

#[derive(Debug)]
enum Phase {
    Waits { since: Option<Instant> },
    Runs(Pid),
}

impl Running {
    /// Those of a namespace; none is started yet.
    #[must_use]
    pub(crate) fn new(services: Vec<Service>, places: Places) -> Self {
        let waits = |service| (service, Phase::Waits { since: None });
        Self { services: services.into_iter().map(waits).collect(), places }
    }

    /// Starts what is due, and takes note of what has ended; others that have ended are told to
    /// `ended`. Then it waits for a moment.
    pub(crate) fn turn(&mut self, mut ended: impl FnMut(Pid)) {
        while let Some(pid) = next_ended() {
            let own =
                self.services.iter_mut().find(|it| matches!(it.1, Phase::Runs(id) if id == pid));
            match own {
                Some((service, phase)) => {
                    say(&format!("{} has ended", service.name));
                    *phase = Phase::Waits { since: Some(Instant::now()) };
                }
                None => ended(pid),
            }
        }
        for (service, phase) in &mut self.services {
            if let Phase::Waits { since } = phase
                && since.is_none_or(|since| since.elapsed() >= AGAIN)
                && service.after.as_deref().is_none_or(Path::exists)
                && !self.places.ids.join(format!("{}.off", service.name)).exists()
            {
                *phase = match start(service, &self.places) {
                    Ok(pid) => Phase::Runs(pid),
                    Err(error) => {
                        say(&error.chain());
                        Phase::Waits { since: Some(Instant::now()) }
                    }
                };
            }
        }
        sleep(PAUSE);
    }
}

fn next_ended() -> Option<Pid> {
    match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => Some(pid),
        _ => None,
    }
}

fn start(service: &Service, places: &Places) -> Result<Pid> {
    let file = places.programs.join(service.name);
    let mut command = program(&file);
    command.args(&service.arguments).process_group(0).stdin(Stdio::null());
    command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", places.programs.display()));
    let log = log(&places.logs.join(format!("{}.log", service.name)))?;
    command.stdout(log.try_clone().map_err(Error::file("write", &places.logs))?).stderr(log);
    let child = command.spawn().map_err(Error::file("run", file))?;
    let id = child.id().cast_signed();
    write(&places.ids.join(service.name), id.to_string())?;
    say(&format!("{} is process {id}", service.name));
    Ok(Pid::from_raw(id))
}

/// A file that is written to at its end.
///
/// # Errors
/// It cannot be written.
pub(crate) fn log(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(Error::file("make the folder", folder))?;
    }
    File::options().create(true).append(true).open(path).map_err(Error::file("write", path))
}

/// A program that is not waited for here, and ends with its namespace.
#[expect(clippy::disallowed_methods, reason = "the runner's programs end soon, these run on")]
pub(crate) fn program(file: &Path) -> Command {
    Command::new(file)
}

/// Tells what happened; the supervisor's log is where it goes. That nobody listens any more stops nothing.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
