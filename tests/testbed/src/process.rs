//! Processes that are known by more than their number, which the kernel gives away again.

use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A process: its number, and when it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The number, in the namespace of whoever asks.
    pub id: i32,
    started: u64,
}

/// What the kernel tells of a process in one line.
struct Stat {
    is_over: bool,
    parent: i32,
    started: u64,
}

impl Identity {
    /// The process that has this number now.
    #[must_use]
    pub fn of(id: i32) -> Option<Self> {
        stat(id).map(|stat| Self { id, started: stat.started })
    }

    /// Whether it is the calling process, by whatever number that is known to others. (When a process
    /// began is the same in every namespace.)
    #[must_use]
    pub fn is_ours(&self) -> bool {
        let own = fs::read_link("/proc/self").ok();
        let own = own.and_then(|it| it.to_str()?.parse().ok()).and_then(stat);
        own.is_some_and(|stat| stat.started == self.started)
    }

    /// Whether it runs still.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        stat(self.id).is_some_and(|stat| stat.started == self.started && !stat.is_over)
    }

    /// Ends it, and waits until it has gone. For the first process of a namespace that means: until
    /// all others of the namespace have gone too.
    ///
    /// # Errors
    /// It cannot be ended, or is there still after `bound`.
    pub fn end(&self, bound: Duration) -> Result<()> {
        if self.is_alive() {
            // It may have ended since: whether it is gone is looked at below.
            let _ = kill(Pid::from_raw(self.id), Signal::SIGKILL);
        }
        let what = || format!("the end of process {}", self.id);
        wait_until(bound, what, || Ok((!self.is_alive()).then_some(())))
    }

    /// The processes that it started, or was left with.
    #[must_use]
    pub fn children(&self) -> Vec<Self> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let child = |id: i32| {
            let stat = stat(id)?;
            (stat.parent == self.id).then_some(Self { id, started: stat.started })
        };
        ids.filter_map(child).collect()
    }

    /// Its arguments, the program's name first.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let text = fs::read(self.file("cmdline")).unwrap_or_default();
        let words = text.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }

    /// A file that the kernel shows of it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.id))
    }
}

fn stat(id: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The second field is the name, in brackets, and may have brackets and spaces in it.
    let (_, fields) = text.rsplit_once(") ")?;
    let fields: Vec<_> = fields.split(' ').collect();
    Some(Stat {
        is_over: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// Asks until there is an answer, for as long as `bound`.
///
/// # Errors
/// [`Error::InVain`], with what `ask` failed with the last time.
pub fn wait_until<T>(
    bound: Duration,
    what: impl Fn() -> String,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        let last = match ask() {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => None,
            Err(error) => Some(error.chain()),
        };
        if started.elapsed() >= bound {
            return Err(Error::InVain { what: what(), bound, last });
        }
        sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_again_and_others_are_not_taken_for_it() {
        let own = Identity::of(std::process::id().cast_signed()).unwrap();
        assert!(own.is_alive() && own.is_ours());
        assert!(!Identity { started: own.started + 1, ..own }.is_ours());
        assert!(!Identity { started: own.started + 1, ..own }.is_alive());
        assert!(Identity::of(i32::MAX).is_none());
    }

    #[test]
    fn what_was_waited_for_in_vain_is_told_with_its_cause() {
        let ask = || Err::<Option<()>, _>(Error::NoNode("node-1".to_owned()));
        let error = wait_until(Duration::ZERO, || "a node".to_owned(), ask).unwrap_err();
        let text = "waited for 0ns in vain: a node; at last: node-1 does not run";
        assert_eq!(error.to_string(), text);
    }
}
