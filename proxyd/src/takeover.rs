//! Removing what kube-proxy has left in the kernel, once proxyd serves in its place.
//!
//! In nf_tables it has tables of its own. In those of iptables its chains are among others': what goes is worked out from
//! what `iptables-save` prints, and goes by one `iptables-restore --noflush` for each table, all or nothing.

mod kube_proxy;
mod leftovers;

use std::fs;
use std::io;
use std::time::Duration;

use netlink::nftables::Client;
use ruleset::nft::{Family, Table};
use runner::{Error as RunError, Output, Program, Runner};

use crate::nftables::table;
pub use kube_proxy::{has_rules, running};
use leftovers::{Leftovers, leftovers};

/// kube-proxy's table in nf_tables, in each family.
const KUBE_PROXY: &str = "kube-proxy";
/// `iptables-restore` waits this long for other programs' lock.
const LOCK_SECONDS: &str = "10";
/// Longer than that wait; what takes longer hangs. Tables with 100,000 rules take long.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why something may be left.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody would serve.
    #[error(
        "table {0} is not there, or not in force: without kube-proxy's rules nobody would serve (start proxyd, and wait until it is ready)"
    )]
    NotServing(String),
    /// Its rules would be back at once, or missing where it thinks that they are there.
    #[error(
        "kube-proxy runs on this node, in mode {0}: what it has written stays until it has ended"
    )]
    Running(&'static str),
    /// The kernel has no nf_tables.
    #[error("the kernel has no nf_tables (is the module nf_tables missing?)")]
    NoNftables,
    /// The kernel refused.
    #[error("cannot change nf_tables")]
    Kernel(#[from] netlink::Error),
    /// A program could not be run.
    #[error(transparent)]
    Program(#[from] RunError),
    /// A program failed.
    #[error("{program} has failed ({status}): {stderr}")]
    Failed {
        /// Its name.
        program: String,
        /// How it ended.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// A table that iptables cannot show.
    #[error("{program} cannot show all tables: {line}")]
    Unshown {
        /// Its name.
        program: String,
        /// What it said.
        line: String,
    },
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Tables of nf_tables.
    pub tables: usize,
    /// Chains of iptables.
    pub chains: usize,
    /// Rules of others' chains that led there.
    pub jumps: usize,
}

/// Removes all that kube-proxy has left, in the namespace of the calling thread, of the families that proxyd serves. One
/// table that cannot be changed does not keep the others.
///
/// # Errors
/// [`Error::NotServing`] when proxyd's own tables are not there, and [`Error::Running`] when kube-proxy runs: nothing is removed
/// then; else the first of what failed, after all was tried, the others being logged.
pub fn run(runner: &mut dyn Runner, families: &[bool]) -> Result<Removed, Error> {
    let mut client = Client::open()?.ok_or(Error::NoNftables)?;
    for is_ipv4 in families {
        let own = table(*is_ipv4);
        // In its first transaction proxyd makes the chains that the kernel calls.
        if !client.table(own)?.is_some_and(|it| it.is_awake && !it.chains.is_empty()) {
            return Err(Error::NotServing(own.to_string()));
        }
    }
    if let Some(mode) = running() {
        return Err(Error::Running(mode));
    }
    let mut removed = Removed::default();
    let mut failures = Vec::new();
    for is_ipv4 in families {
        match remove_table(&mut client, table_of(*is_ipv4)) {
            Ok(was_there) => removed.tables += usize::from(was_there),
            Err(error) => failures.push(error),
        }
        for programs in programs(*is_ipv4, has_legacy_tables(*is_ipv4)) {
            failures.extend(programs.remove_or_plain(runner, *is_ipv4, &mut removed).err());
        }
    }
    let mut failures = failures.into_iter();
    let Some(first) = failures.next() else { return Ok(removed) };
    failures.for_each(|it| tracing::error!("{}", cluster::chain(&it)));
    Err(first)
}

/// kube-proxy's table of a family.
const fn table_of(is_ipv4: bool) -> Table<'static> {
    Table { family: if is_ipv4 { Family::Ip } else { Family::Ip6 }, name: KUBE_PROXY }
}

fn remove_table(client: &mut Client, table: Table<'_>) -> Result<bool, Error> {
    let was_there = client.has_table(table)?;
    client.remove(table)?;
    Ok(was_there)
}

/// Whether the program is not there: who has none has no rules by it.
const fn is_missing(result: &Result<(), Error>) -> bool {
    matches!(result, Err(Error::Program(RunError::NotFound(_))))
}

/// The programs for one kind of iptables' tables.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Programs {
    save: String,
    restore: String,
}

/// Those of a family: for its tables in nf_tables, and for those of old where the kernel has some, which only asking
/// may make.
fn programs(is_ipv4: bool, has_legacy: bool) -> Vec<Programs> {
    let kinds = if has_legacy { ["nft", "legacy"].as_slice() } else { &["nft"] };
    let name = name(is_ipv4);
    let programs = |kind: &&str| Programs {
        save: format!("{name}-{kind}-save"),
        restore: format!("{name}-{kind}-restore"),
    };
    kinds.iter().map(programs).collect()
}

const fn name(is_ipv4: bool) -> &'static str {
    if is_ipv4 { "iptables" } else { "ip6tables" }
}

fn has_legacy_tables(is_ipv4: bool) -> bool {
    let names = if is_ipv4 { "/proc/net/ip_tables_names" } else { "/proc/net/ip6_tables_names" };
    match fs::read_to_string(names) {
        Ok(text) => !text.trim().is_empty(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

impl Programs {
    fn plain(is_ipv4: bool) -> Self {
        let name = name(is_ipv4);
        Self { save: format!("{name}-save"), restore: format!("{name}-restore") }
    }

    fn remove_or_plain(
        &self,
        runner: &mut dyn Runner,
        is_ipv4: bool,
        removed: &mut Removed,
    ) -> Result<(), Error> {
        let mut result = self.remove(runner, removed);
        if is_missing(&result) {
            // Where there are no two kinds, the node's may be for either.
            result = Self::plain(is_ipv4).remove(runner, removed);
        }
        if is_missing(&result) {
            tracing::info!("{} is not there: its rules are not looked for", self.save);
            return Ok(());
        }
        result
    }

    fn remove(&self, runner: &mut dyn Runner, removed: &mut Removed) -> Result<(), Error> {
        let saved = run_program(runner, &self.save, &[], b"")?;
        let text = String::from_utf8_lossy(&saved.stdout);
        for Leftovers { table, chains, jumps, kept } in leftovers(&text) {
            for (chain, by) in &kept {
                tracing::warn!(
                    "chain {chain} of table {table} stays: chain {by} leads to it, which is not kube-proxy's"
                );
            }
            if chains.is_empty() {
                continue;
            }
            let input = leftovers::input(table, &chains, &jumps);
            let args = ["--noflush", "-w", LOCK_SECONDS];
            run_program(runner, &self.restore, &args, input.as_bytes())?;
            removed.chains += chains.len();
            removed.jumps += jumps.len();
        }
        match leftovers::unshown(&text) {
            Some(line) => Err(Error::Unshown { program: self.save.clone(), line: line.to_owned() }),
            None => Ok(()),
        }
    }
}

fn run_program(
    runner: &mut dyn Runner,
    name: &str,
    args: &[&str],
    stdin: &[u8],
) -> Result<Output, Error> {
    let timeout = Some(PATIENCE);
    let program = Program { file: name.into(), args, stdin, timeout, ..Program::default() };
    let output = runner.run(&program)?;
    if output.status.success() {
        return Ok(output);
    }
    Err(Error::Failed {
        program: name.to_owned(),
        status: output.status.to_string(),
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    /// Programs of which some are there: what each prints, and its exit code.
    struct Script {
        there: Vec<(&'static str, &'static str, i32)>,
        started: Vec<(String, String)>,
    }

    impl Runner for Script {
        fn run(&mut self, program: &Program<'_>) -> Result<Output, RunError> {
            let name = program.file.display().to_string();
            let missing = || RunError::NotFound(program.file.clone());
            let (_, stdout, code) =
                self.there.iter().find(|it| it.0 == name).ok_or_else(missing)?;
            let stdin = String::from_utf8_lossy(program.stdin).into_owned();
            self.started.push((name, stdin));
            let status = ExitStatus::from_raw(code << 8);
            Ok(Output { process_id: 1, status, stdout: (*stdout).into(), stderr: b"why\n".into() })
        }
    }

    const SAVED: &str =
        "*nat\n:OUTPUT ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n-A OUTPUT -j KUBE-SERVICES\nCOMMIT\n";

    fn removed(script: &mut Script) -> (Result<(), Error>, Removed) {
        let mut removed = Removed::default();
        let programs = programs(true, false);
        let [programs] = programs.as_slice() else { panic!("{programs:?}") };
        (programs.remove_or_plain(script, true, &mut removed), removed)
    }

    fn names(script: &Script) -> Vec<&str> {
        script.started.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn the_programs_are_those_that_are_there() {
        let all = [
            ("iptables-nft-save", SAVED, 0),
            ("iptables-nft-restore", "", 0),
            ("iptables-save", SAVED, 0),
            ("iptables-restore", "", 0),
        ];
        let mut script = Script { there: all.to_vec(), started: vec![] };
        let (result, counts) = removed(&mut script);
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(counts, Removed { tables: 0, chains: 1, jumps: 1 });
        assert_eq!(names(&script), ["iptables-nft-save", "iptables-nft-restore"]);
        let input =
            "*nat\n:KUBE-SERVICES - [0:0]\n-D OUTPUT -j KUBE-SERVICES\n-X KUBE-SERVICES\nCOMMIT\n";
        assert_eq!(script.started[1].1, input);
        let mut script = Script { there: all[2..].to_vec(), started: vec![] };
        assert_eq!(removed(&mut script).1.chains, 1);
        assert_eq!(names(&script), ["iptables-save", "iptables-restore"]);
        // Without any there is nothing by them.
        let mut script = Script { there: vec![], started: vec![] };
        let (result, counts) = removed(&mut script);
        assert!(result.is_ok() && counts == Removed::default(), "{result:?}");
    }

    #[test]
    fn what_failed_is_told_by_its_program() {
        let there = vec![("iptables-nft-save", SAVED, 0), ("iptables-nft-restore", "", 4)];
        let (result, counts) = removed(&mut Script { there, started: vec![] });
        let error = result.unwrap_err().to_string();
        assert_eq!(error, "iptables-nft-restore has failed (exit status: 4): why");
        assert_eq!(counts, Removed::default());
        let text = "# Table `nat' is incompatible, use 'nft' tool.\n";
        let there = vec![("iptables-nft-save", text, 0)];
        let error = removed(&mut Script { there, started: vec![] }).0.unwrap_err();
        assert!(matches!(error, Error::Unshown { .. }), "{error}");
        // The tables of old are looked at where there are some.
        let legacy = &programs(false, true)[1];
        assert_eq!(legacy.restore, "ip6tables-legacy-restore");
    }
}
