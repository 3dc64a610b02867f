//! Keeping podwire-policy in a list whose owner writes it again, at its start or at an update.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::super::output::{complain, say};
use super::{failed, put_into};
use crate::error::Error;

/// The file is looked at this often though nothing was told: its name may be a link to elsewhere.
const LOOK: Duration = Duration::from_secs(5);
/// The same while there is no folder to watch.
const NO_FOLDER: Duration = Duration::from_secs(1);
/// An owner who writes in place does so in several steps.
const QUIET: Duration = Duration::from_millis(50);
/// The pauses after a repair: the first, and the longest, where the owner takes it out each time.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// After so long without a repair the next one is the first again.
const PEACE: Duration = Duration::from_mins(1);

/// Puts podwire-policy into the file whenever it is not there, until the process is told to end.
/// It stays in the list then.
pub(in crate::cli) fn watch(file: &Path, bin_dir: &Path) -> Result<(), Error> {
    let end = end_of_process().map_err(failed("watch", file))?;
    let mut repairs = Repairs::default();
    let mut told = String::new();
    loop {
        // Before the look: what happens after it is told.
        let folder = file.parent().filter(|it| !it.as_os_str().is_empty());
        let changes = changes_of(folder.unwrap_or(Path::new(".")));
        let problem = match put_into(file, bin_dir) {
            Ok(false) => String::new(),
            Ok(true) => {
                say(&format!("{}: podwire-policy is chained\n", file.display()))?;
                repairs.count();
                String::new()
            }
            // It is waited for.
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                String::new()
            }
            Err(error) => cni::ErrorObject::from_error(0, &error).msg,
        };
        if !problem.is_empty() && problem != told {
            complain(&problem);
        }
        told = problem;
        if wait(&end, changes.as_ref(), &repairs).map_err(failed("watch", file))? {
            return Ok(());
        }
    }
}

/// A descriptor that tells of the request to end. A container's first process would not hear of it
/// otherwise.
fn end_of_process() -> io::Result<SignalFd> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// Tells of files of the folder; `None` where there is none.
fn changes_of(folder: &Path) -> Option<Inotify> {
    let wanted = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR;
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok()?;
    inotify.add_watch(folder, wanted).ok()?;
    Some(inotify)
}

/// Waits until the file should be looked at; whether the process shall end instead.
fn wait(end: &SignalFd, changes: Option<&Inotify>, repairs: &Repairs) -> io::Result<bool> {
    let longest = if changes.is_some() { LOOK } else { NO_FOLDER };
    if wait_for(end, changes, longest)? {
        return Ok(true);
    }
    // Now only the end is waited for.
    wait_for(end, None, repairs.pause().max(QUIET))
}

fn wait_for(end: &SignalFd, changes: Option<&Inotify>, longest: Duration) -> io::Result<bool> {
    let mut waiting = vec![PollFd::new(end.as_fd(), PollFlags::POLLIN)];
    waiting.extend(changes.map(|it| PollFd::new(it.as_fd(), PollFlags::POLLIN)));
    let timeout = PollTimeout::try_from(longest).unwrap_or(PollTimeout::MAX);
    match poll(&mut waiting, timeout) {
        Err(Errno::EINTR) => return Ok(false),
        polled => polled?,
    };
    Ok(waiting.first().and_then(PollFd::any).unwrap_or(false))
}

/// How often the list had to be repaired of late.
#[derive(Debug, Default)]
struct Repairs {
    count: u32,
    last: Option<Instant>,
}

impl Repairs {
    fn count(&mut self) {
        let is_quarrel = self.last.is_some_and(|last| last.elapsed() < PEACE);
        self.count = if is_quarrel { self.count.saturating_add(1) } else { 0 };
        self.last = Some(Instant::now());
    }

    fn pause(&self) -> Duration {
        let (first, longest) = PAUSES;
        first.saturating_mul(1 << self.count.min(10)).min(longest)
    }
}
