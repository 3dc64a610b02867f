//! The programs that change the kernel's rules and sets.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ruleset::ipset;
use runner::{Output, Program, Runner};

use super::Error;
use crate::iptables::Family;

/// None takes so long but one that waits for something that never comes: 10,000 policies are in the
/// kernel in seconds.
const TIMEOUT: Duration = Duration::from_mins(2);
/// How long the programs wait for others that change the tables; the legacy ones do so one at a time.
const LOCK_WAIT: &str = "60";

/// The programs, and how they are run.
#[derive(Debug, Clone)]
pub struct Programs<R> {
    runner: R,
    variant: &'static str,
    ran: Ran,
}

/// Programs that ran.
#[derive(Debug, Clone, Default)]
pub struct Ran {
    /// Their process ids: changes of the tables that come from them are our own.
    pub process_ids: BTreeSet<u32>,
    /// How long they took together.
    pub took: Duration,
}

impl<R: Runner> Programs<R> {
    /// The programs of `variant`: `""` for those that the node calls iptables, `-nft` or `-legacy`.
    pub const fn new(runner: R, variant: &'static str) -> Self {
        let ran = Ran { process_ids: BTreeSet::new(), took: Duration::ZERO };
        Self { runner, variant, ran }
    }

    /// The programs that ran since this was last asked.
    pub(crate) fn take_ran(&mut self) -> Ran {
        std::mem::take(&mut self.ran)
    }

    pub(crate) fn saved_table(&mut self, family: Family, table: &str) -> Result<String, Error> {
        self.run(&self.iptables(family, "save"), &["-t", table], "")
    }

    /// The same with how many packets each rule has seen.
    pub(crate) fn counted_table(&mut self, family: Family, table: &str) -> Result<String, Error> {
        self.run(&self.iptables(family, "save"), &["--counters", "-t", table], "")
    }

    pub(crate) fn restore_tables(&mut self, family: Family, text: &str) -> Result<(), Error> {
        let program = self.iptables(family, "restore");
        self.run(&program, &["--noflush", "-w", LOCK_WAIT], text).map(drop)
    }

    pub(crate) fn saved_sets(&mut self) -> Result<String, Error> {
        self.run("ipset", &["save"], "")
    }

    pub(super) fn restore_sets(&mut self, changes: &ipset::Changes) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        self.run("ipset", &["restore"], &changes.text()).map(drop)
    }

    /// The name of iptables' program for this family.
    pub(crate) fn iptables(&self, family: Family, verb: &str) -> String {
        let number = if family.is_ipv4() { "" } else { "6" };
        format!("ip{number}tables{}-{verb}", self.variant)
    }

    fn run(&mut self, program: &str, args: &[&str], stdin: &str) -> Result<String, Error> {
        let started = Instant::now();
        let Output { process_id, status, stdout, stderr } = self.runner.run(&Program {
            file: PathBuf::from(program),
            args,
            stdin: stdin.as_bytes(),
            timeout: Some(TIMEOUT),
            ..Program::default()
        })?;
        self.ran.process_ids.insert(process_id);
        self.ran.took += started.elapsed();
        if status.success() {
            // It may be much, and is copied only where it has to be.
            return Ok(String::from_utf8(stdout)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()));
        }
        let complaint = String::from_utf8_lossy(&stderr).trim().to_owned();
        let line = line_number(&complaint).and_then(|it| stdin.lines().nth(it.checked_sub(1)?));
        Err(Error::Refused {
            program: program.to_owned(),
            line: line.map(str::to_owned),
            complaint,
        })
    }
}

/// The line of their input that the programs complain of: `line 3 failed`, `Error in line 3: ...`.
fn line_number(complaint: &str) -> Option<usize> {
    let (_, after) = complaint.split_once("line ").or_else(|| complaint.split_once("line: "))?;
    after.split(|it: char| !it.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_complaint_is_found() {
        for (complaint, line) in [
            ("iptables-restore v1.8.9 (nf_tables): \nline 3: RULE_APPEND failed", Some(3)),
            ("iptables-restore: line 12 failed", Some(12)),
            ("Error occurred at line: 2", Some(2)),
            ("ipset v7.17: Error in line 5: Set cannot be destroyed", Some(5)),
            ("Another app is currently holding the xtables lock", None),
        ] {
            assert_eq!(line_number(complaint), line, "{complaint}");
        }
    }
}
