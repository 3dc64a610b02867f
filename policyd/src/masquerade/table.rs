//! Table nat of one family, changed by the programs of iptables.

use ruleset::iptables::{Chain, RuleHash, Saved, Transaction};
use runner::{Error as RunError, Runner};

use super::{CHAIN, Error, hook};
use crate::dataplane::{self, Programs};
use crate::iptables::Family;

const TABLE: &str = "nat";
const HOOK_CHAIN: &str = "POSTROUTING";

/// Makes the chain and the jump there as they shall be; whether they were not.
pub(super) fn install<R: Runner>(
    programs: &mut Programs<R>,
    family: Family,
    chain: &Chain,
) -> Result<bool, Error> {
    let saved = read(programs, family)?;
    write(programs, family, &installation(&saved, chain))
}

/// Removes chain and jump; whether there was something. Where there are no programs, or no such
/// table, there is nothing.
pub(super) fn remove<R: Runner>(programs: &mut Programs<R>, family: Family) -> Result<bool, Error> {
    use dataplane::Error::{Refused, Run};
    match read(programs, family) {
        Ok(saved) => write(programs, family, &removal(&saved)),
        Err(Error::Kernel(Run(RunError::NotFound(_)))) => Ok(false),
        Err(Error::Kernel(Refused { complaint, .. })) if is_absence(&complaint) => Ok(false),
        Err(error) => Err(error),
    }
}

fn read<R: Runner>(programs: &mut Programs<R>, family: Family) -> Result<Saved, Error> {
    let printed = programs.saved_table(family, TABLE)?;
    let program = || programs.iptables(family, "save");
    let saved = Saved::read(&printed, CHAIN);
    Ok(saved.map_err(|source| dataplane::Error::Table { program: program(), source })?)
}

fn write<R: Runner>(
    programs: &mut Programs<R>,
    family: Family,
    change: &Transaction,
) -> Result<bool, Error> {
    if change.is_empty() {
        return Ok(false);
    }
    programs.restore_tables(family, &change.text(TABLE))?;
    Ok(true)
}

/// What a legacy program says of a table that the kernel does not have.
fn is_absence(stderr: &str) -> bool {
    stderr.contains("does not exist") || stderr.contains("can't initialize")
}

fn installation(saved: &Saved, chain: &Chain) -> Transaction {
    let mut change = Transaction::default();
    let known = saved.chains.get(&chain.name);
    match known.and_then(|rules| rules.iter().cloned().collect::<Option<Vec<RuleHash>>>()) {
        Some(known) => change.change(&known, chain),
        None => change.create(chain),
    };
    let hook = hook();
    let wanted = RuleHash::of(&hook);
    if !matches!(hooks(saved), [(_, hash)] if *hash == wanted) {
        unhook(saved, &mut change);
        change.hook_last(HOOK_CHAIN, &hook);
    }
    change
}

fn removal(saved: &Saved) -> Transaction {
    let mut change = Transaction::default();
    unhook(saved, &mut change);
    saved.chains.keys().for_each(|chain| change.remove(chain));
    change
}

fn hooks(saved: &Saved) -> &[(usize, RuleHash)] {
    saved.hooks.get(HOOK_CHAIN).map_or(&[], Vec::as_slice)
}

fn unhook(saved: &Saved, change: &mut Transaction) {
    hooks(saved).iter().rev().for_each(|(place, _)| change.unhook(HOOK_CHAIN, *place));
}
