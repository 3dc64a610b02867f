//! The rules of ours in the kernel's own chains.

use std::collections::BTreeSet;

use ruleset::iptables::RuleHash;

use super::super::report::Live;
use super::tables::Tables;
use crate::iptables::Hook;

/// Compares our rules in the kernel's own chains: each is there once, and the first.
pub(super) fn compare(hooks: &[Hook], tables: &Tables, live: &mut Live) {
    for hook in hooks {
        if let Some(problem) = problem(hook, tables) {
            live.differ(&place(tables, hook.table, hook.chain), problem);
        }
    }
    let wanted: BTreeSet<_> = hooks.iter().map(|it| (it.table, it.chain)).collect();
    for (table, chain) in tables.hooked().filter(|it| !wanted.contains(it)) {
        live.differ(
            &place(tables, table, chain),
            "a rule of policyd's is there that should not be",
        );
    }
}

fn place(tables: &Tables, table: &str, chain: &str) -> String {
    format!("{}: {table} {chain}", tables.program)
}

fn problem(hook: &Hook, tables: &Tables) -> Option<String> {
    let hash = RuleHash::of(&hook.rule);
    let held = tables.hooks(hook.table, hook.chain);
    match held {
        [] => Some(format!("policyd's rule is missing ({})", hook.rule)),
        [(1, held)] if *held == hash => None,
        [(place, held)] if *held == hash => {
            let first = tables.first_rule(hook.table, hook.chain).unwrap_or_default();
            let ahead = place.saturating_sub(1);
            Some(format!(
                "policyd's rule is not the first; {ahead} of others ahead of it, the first: {first}"
            ))
        }
        [_] => Some(format!("policyd's rule is another one than it should be ({})", hook.rule)),
        several => Some(format!("policyd has {} rules there, not one", several.len())),
    }
}
