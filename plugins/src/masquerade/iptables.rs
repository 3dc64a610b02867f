//! Programming the rules: one `iptables-restore` for each family.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use runner::{Output, Program, Runner};

use super::{FAMILIES, Family, Identity, Rules, quoted_comment};
use crate::error::{Error, warn};

/// Orders our own calls. The programs inherit it, so that it is held until the last of them has
/// ended, even when the plugin that started it was killed: what DEL reads is final.
const LOCK: &str = "/run/podwire/iptables.lock";
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest pause between two tries for the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(2);
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
    let lock = lock()?;
    for family in FAMILIES {
        let of_family = |cidr: &&IpNetwork| cidr.is_ipv4() == family.is_ipv4;
        let addresses: Vec<IpNetwork> = addresses.iter().filter(of_family).copied().collect();
        if !addresses.is_empty() {
            let rules = Rules::new(family, identity, &addresses);
            set_up_family(&mut Tool { runner, family, lock: lock.as_ref() }, identity, &rules)?;
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

/// Which of a chain's jumps to remove. Attachments of one container to one network share a chain.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which<'a> {
    /// Those from these addresses.
    Only(&'a [IpNetwork]),
    /// All but those from these addresses.
    AllBut(&'a [IpNetwork]),
}

impl Which<'_> {
    fn includes(self, rule: &str) -> bool {
        match self {
            Self::Only(addresses) => comes_from(rule, addresses),
            Self::AllBut(addresses) => !comes_from(rule, addresses),
        }
    }
}

/// Removes an attachment's rules, whichever suite made them, by the name of their chain.
pub(super) fn tear_down(
    runner: &mut dyn Runner,
    identity: &Identity,
    which: Which<'_>,
    may_have: MayHave<'_>,
) -> Result<(), Error> {
    let lock = lock()?;
    let mut errors = Vec::new();
    for family in FAMILIES.into_iter().filter(|family| may_have(*family, &identity.chain)) {
        let mut tool = Tool { runner, family, lock: lock.as_ref() };
        let of_family = |cidr: &&IpNetwork| cidr.is_ipv4() == family.is_ipv4;
        let known: Vec<IpNetwork> = match which {
            Which::Only(addresses) => addresses.iter().filter(of_family).copied().collect(),
            Which::AllBut(_) => Vec::new(),
        };
        if !known.is_empty() {
            match tool.restore(&exact_removal_lines(&Rules::new(family, identity, &known))) {
                // Not as ADD left it: another interface's jump, an old release's, or none.
                Err(Error::ProgramFailed { .. }) => {}
                result => {
                    errors.extend(result.err());
                    continue;
                }
            }
        }
        let lines_for = |saved: &str| removal_lines(saved, &identity.chain, which);
        errors.extend(tool.remove(lines_for).err());
    }
    Error::of_teardown(errors)
}

/// Whether a family's nat table may have a chain; `false` is certain.
pub(super) type MayHave<'a> = &'a dyn Fn(Family, &str) -> bool;

/// Asks the kernel. nf_tables tells in one exchange; the old tables only whether they are there at
/// all. Without leave to ask, it may.
pub(super) fn kernel_may_have(family: Family, chain: &str) -> bool {
    let names =
        if family.is_ipv4 { "/proc/net/ip_tables_names" } else { "/proc/net/ip6_tables_names" };
    let has_old_table = match fs::read_to_string(names) {
        Ok(text) => text.lines().any(|line| line == "nat"),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    };
    has_old_table || netlink::nftables::has_chain(family.is_ipv4, "nat", chain).unwrap_or(true)
}

/// The lines that remove what ADD made for one interface, if it is all that there is.
fn exact_removal_lines(rules: &Rules) -> Vec<String> {
    let mut lines: Vec<String> = rules.jumps.iter().map(|rule| format!("-D {rule}")).collect();
    lines.push(format!("-F {}", rules.chain));
    lines.push(format!("-X {}", rules.chain));
    lines
}

/// Removes the rules of containers in `network` that `is_valid` does not know.
pub(crate) fn collect_garbage(
    runner: &mut dyn Runner,
    network: &str,
    is_valid: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    let lines_for = |saved: &str| {
        let stale = containers(saved, network).into_iter().filter(|id| !is_valid(id));
        let chains = stale.map(|id| Identity::new(network, id).chain);
        chains.flat_map(|chain| removal_lines(saved, &chain, Which::AllBut(&[]))).collect()
    };
    let lock = lock()?;
    let mut errors = Vec::new();
    for family in FAMILIES {
        let mut tool = Tool { runner, family, lock: lock.as_ref() };
        errors.extend(tool.remove(lines_for).err());
    }
    Error::of_teardown(errors)
}

/// The ids of the containers in `network` that have rules, each once.
fn containers<'a>(saved: &'a str, network: &str) -> Vec<&'a str> {
    let marker = quoted_comment(&Identity::new(network, ""));
    let marker = marker.trim_end_matches("\\\"\"");
    let id = |line: &'a str| line.split_once(marker)?.1.split_once("\\\"").map(|(id, _)| id);
    let mut ids: Vec<&str> = saved.lines().filter_map(id).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn is_absent(error: &Error) -> bool {
    match error {
        Error::Program { source: runner::Error::NotFound(_), .. } => true,
        Error::ProgramFailed { stderr, .. } => {
            stderr.contains("does not exist") || stderr.contains("can't initialize")
        }
        _ => false,
    }
}

/// The lines that remove jumps to `chain`, and the chain when no other jump needs it.
fn removal_lines(saved: &str, chain: &str, which: Which<'_>) -> Vec<String> {
    let target = format!(" -j {chain}");
    let rules = saved.lines().filter_map(|line| line.strip_prefix("-A "));
    let (ours, others): (Vec<&str>, Vec<&str>) =
        rules.filter(|rule| rule.ends_with(&target)).partition(|rule| which.includes(rule));
    let mut lines: Vec<String> = ours.iter().map(|rule| format!("-D {rule}")).collect();
    let is_there = saved.lines().any(|line| is_declaration(line, chain));
    if is_there && others.is_empty() {
        lines.push(format!("-F {chain}"));
        lines.push(format!("-X {chain}"));
    }
    lines
}

/// Whether a rule matches one of the addresses: alone, or with its network as old releases made it.
fn comes_from(rule: &str, addresses: &[IpNetwork]) -> bool {
    let mut words = rule.split(' ').skip_while(|word| *word != "-s").skip(1);
    let source = words.next().and_then(cni::parse_cidr);
    source.is_some_and(|source| {
        let is_full = source.prefix() == if source.is_ipv4() { 32 } else { 128 };
        addresses.iter().any(|address| {
            let is_network =
                source.prefix() == address.prefix() && source.ip() == address.network();
            is_network || (is_full && source.ip() == address.ip())
        })
    })
}

/// Whether the programs are there: without them no ADD that masquerades can succeed.
pub(crate) fn available() -> Result<(), Error> {
    let program = FAMILIES.first().map_or("", |family| family.restore);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if is_there {
        return Ok(());
    }
    Err(Error::NotAvailable(format!("ipMasq needs {program}, which is not in PATH")))
}

/// The programs of one family.
struct Tool<'a> {
    runner: &'a mut dyn Runner,
    family: Family,
    lock: Option<&'a File>,
}

impl Tool<'_> {
    /// Applies lines to the nat table, all or none.
    fn restore(&mut self, lines: &[String]) -> Result<(), Error> {
        let input = format!("*nat\n{}\nCOMMIT\n", lines.join("\n"));
        let args = ["--noflush", "-w", XTABLES_WAIT_SECONDS];
        self.run(self.family.restore, &args, input.as_bytes()).map(|_| ())
    }

    /// One read and, where there is something to remove, one write.
    fn remove(&mut self, lines_for: impl Fn(&str) -> Vec<String>) -> Result<(), Error> {
        match self.save() {
            Ok(saved) => match lines_for(&saved) {
                lines if lines.is_empty() => Ok(()),
                lines => self.restore(&lines),
            },
            // Without the program or the kernel's table nobody can have made rules.
            Err(error) if is_absent(&error) => {
                warn(&format!("{error}: leaving its rules, if there are any"));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The nat table as text.
    fn save(&mut self) -> Result<String, Error> {
        let output = self.run(self.family.save, &["-t", "nat"], b"")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn run(&mut self, file: &str, args: &[&str], stdin: &[u8]) -> Result<Output, Error> {
        let program = Program {
            file: file.into(),
            args,
            stdin,
            timeout: Some(PROGRAM_TIMEOUT),
            inherited: self.lock.map(AsFd::as_fd),
            ..Program::default()
        };
        let what = || format!("masquerading by {file}");
        let output =
            self.runner.run(&program).map_err(|source| Error::Program { what: what(), source })?;
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

/// Takes the lock. Where it cannot even be opened (no `/run`, no right to it) rules are made
/// without: it only orders calls that follow a killed one.
fn lock() -> Result<Option<File>, Error> {
    let path = Path::new(LOCK);
    // The open after it tells why, should there be no folder.
    let _ = path.parent().map(|folder| DirBuilder::new().mode(0o755).create(folder));
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true).mode(0o600);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) => {
            warn(&format!("cannot open {LOCK}, going on without it: {error}"));
            return Ok(None);
        }
    };
    let deadline = Instant::now() + LOCK_TIMEOUT;
    let mut pause = Duration::from_micros(50);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(pause),
            Err(_) => {
                let seconds = LOCK_TIMEOUT.as_secs();
                return Err(Error::LockTimeout { lock: LOCK.into(), seconds });
            }
        }
        pause = (pause * 2).min(LOCK_PAUSE);
    }
}

#[cfg(test)]
mod tests;
