//! Programming the rules: one `iptables-restore` for each family.

use std::path::PathBuf;
use std::time::Duration;

use cni::ErrorObject;
use ipnetwork::IpNetwork;
use runner::{Error as RunError, Lock, Output, Program, Runner};

use super::{
    CHAIN_PREFIX, FAMILIES, Family, Identity, Places, Programs, Rules, Which, lock, quoted_comment,
};
use crate::error::{Error, warn};

/// `iptables-restore` waits this long for other programs' lock.
const XTABLES_WAIT_SECONDS: &str = "10";
/// Longer than that wait; what takes longer hangs.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(60);
/// iptables: `RESOURCE_PROBLEM`, among others when the lock was not free in time.
const EXIT_RESOURCE_PROBLEM: i32 = 4;

/// Adds the rules for an attachment's addresses.
pub(super) fn set_up(
    runner: &mut dyn Runner,
    identity: &Identity,
    addresses: &[IpNetwork],
) -> Result<(), Error> {
    let lock = lock::open();
    for family in FAMILIES {
        let of_family = |cidr: &&IpNetwork| cidr.is_ipv4() == family.is_ipv4;
        let addresses: Vec<IpNetwork> = addresses.iter().filter(of_family).copied().collect();
        if !addresses.is_empty() {
            let rules = Rules::new(family, identity, &addresses);
            set_up_family(
                &mut Tool { runner, programs: family.programs, lock: lock.as_ref() },
                identity,
                &rules,
            )?;
        }
    }
    Ok(())
}

fn set_up_family(tool: &mut Tool<'_>, identity: &Identity, rules: &Rules) -> Result<(), Error> {
    // `-N` fails when the chain exists; `:CHAIN` would empty the one that another interface of the
    // container uses.
    let mut lines = vec![format!("-N {}", identity.chain)];
    let added = rules.accept.iter().chain([&rules.masquerade]).chain(&rules.jumps);
    lines.extend(added.map(|rule| format!("-A {rule}")));
    match tool.restore(&lines) {
        Err(Error::ProgramFailed { .. }) => {}
        result => return result,
    }
    let missing = missing_lines(&tool.save()?, identity, rules);
    if missing.is_empty() { Ok(()) } else { tool.restore(&missing) }
}

/// The lines that complete what is there.
fn missing_lines(saved: &str, identity: &Identity, rules: &Rules) -> Vec<String> {
    let has_chain = saved.lines().any(|line| is_declaration(line, &identity.chain));
    let has = |rule: &String| saved.lines().any(|line| line.strip_prefix("-A ") == Some(rule));
    let mut lines = Vec::new();
    if !has_chain {
        lines.push(format!("-N {}", identity.chain));
    }
    // Before the rule that masquerades the rest, which may be there.
    lines.extend(rules.accept.iter().filter(|rule| !has(rule)).map(|rule| format!("-I {rule}")));
    let rest = [&rules.masquerade].into_iter().chain(&rules.jumps);
    lines.extend(rest.filter(|rule| !has(rule)).map(|rule| format!("-A {rule}")));
    lines
}

fn is_declaration(line: &str, chain: &str) -> bool {
    let name = line.strip_prefix(':').and_then(|rest| rest.split(' ').next());
    name == Some(chain)
}

/// Removes an attachment's rules from where `look_in` says, whichever suite made them, by the name of
/// their chain.
pub(super) fn tear_down(
    runner: &mut dyn Runner,
    chain: &str,
    which: Which<'_>,
    look_in: &mut dyn FnMut(Family) -> Places,
) -> Result<(), Error> {
    let lock = lock::take()?;
    let lines_for = |saved: &str| removal_lines(saved, chain, which);
    let mut errors = Vec::new();
    for family in FAMILIES {
        match remove(runner, lock.as_ref(), family, look_in(family), &lines_for) {
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

/// Removes the rules of the containers in `network` whose chains are not among `valid`, from where
/// `look_in` says.
pub(super) fn collect_garbage(
    runner: &mut dyn Runner,
    network: &str,
    valid: &[String],
    look_in: &mut dyn FnMut(Family) -> Places,
) -> Result<(), Error> {
    let lines_for = |saved: &str| {
        let chains = chains(saved, network);
        let stale = chains.into_iter().filter(|chain| !valid.iter().any(|name| name == chain));
        stale.flat_map(|chain| removal_lines(saved, chain, Which::AllBut(&[]))).collect()
    };
    let lock = lock::take()?;
    let mut errors = Vec::new();
    for family in FAMILIES {
        let removed = remove(runner, lock.as_ref(), family, look_in(family), &lines_for);
        errors.extend(removed.err());
    }
    Error::of_teardown(errors)
}

/// The chains of the containers in `network`, each once: those that have rules with its comment, or
/// where such rules lead. The comment's end does not matter, because iptables cuts it off after 255
/// bytes.
fn chains<'a>(saved: &'a str, network: &str) -> Vec<&'a str> {
    let marker = quoted_comment(&Identity::new(network, ""));
    let marker = marker.trim_end_matches("\\\"\"");
    let of_network = saved.lines().filter(|line| line.contains(marker));
    let chains = of_network.flat_map(|line| {
        let target = line.rsplit_once(" -j ").map(|(_, target)| target);
        let own = line.strip_prefix("-A ").and_then(|rule| rule.split(' ').next());
        [target, own].into_iter().flatten()
    });
    let mut chains: Vec<&str> = chains.filter(|name| name.starts_with(CHAIN_PREFIX)).collect();
    chains.sort_unstable();
    chains.dedup();
    chains
}

/// Takes the lines that `lines_for` gives for a table from the tables of a family.
fn remove(
    runner: &mut dyn Runner,
    lock: Option<&Lock>,
    family: Family,
    mut places: Places,
    lines_for: &dyn Fn(&str) -> Vec<String>,
) -> Result<(), Error> {
    let mut errors = Vec::new();
    if places.legacy {
        match (Tool { runner, programs: family.legacy_programs, lock }).remove(lines_for) {
            // Where there are no two kinds, the node's may be for the tables of old.
            Err(error) if is_missing(&error) => places.nftables = true,
            result => errors.extend(result.err()),
        }
    }
    if places.nftables {
        let mut tool = Tool { runner, programs: family.programs, lock };
        errors.extend(tool.remove(lines_for).err());
    }
    Error::of_teardown(errors)
}

fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Program { source: RunError::NotFound(_), .. })
}

/// Whether the kernel has no such table.
fn is_absent(error: &Error) -> bool {
    matches!(error, Error::ProgramFailed { stderr, .. }
        if stderr.contains("does not exist") || stderr.contains("can't initialize"))
}

/// The lines that remove jumps to `chain`, and the chain when no other jump needs it.
fn removal_lines(saved: &str, chain: &str, which: Which<'_>) -> Vec<String> {
    let targets = [format!(" -j {chain}"), format!(" -g {chain}")];
    let leads_there = |rule: &&str| targets.iter().any(|target| rule.ends_with(target));
    let rules = saved.lines().filter_map(|line| line.strip_prefix("-A "));
    let (ours, others): (Vec<&str>, Vec<&str>) =
        rules.filter(leads_there).partition(|rule| which.includes(source(rule)));
    let mut lines: Vec<String> = ours.iter().map(|rule| format!("-D {rule}")).collect();
    let is_there = saved.lines().any(|line| is_declaration(line, chain));
    if is_there && others.is_empty() {
        lines.push(format!("-F {chain}"));
        lines.push(format!("-X {chain}"));
    }
    lines
}

/// The source addresses that a rule is for.
fn source(rule: &str) -> Option<IpNetwork> {
    let (before, after) = rule.split_once("-s ")?;
    let is_negated = before.ends_with("! ");
    after.split(' ').next().filter(|_| !is_negated).and_then(cni::parse_cidr)
}

/// The file of the program, if there is one.
pub(super) fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut files = std::env::split_paths(&path).map(|folder| folder.join(program()));
    files.find(|file| file.is_file())
}

fn program() -> &'static str {
    FAMILIES.first().map_or("", |family| family.programs.restore)
}

/// Whether the programs are there: without them no ADD that masquerades by them can succeed.
pub(super) fn available() -> Result<(), Error> {
    let missing = || {
        let program = program();
        Error::NotAvailable(format!("ipMasq needs {program}, which is not in PATH"))
    };
    find().map(drop).ok_or_else(missing)
}

/// The programs of one family, and what they run under.
struct Tool<'a> {
    runner: &'a mut dyn Runner,
    programs: Programs,
    lock: Option<&'a Lock>,
}

impl Tool<'_> {
    /// Applies lines to the nat table, all or none.
    fn restore(&mut self, lines: &[String]) -> Result<(), Error> {
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
    fn save(&mut self) -> Result<String, Error> {
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
        let what = || format!("masquerading by {file}");
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

#[cfg(test)]
mod tests;
