//! What a table is found to hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink::nftables::{Client, HeldChain, HeldSet};
use ruleset::nft::{Encoded, Set, Table};

use super::Error;
use crate::iptables::Family;
use crate::nftables::{Elements, Marks, RuleChain, mark_of, programmed};

/// A table, as it was read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    /// Whether there is a table of that name.
    pub(crate) exists: bool,
    /// Whether it is one whose rules are in force: of a dormant one they are not.
    pub(crate) is_awake: bool,
    pub(crate) chains: BTreeMap<String, Marks>,
    pub(crate) elements: Elements,
    heads: BTreeMap<String, HeldChain>,
    sets: BTreeMap<String, HeldSet>,
}

impl Held {
    /// Reads a table; the elements only of those sets that `is_needed` says it of.
    pub(crate) fn read(
        client: &mut Client,
        table: Table<'_>,
        is_needed: impl Fn(&str) -> bool,
    ) -> Result<Self, Error> {
        let Some(found) = client.table(table)? else { return Ok(Self::default()) };
        if !found.is_awake {
            return Ok(Self { exists: true, ..Self::default() });
        }
        let mut chains: BTreeMap<String, Marks> =
            found.chains.iter().map(|it| (it.name.clone(), Marks::new())).collect();
        for (chain, rules) in client.all_rules(table)? {
            let marks = rules.iter().map(|it| it.comment.as_deref().and_then(mark_of)).collect();
            // What is in a chain that is part of a rule goes with that rule.
            chains.entry(chain).and_modify(|it| *it = marks);
        }
        let mut elements = Elements::new();
        let sets = client.sets(table)?;
        for set in sets.iter().filter(|it| is_needed(&it.name)) {
            let held = client.elements(table, &set.name)?;
            elements.insert(set.name.clone(), held.into_iter().collect());
        }
        let heads = found.chains.into_iter().map(|it| (it.name.clone(), it)).collect();
        let sets = sets.into_iter().map(|it| (it.name.clone(), it)).collect();
        Ok(Self { exists: true, is_awake: true, chains, elements, heads, sets })
    }

    /// Whether a chain can be had by changing what is held.
    pub(crate) fn takes_chain(&self, chain: &RuleChain) -> bool {
        self.heads.get(&chain.name).is_none_or(|it| it.is_like(&chain.head()))
    }

    /// The head of a chain.
    pub(crate) fn head(&self, chain: &str) -> Option<&HeldChain> {
        self.heads.get(chain)
    }

    /// The names of the chains that the kernel calls and that do something with what they see.
    pub(crate) fn called(&self) -> impl Iterator<Item = &str> {
        let has_rules = |chain: &str| self.chains.get(chain).is_some_and(|it| !it.is_empty());
        let called = self.heads.values().filter(|it| it.is_called());
        let called = called.filter(move |it| it.drops_rest() || has_rules(&it.name));
        called.map(|it| it.name.as_str())
    }

    /// Whether a set can be had by changing what is held.
    pub(crate) fn takes_set(&self, set: &Set) -> bool {
        self.sets.get(&set.name).is_none_or(|it| it.is_like(set))
    }
}

/// The addresses that have their rules.
pub(super) fn addresses(elements: &Elements) -> BTreeSet<IpAddr> {
    let names = Family::ALL.into_iter().flat_map(programmed);
    let keys = names.filter_map(|it| elements.get(&it)).flatten();
    keys.filter_map(|it| address(&it.key)).collect()
}

/// Takes these addresses out of the maps of those that have their rules; by map, what is to be deleted.
pub(super) fn take_out(
    elements: &mut Elements,
    moved: &BTreeSet<IpAddr>,
) -> Vec<(String, Vec<Encoded>)> {
    let is_moved = |it: &Encoded| address(&it.key).is_some_and(|it| moved.contains(&it));
    let names = Family::ALL.into_iter().flat_map(programmed);
    let taken = names.filter_map(|name| {
        let gone: Vec<_> = elements.get_mut(&name)?.extract_if(.., |it| is_moved(it)).collect();
        (!gone.is_empty()).then_some((name, gone))
    });
    taken.collect()
}

fn address(key: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(key).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(key).map(IpAddr::from)).ok()
}
