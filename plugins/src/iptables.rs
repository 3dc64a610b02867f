//! The iptables programs: the nat table of a family is read by `iptables-save`, and changed by
//! `iptables-restore`, all or nothing.

pub(crate) mod lock;

use std::path::PathBuf;
use std::time::Duration;

use runner::{Error as RunError, Lock, Output, Program, Runner};

use crate::error::Error;

/// `iptables-restore` waits this long for other programs' lock.
const XTABLES_WAIT_SECONDS: &str = "10";
/// Longer than that wait; what takes longer hangs.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(60);
/// iptables: `RESOURCE_PROBLEM`, among others when the lock was not free in time.
const EXIT_RESOURCE_PROBLEM: i32 = 4;

/// The programs of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Programs {
    restore: &'static str,
    save: &'static str,
}

/// A protocol family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Family {
    /// Those that the node uses, for whichever tables.
    pub(crate) programs: Programs,
    /// Those that are for the tables of old whatever the node uses, where it has them.
    legacy_programs: Programs,
    /// Whether it is IPv4.
    pub(crate) is_ipv4: bool,
}

/// Both.
pub(crate) const FAMILIES: [Family; 2] = [
    Family {
        programs: Programs { restore: "iptables-restore", save: "iptables-save" },
        legacy_programs: Programs {
            restore: "iptables-legacy-restore",
            save: "iptables-legacy-save",
        },
        is_ipv4: true,
    },
    Family {
        programs: Programs { restore: "ip6tables-restore", save: "ip6tables-save" },
        legacy_programs: Programs {
            restore: "ip6tables-legacy-restore",
            save: "ip6tables-legacy-save",
        },
        is_ipv4: false,
    },
];

/// Where the programs must look for rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Places {
    /// nf_tables.
    pub(crate) nftables: bool,
    /// The tables that iptables used before.
    pub(crate) legacy: bool,
}

/// Whether a line of `iptables-save` declares a chain.
pub(crate) fn is_declaration(line: &str, chain: &str) -> bool {
    let name = line.strip_prefix(':').and_then(|rest| rest.split(' ').next());
    name == Some(chain)
}

/// Takes the lines that `lines_for` gives for a table from the tables of a family.
pub(crate) fn remove(
    tool: &mut Tool<'_>,
    family: Family,
    mut places: Places,
    lines_for: &dyn Fn(&str) -> Vec<String>,
) -> Result<(), Error> {
    let mut errors = Vec::new();
    if places.legacy {
        tool.programs = family.legacy_programs;
        match tool.remove(lines_for) {
            // Where there are no two kinds, the node's may be for the tables of old.
            Err(error) if is_missing(&error) => places.nftables = true,
            result => errors.extend(result.err()),
        }
        tool.programs = family.programs;
    }
    if places.nftables {
        errors.extend(tool.remove(lines_for).err());
    }
    Error::of_teardown(errors)
}

/// Whether the program is not there.
pub(crate) fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Program { source: RunError::NotFound(_), .. })
}

/// Whether the kernel has no such table.
pub(crate) fn is_absent(error: &Error) -> bool {
    matches!(error, Error::ProgramFailed { stderr, .. }
        if stderr.contains("does not exist") || stderr.contains("can't initialize"))
}

/// The file of the program, if there is one.
pub(crate) fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut files = std::env::split_paths(&path).map(|folder| folder.join(program()));
    files.find(|file| file.is_file())
}

fn program() -> &'static str {
    FAMILIES.first().map_or("", |family| family.programs.restore)
}

/// Whether the programs are there: without them no ADD can succeed for which `what` needs them.
pub(crate) fn available(what: &str) -> Result<(), Error> {
    let missing = || {
        let program = program();
        Error::NotAvailable(format!("{what} needs {program}, which is not in PATH"))
    };
    find().map(drop).ok_or_else(missing)
}

/// The programs of one family, and what they run under.
pub(crate) struct Tool<'a> {
    runner: &'a mut dyn Runner,
    /// What is done by them, for errors: "masquerading".
    purpose: &'static str,
    programs: Programs,
    lock: Option<&'a Lock>,
}

impl<'a> Tool<'a> {
    /// Those of a family, for a purpose that errors tell, under a lock.
    pub(crate) fn new(
        runner: &'a mut dyn Runner,
        purpose: &'static str,
        programs: Programs,
        lock: Option<&'a Lock>,
    ) -> Self {
        Self { runner, purpose, programs, lock }
    }

    /// Applies lines to the nat table, all or none.
    pub(crate) fn restore(&mut self, lines: &[String]) -> Result<(), Error> {
        let input = format!("*nat\n{}\nCOMMIT\n", lines.join("\n"));
        let args = ["--noflush", "-w", XTABLES_WAIT_SECONDS];
        self.run(self.programs.restore, &args, input.as_bytes()).map(|_| ())
    }

    /// One read and, where there is something to remove, one write.
    fn remove(&mut self, lines_for: impl Fn(&str) -> Vec<String>) -> Result<(), Error> {
        match self.save() {
            Ok(saved) => match lines_for(&saved) {
                lines if lines.is_empty() => Ok(()),
                lines => self.restore(&lines),
            },
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The nat table as text.
    pub(crate) fn save(&mut self) -> Result<String, Error> {
        let output = self.run(self.programs.save, &["-t", "nat"], b"")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn run(&mut self, file: &str, args: &[&str], stdin: &[u8]) -> Result<Output, Error> {
        let program = Program {
            file: file.into(),
            args,
            stdin,
            timeout: Some(PROGRAM_TIMEOUT),
            lock: self.lock,
            ..Program::default()
        };
        let what = || format!("{} by {file}", self.purpose);
        let output = self.runner.run(&program).map_err(|error| match error {
            error @ (RunError::LockTimeout { .. } | RunError::Lock { .. }) => Error::Lock(error),
            source => Error::Program { what: what(), source },
        })?;
        if output.status.success() {
            return Ok(output);
        }
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if output.status.code() == Some(EXIT_RESOURCE_PROBLEM) && stderr.contains("xtables lock") {
            return Err(Error::IptablesBusy { what: what(), stderr });
        }
        Err(Error::ProgramFailed { what: what(), status: output.status.to_string(), stderr })
    }
}
