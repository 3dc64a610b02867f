//! What the programs iptables and ipset show, held against what they are told.

mod hooked;
mod sets;
mod tables;
mod way;

use std::collections::BTreeMap;

use ruleset::iptables::{Chain, RuleHash};

pub(super) use self::tables::Printed;
use self::tables::Tables;
use super::report::{Live, MISSING};
use super::walk::Reached;
use super::{Expected, chains, ends};
use crate::explain::Pair;
use crate::iptables::{
    Family, MANGLE, RAW, Settings, dispatch, endpoint_chains, hooks, policy_chain, sources,
};
use crate::plan::{Endpoint, Plan};

/// Chains that depend on the interfaces of pods begin so.
const BY_INTERFACE: [&str; 3] = ["PODWIRE-LINK", "PODWIRE-PORT", "PODWIRE-OUT"];

/// Chains by their names, each with its table.
type Chains = BTreeMap<String, (&'static str, Chain)>;

/// What depends on interfaces, in words.
pub(super) fn by_interface() -> String {
    format!("chains {}", BY_INTERFACE.map(|it| format!("{it}*")).join(", "))
}

/// Compares what the traffic between these addresses, all of one family, and what answers it, can pass.
pub(super) fn compare(
    expected: &Expected,
    family: Family,
    pairs: &[&Pair],
    printed: &Printed,
    live: &mut Live,
) {
    let Some(tables) = printed.tables(family) else { return };
    if tables.are_without_ours() {
        return live.differ(&tables.program, MISSING);
    }
    let settings = &expected.settings;
    hooked::compare(&hooks(settings), tables, live);
    let of = |endpoints| all(family, &expected.plan, endpoints, settings);
    let chains = of(&expected.plan.endpoints);
    let others: Vec<_> = expected.guesses().iter().map(of).collect();
    let is_unsure = expected.is_unsure();
    let mut reached = Reached::default();
    for way in expected.ways(pairs.iter().copied()) {
        way::follow(&mut reached, &chains, settings, &way);
    }
    for name in reached.chains.iter().filter(|it| !is_unsure || !is_by_interface(it)) {
        let wanted: Vec<_> =
            [&chains].into_iter().chain(&others).filter_map(|it| it.get(name)).collect();
        let Some((table, _)) = wanted.first() else { continue };
        let chains: Vec<_> = wanted.iter().map(|(_, chain)| chain).collect();
        compare_chain(table, &chains, tables, live);
    }
    let ends = ends(pairs.iter().copied());
    let wanted = sets::wanted(family, &expected.plan, &ends);
    for (name, user) in
        reached.sets.iter().filter(|(_, user)| !is_unsure || !is_by_interface(&user.chain))
    {
        sets::compare(name, user, wanted.get(name), printed, live, &|address| {
            expected.index.name_of(address)
        });
    }
}

/// All chains of the node, whoever they are for, each with its table.
fn all(
    family: Family,
    plan: &Plan,
    endpoints: &BTreeMap<String, Endpoint>,
    settings: &Settings,
) -> Chains {
    let mut chains = dispatch(family, endpoints.iter(), settings);
    let of_endpoints =
        endpoints.iter().flat_map(|(key, it)| endpoint_chains(family, key, it, settings));
    chains.extend(of_endpoints);
    chains.extend(plan.chains.iter().map(|(key, it)| policy_chain(family, key, it)));
    let sources = sources(family, endpoints.iter()).into_iter().map(|it| (RAW, it));
    let all = sources.chain(chains.into_iter().map(|it| (MANGLE, it)));
    all.map(|(table, it)| (it.name.clone(), (table, it))).collect()
}

fn is_by_interface(chain: &str) -> bool {
    BY_INTERFACE
        .iter()
        .any(|root| chain.strip_prefix(root).is_some_and(|it| it.is_empty() || it.starts_with('-')))
}

/// Compares a chain of a table with what it may be.
fn compare_chain(table: &str, wanted: &[&Chain], tables: &Tables, live: &mut Live) {
    live.chains += 1;
    let Some(first) = wanted.first() else { return };
    let Some(held) = tables.chain(table, &first.name) else {
        return live.differ(&place(first, tables), "it is not there");
    };
    let is_same = |chain: &Chain| chain.hashes().into_iter().map(Some).eq(held.iter().cloned());
    if !wanted.iter().copied().any(is_same) {
        let rules: Vec<_> = first.rules.iter().map(|it| (RuleHash::of(it), it)).collect();
        live.differ(&place(first, tables), chains::problem(&rules, held));
    }
}

fn place(chain: &Chain, tables: &Tables) -> String {
    let label = chain.rules.iter().find_map(|rule| rule.label.as_ref());
    let of = label.map(|it| format!(" of {it}")).unwrap_or_default();
    format!("{}: chain {}{of}", tables.program, chain.name)
}
