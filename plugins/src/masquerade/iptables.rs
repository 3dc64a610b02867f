//! Programming the rules, for each family by netlink or by one `iptables-restore`.

use ipnetwork::IpNetwork;
use runner::{Lock, Runner};

use super::{CHAIN_PREFIX, Identity, Rules, Which, quoted_comment};
use crate::error::Error;
use crate::iptables::{
    Addition, FAMILIES, Family, InChain, InKernel, NAT, Places, Tool, Work, is_declaration, lock,
};
use crate::kernel_tables::KernelTables;

/// What the programs are for.
const WORK: Work = Work { purpose: "masquerading", table: NAT };

/// Adds the rules for an attachment's addresses.
pub(super) fn set_up(
    runner: &mut dyn Runner,
    kernel: &mut KernelTables,
    identity: &Identity,
    addresses: &[IpNetwork],
) -> Result<(), Error> {
    let lock = lock::open();
    for family in FAMILIES {
        let of_family = |cidr: &&IpNetwork| cidr.is_ipv4() == family.is_ipv4;
        let addresses: Vec<IpNetwork> = addresses.iter().filter(of_family).copied().collect();
        if addresses.is_empty() {
            continue;
        }
        let rules = Rules::new(family, identity, &addresses);
        if let Some(mut in_kernel) = InKernel::find(kernel, family, NAT) {
            // The programs would take it themselves, once they are loaded.
            lock.as_ref().map_or(Ok(()), Lock::acquire).map_err(Error::Lock)?;
            if in_kernel.add(&rules.addition()) {
                continue;
            }
        }
        let tool = Tool::new(runner, WORK, family.programs, lock.as_ref());
        set_up_family(tool, kernel, family, &rules)?;
    }
    Ok(())
}

fn set_up_family(
    mut tool: Tool<'_>,
    kernel: &mut KernelTables,
    family: Family,
    rules: &Rules,
) -> Result<(), Error> {
    // It fails when the chain exists; `:CHAIN` would empty the one that another interface of the container uses.
    match tool.restore(&rules.addition().lines()) {
        Err(Error::ProgramFailed { .. }) => {}
        result => return result,
    }
    let Addition { shared, own, .. } = rules.addition();
    let saved = tool.save_for(kernel, family, &[shared, own].concat())?.into_text();
    let missing = missing_lines(&saved, rules);
    if missing.is_empty() { Ok(()) } else { tool.restore(&missing) }
}

/// The lines that complete what is there.
fn missing_lines(saved: &str, rules: &Rules) -> Vec<String> {
    let has_chain = saved.lines().any(|line| is_declaration(line, &rules.chain));
    let missing = |rule: &&InChain| !rule.is_among(saved);
    let mut lines = Vec::new();
    if !has_chain {
        lines.push(format!("-N {}", rules.chain));
    }
    // Before the rule that masquerades the rest, which may be there.
    lines.extend(rules.accept.iter().filter(missing).map(|rule| format!("-I {rule}")));
    let rest = [&rules.masquerade].into_iter().chain(&rules.jumps);
    lines.extend(rest.filter(missing).map(|rule| format!("-A {rule}")));
    lines
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
    WORK.remove(runner, lock.as_ref(), look_in, &lines_for)
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
    WORK.remove(runner, lock.as_ref(), look_in, &lines_for)
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

#[cfg(test)]
mod tests;
