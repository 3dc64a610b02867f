//! What netlink tells of the tables of nf_tables, held against what it is told.

mod sets;
mod way;

use std::collections::{BTreeMap, BTreeSet};

use ruleset::nft::{Element, Encoded, Rule, Set};

use super::report::{Live, MISSING};
use super::walk::Reached;
use super::{Expected, chains};
use crate::dataplane::Held;
use crate::explain::Pair;
use crate::iptables::Family;
use crate::nftables::{
    BY_INTERFACE, Families, Layer, RuleChain, base_chains, dispatch_sets, elements,
    endpoint_chains, families, mark_of, policies, policy_chain,
};

/// What depends on interfaces, in words.
pub(super) fn by_interface() -> String {
    format!("their elements of {}", BY_INTERFACE.join(", "))
}

/// The sets whose elements are compared, by table.
pub(super) fn needed(
    expected: &Expected,
    pairs: &[Pair],
    families: &[Family],
) -> BTreeMap<Layer, BTreeSet<String>> {
    let tables = layers(expected, pairs).map(|it| Wanted::new(expected, it, pairs, families));
    tables.map(|it| (it.layer, it.reached.sets.into_keys().collect())).collect()
}

/// Compares what the traffic between these addresses, and what answers it, can pass.
pub(super) fn compare(
    expected: &Expected,
    pairs: &[Pair],
    families: &[Family],
    held: &BTreeMap<Layer, Held>,
    live: &mut Live,
) {
    for layer in layers(expected, pairs) {
        let place = format!("nf_tables: table {}", layer.table());
        match held.get(&layer) {
            Some(held) if held.is_awake => {
                Wanted::new(expected, layer, pairs, families).compare(held, live);
            }
            Some(held) if held.exists => {
                live.differ(&place, "it is dormant: none of its rules is in force");
            }
            _ => live.differ(&place, MISSING),
        }
    }
}

/// What no port of a bridge is an end of does not pass the table of frames.
fn layers(expected: &Expected, pairs: &[Pair]) -> impl Iterator<Item = Layer> {
    let ends = super::ends(pairs);
    let any_port = expected.interfaces(&ends).iter().any(|it| it.port().is_some());
    Layer::ALL.into_iter().filter(move |it| *it == Layer::Routed || any_port)
}

/// What a table should hold, and what of it the traffic can come to.
struct Wanted<'a> {
    expected: &'a Expected,
    layer: Layer,
    families: Families,
    chains: BTreeMap<String, RuleChain>,
    /// What those that belong to no endpoint or policy may be as well.
    guesses: Vec<RuleChain>,
    /// The sets that belong to no selector.
    dispatch: BTreeMap<String, (Set, BTreeSet<Encoded>)>,
    reached: Reached,
    ends: sets::Ends<'a>,
}

impl<'a> Wanted<'a> {
    fn new(expected: &'a Expected, layer: Layer, pairs: &'a [Pair], all: &[Family]) -> Self {
        let endpoints = &expected.plan.endpoints;
        let families = families(all, endpoints.values());
        let mut elements = elements(layer, &families, endpoints);
        let dispatch = dispatch_sets(layer, &families).into_iter().map(|set| {
            let elements = elements.remove(&set.name).unwrap_or_default();
            (set.name.clone(), (set, elements))
        });
        let guesses = expected.guesses();
        let base = |endpoints| base_chains(layer, &families, endpoints, &expected.settings);
        let mut wanted = Self {
            expected,
            layer,
            chains: all_chains(expected, layer, &families),
            guesses: guesses.iter().flat_map(base).collect(),
            families,
            dispatch: dispatch.collect(),
            reached: Reached::default(),
            ends: sets::Ends::of(expected, pairs),
        };
        wanted.reached = wanted.reach(pairs);
        wanted
    }

    fn reach(&self, pairs: &[Pair]) -> Reached {
        let maps = self.dispatch.values().filter(|(set, _)| set.is_map);
        let maps: BTreeMap<&str, BTreeSet<Element>> =
            maps.map(|(map, held)| (map.name.as_str(), map.decode(held))).collect();
        // Those behind are gone on with first: what looks into a set is told to be what forwards.
        let roots = self.chains.values().rev().filter(|it| it.base.is_some());
        let roots: Vec<_> = roots.map(|it| it.name.clone()).collect();
        let mut reached = Reached::default();
        for way in self.expected.ways(pairs) {
            reached.follow(roots.clone(), |name| {
                let rules = self.chains.get(name).map(|it| it.rules.as_slice());
                way::steps(&way, rules.unwrap_or_default(), &maps)
            });
        }
        reached
    }

    fn compare(&self, held: &Held, live: &mut Live) {
        let chains = self.reached.chains.iter().filter_map(|it| self.chains.get(it));
        for chain in chains {
            self.compare_chain(chain, held, live);
        }
        let is_called = |chain: &str| {
            let all = self.chains.values().chain(&self.guesses);
            all.filter(|it| it.base.is_some()).any(|it| it.name == chain)
        };
        for chain in held.called().filter(|it| !is_called(it)) {
            let place = self.place("chain", chain);
            live.differ(&place, "the kernel calls it, and it should not be there");
        }
        self.compare_sets(held, live);
    }

    /// Compares a chain with what it may be.
    fn compare_chain(&self, wanted: &RuleChain, held: &Held, live: &mut Live) {
        live.chains += 1;
        let of = wanted.comment.as_ref().map(|it| format!(" of {it}")).unwrap_or_default();
        let place = format!("{}{of}", self.place("chain", &wanted.name));
        let Some(marks) = held.chains.get(&wanted.name) else {
            return live.differ(&place, "it is not there");
        };
        if !held.takes_chain(wanted) {
            live.differ(&place, called_otherwise(wanted, held));
        }
        let mut guesses = self.guesses.iter().filter(|it| it.name == wanted.name);
        if wanted.marks() != *marks && !guesses.any(|it| it.marks() == *marks) {
            let rules = wanted.rules.iter();
            let rules: Vec<_> =
                rules.filter_map(|it| Some((mark_of(it.comment.as_ref()?)?, bare(it)))).collect();
            live.differ(&place, chains::problem(&rules, marks));
        }
    }

    fn place(&self, kind: &str, name: &str) -> String {
        format!("nf_tables: {kind} {} {name}", self.layer.table())
    }
}

/// All chains of a table, whoever they are for.
fn all_chains(
    expected: &Expected,
    layer: Layer,
    families: &Families,
) -> BTreeMap<String, RuleChain> {
    let Expected { plan, settings, .. } = expected;
    let base = base_chains(layer, families, &plan.endpoints, settings).into_iter();
    let of_endpoints = plan.endpoints.iter();
    let of_endpoints = of_endpoints.flat_map(|(key, it)| endpoint_chains(layer, key, it, settings));
    let keys: BTreeSet<_> = plan.endpoints.values().flat_map(|it| policies(layer, it)).collect();
    let of_policies = keys.into_iter().filter_map(|it| plan.chains.get_key_value(it));
    let of_policies = of_policies.map(|(key, it)| policy_chain(families, key, it));
    let all = base.chain(of_endpoints).chain(of_policies);
    all.map(|it| (it.name.clone(), it)).collect()
}

/// Without what it carries, which says nothing to people.
fn bare(rule: &Rule) -> Rule {
    Rule { comment: None, ..rule.clone() }
}

fn called_otherwise(chain: &RuleChain, held: &Held) -> String {
    let wanted = chain.base.map(|it| it.to_string()).unwrap_or_default();
    let held = held.head(&chain.name).map(|it| it.place()).unwrap_or_default();
    match (wanted.as_str(), held.as_str()) {
        ("", held) => format!("the kernel calls it ({held:?}), and should not"),
        (wanted, "") => format!("the kernel does not call it; it should be {wanted:?}"),
        (wanted, held) => format!("it is {held:?}, not {wanted:?}"),
    }
}
