//! The iptables programs: a table of a family is read by `iptables-save`, and changed by
//! `iptables-restore`, all or nothing; what an attachment usually adds, and what goes, is written by netlink where the
//! programs would write that to nf_tables.

mod addition;
pub(crate) mod lock;

use std::path::PathBuf;
use std::time::Duration;

use cni::ErrorObject;
use runner::{Error as RunError, Lock, Output, Program, Runner};

use crate::error::{Error, warn};
use crate::kernel_tables::KernelTables;
pub(crate) use addition::{Addition, InChain, InKernel};

/// `iptables-restore` waits this long for other programs' lock.
const XTABLES_WAIT_SECONDS: &str = "10";
/// Longer than that wait; what takes longer hangs.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(60);
/// The table in which addresses are translated.
pub(crate) const NAT: &str = "nat";
/// The table that lets packets pass or not.
pub(crate) const FILTER: &str = "filter";
/// iptables has no longer names of chains.
const LONGEST_CHAIN: usize = 28;
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
    pub(crate) legacy_programs: Programs,
    /// Whether it is IPv4.
    pub(crate) is_ipv4: bool,
}

const IPV4: Family = Family {
    programs: Programs { restore: "iptables-restore", save: "iptables-save" },
    legacy_programs: Programs { restore: "iptables-legacy-restore", save: "iptables-legacy-save" },
    is_ipv4: true,
};

const IPV6: Family = Family {
    programs: Programs { restore: "ip6tables-restore", save: "ip6tables-save" },
    legacy_programs: Programs {
        restore: "ip6tables-legacy-restore",
        save: "ip6tables-legacy-save",
    },
    is_ipv4: false,
};

/// Both.
pub(crate) const FAMILIES: [Family; 2] = [IPV4, IPV6];

/// Where the programs must look for rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Places {
    /// nf_tables.
    pub(crate) nftables: bool,
    /// The tables that iptables used before.
    pub(crate) legacy: bool,
}

/// Whether it names a chain, and stands in the text of a rule as itself.
pub(crate) fn is_chain(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
    !name.is_empty()
        && name.len() <= LONGEST_CHAIN
        && !name.starts_with(['-', '!'])
        && name.bytes().all(is_plain)
}

/// Whether a line of `iptables-save` declares a chain.
pub(crate) fn is_declaration(line: &str, chain: &str) -> bool {
    let name = line.strip_prefix(':').and_then(|rest| rest.split(' ').next());
    name == Some(chain)
}

/// What is done by the programs of both families.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    /// In words, for errors: "masquerading".
    pub(crate) purpose: &'static str,
    /// The table in which.
    pub(crate) table: &'static str,
}

impl Work {
    /// Takes the lines that `lines_for` gives for a table from those of both families, from where `look_in` says.
    pub(crate) fn remove(
        self,
        runner: &mut dyn Runner,
        lock: Option<&Lock>,
        look_in: &mut dyn FnMut(Family) -> Places,
        lines_for: &dyn Fn(&str) -> Vec<String>,
    ) -> Result<(), Error> {
        let mut errors = Vec::new();
        for family in FAMILIES {
            let mut tool = Tool::new(&mut *runner, self, family.programs, lock);
            match remove(&mut tool, family, look_in(family), lines_for) {
                // A pod must be able to go from a node whose programs were taken away.
                Err(error) if is_missing(&error) => {
                    let text = ErrorObject::from(error).msg;
                    warn(&format!("{text}: leaving its rules, if there are any"));
                }
                result => errors.extend(result.err()),
            }
        }
        Error::of_teardown(errors)
    }
}

/// Takes the lines that `lines_for` gives for a table from the tables of a family.
fn remove(
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

/// Whether `iptables-save` says that it cannot read a table, in which case it prints nothing else and still succeeds: nft
/// has put there what no rule of iptables is (`ct state`, for one).
pub(crate) fn is_unreadable(saved: &str) -> bool {
    saved.lines().any(|line| line.starts_with('#') && line.contains("is incompatible, use 'nft'"))
}

/// Whether the kernel has no such table.
pub(crate) fn is_absent(error: &Error) -> bool {
    matches!(error, Error::ProgramFailed { stderr, .. }
        if stderr.contains("does not exist") || stderr.contains("can't initialize"))
}

impl Programs {
    /// The file of that which changes tables, if there is one.
    pub(crate) fn find(self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut files = std::env::split_paths(&path).map(|folder| folder.join(self.restore));
        files.find(|file| file.is_file())
    }
}

/// The file of IPv4's program, if there is one: who has one family's most often has both.
pub(crate) fn find() -> Option<PathBuf> {
    IPV4.programs.find()
}

/// Whether the programs are there: without them no ADD can succeed for which `what` needs them.
pub(crate) fn available(what: &str) -> Result<(), Error> {
    let missing = || {
        let program = IPV4.programs.restore;
        Error::NotAvailable(format!("{what} needs {program}, which is not in PATH"))
    };
    find().map(drop).ok_or_else(missing)
}

/// What a table holds, as `iptables-save` would print it.
pub(crate) enum Saved {
    /// All of it.
    All(String),
    /// Its chains, and some of its rules.
    Part(String),
}

impl Saved {
    /// What is told of it, however much that is.
    pub(crate) fn into_text(self) -> String {
        let (Self::All(text) | Self::Part(text)) = self;
        text
    }
}

/// The programs of one family, and what they run under.
pub(crate) struct Tool<'a> {
    runner: &'a mut dyn Runner,
    work: Work,
    programs: Programs,
    lock: Option<&'a Lock>,
}

impl<'a> Tool<'a> {
    /// Those of a family, under a lock.
    pub(crate) fn new(
        runner: &'a mut dyn Runner,
        work: Work,
        programs: Programs,
        lock: Option<&'a Lock>,
    ) -> Self {
        Self { runner, work, programs, lock }
    }

    /// Applies lines to the table, all or none.
    pub(crate) fn restore(&mut self, lines: &[String]) -> Result<(), Error> {
        let input = format!("*{}\n{}\nCOMMIT\n", self.work.table, lines.join("\n"));
        let args = ["--noflush", "-w", XTABLES_WAIT_SECONDS];
        self.run(self.programs.restore, &args, input.as_bytes()).map(|_| ())
    }

    /// One read and, where there is something to remove, one write.
    fn remove(&mut self, lines_for: impl Fn(&str) -> Vec<String>) -> Result<(), Error> {
        match lines_for(&self.save_if_there()?) {
            lines if lines.is_empty() => Ok(()),
            lines => self.restore(&lines),
        }
    }

    /// The table as text.
    pub(crate) fn save(&mut self) -> Result<String, Error> {
        let output = self.run(self.programs.save, &["-t", self.work.table], b"")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The table as text; nothing where the kernel has none.
    pub(crate) fn save_if_there(&mut self) -> Result<String, Error> {
        match self.save() {
            Err(error) if is_absent(&error) => Ok(String::new()),
            saved => saved,
        }
    }

    /// The table as far as these rules need it: their chains, and which of them are there. Where the programs cannot read it,
    /// what they keep in nf_tables the kernel tells.
    pub(crate) fn save_for(
        &mut self,
        kernel: &mut KernelTables,
        family: Family,
        rules: &[&InChain],
    ) -> Result<Saved, Error> {
        let saved = self.save_if_there()?;
        if !is_unreadable(&saved) {
            return Ok(Saved::All(saved));
        }
        match InKernel::find(kernel, family, self.work.table) {
            Some(mut it) => Ok(Saved::Part(it.told(rules)?)),
            None => Ok(Saved::All(saved)),
        }
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
        let what = || format!("{} by {file}", self.work.purpose);
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
