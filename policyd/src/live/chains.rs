//! Chains, by the hashes of their rules.

use ruleset::iptables::{Chain, RuleHash};

use super::kernel::Tables;
use super::report::Live;

/// Compares a chain of a table with what it may be.
pub(super) fn compare(table: &str, wanted: &[&Chain], tables: &Tables, live: &mut Live) {
    live.chains += 1;
    let Some(first) = wanted.first() else { return };
    let Some(held) = tables.chain(table, &first.name) else {
        return live.differ(&place(first, tables), "it is not there");
    };
    let is_same = |chain: &Chain| chain.hashes().into_iter().map(Some).eq(held.iter().cloned());
    if !wanted.iter().copied().any(is_same) {
        live.differ(&place(first, tables), problem(first, held));
    }
}

fn place(chain: &Chain, tables: &Tables) -> String {
    let label = chain.rules.iter().find_map(|rule| rule.label.as_ref());
    let of = label.map(|it| format!(" of {it}")).unwrap_or_default();
    format!("{}: chain {}{of}", tables.program, chain.name)
}

fn problem(chain: &Chain, held: &[Option<RuleHash>]) -> String {
    let mut others: Vec<_> = held.iter().flatten().cloned().collect();
    let mut missing = Vec::new();
    for rule in &chain.rules {
        match others.iter().position(|it| *it == RuleHash::of(rule)) {
            Some(place) => _ = others.remove(place),
            None => missing.push(rule),
        }
    }
    let mut parts = Vec::new();
    if let Some(first) = missing.first() {
        let (count, of) = (missing.len(), chain.rules.len());
        parts.push(format!("{count} of its {of} rules are missing, the first: {first}"));
    }
    if !others.is_empty() {
        parts.push(format!("{} rules of policyd's are there that should not be", others.len()));
    }
    let foreign = held.iter().filter(|it| it.is_none()).count();
    if foreign > 0 {
        parts.push(format!("{foreign} rules of others are in it"));
    }
    if parts.is_empty() { "its rules are in another order".to_owned() } else { parts.join("; ") }
}
