//! What the kernel has of a family's table.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;

use netlink::nftables::{Client, HeldTable};
use ruleset::nft::{Element, Encoded, Set, Table, Value};

use crate::nftables::{AFFINITY, Held, Key, Kind, Level, chain, read};

/// What the kernel was found to have.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) state: State,
    pub(crate) entries: HashMap<Key, Held>,
    /// Hashes of the rules of chains.
    pub(crate) chains: BTreeMap<String, Vec<String>>,
    /// The kinds that maps lead on.
    pub(crate) led: BTreeSet<(Level, Kind)>,
    /// Elements of sets that mean nothing to us: in the way of those that are to come, or of chains that are to go.
    pub(crate) strange: Vec<(String, Vec<Encoded>)>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// There is no table.
    #[default]
    Absent,
    /// Somebody, or another version, has made it otherwise.
    Other,
    /// It is as it should be.
    Ours,
}

impl Found {
    /// Reads a table that is to have these sets.
    pub(crate) fn read(
        client: &mut Client,
        table: Table<'_>,
        sets: &[Set],
    ) -> Result<Self, netlink::Error> {
        let Some(held) = client.table(table)? else { return Ok(Self::default()) };
        let held_sets = client.sets(table)?;
        let has = |set: &Set| held_sets.iter().any(|it| it.name == set.name && it.is_like(set));
        // A map of others could lead to chains of ours, and keep them from going.
        let are_ours = held_sets.len() == sets.len() && sets.iter().all(has);
        if !held.is_awake || !are_ours || has_other_place(&held) {
            return Ok(Self { state: State::Other, ..Self::default() });
        }
        let names = held.chains.into_iter().map(|it| (it.name, Vec::new()));
        let mut found = Self { state: State::Ours, chains: names.collect(), ..Self::default() };
        for (chain, rules) in client.all_rules(table)? {
            let comments = rules.into_iter().map(|it| it.comment.unwrap_or_default());
            // What is in a chain that is part of a rule goes with that rule.
            found.chains.entry(chain).and_modify(|it| *it = comments.collect());
        }
        for set in sets.iter().filter(|it| it.name != AFFINITY) {
            let elements = client.elements(table, &set.name)?.into_iter().collect();
            if found.take(set, &elements) < elements.len() {
                let strange = elements.into_iter().filter(|it| is_strange(set, it)).collect();
                found.strange.push((set.name.clone(), strange));
            }
        }
        Ok(found)
    }

    /// Takes in the elements of a set, and returns how many of them mean something.
    fn take(&mut self, set: &Set, elements: &BTreeSet<Encoded>) -> usize {
        if let Some(level) = Level::ALL.into_iter().find(|it| it.name() == set.name) {
            let before = self.led.len();
            self.led.extend(set.decode(elements).iter().filter_map(leading).map(|it| (level, it)));
            self.led.len() - before
        } else {
            let entries = read(set, elements);
            let count = entries.len();
            self.entries.extend(entries);
            count
        }
    }

    /// The endpoints of pools, in their places.
    pub(crate) fn slots(&self) -> HashMap<u32, Vec<SocketAddr>> {
        let endpoint = |(key, held): (&Key, &Held)| match (key, held) {
            (Key::Slot(pool, slot), Held::Endpoint(endpoint)) => Some(((*pool, *slot), *endpoint)),
            _ => None,
        };
        let places: BTreeMap<_, _> = self.entries.iter().filter_map(endpoint).collect();
        let mut pools: HashMap<u32, Vec<SocketAddr>> = HashMap::new();
        for ((pool, _), endpoint) in places {
            pools.entry(pool).or_default().push(endpoint);
        }
        pools
    }
}

fn is_strange(set: &Set, element: &Encoded) -> bool {
    Found::default().take(set, &[element.clone()].into()) == 0
}

/// The kind that an element leads on, as it should.
fn leading(element: &Element) -> Option<Kind> {
    let [Value::Priority(number)] = element.key.as_slice() else { return None };
    Kind::of_number(*number).filter(|kind| element.verdict == Some(kind.verdict()))
}

/// Whether the kernel calls one of the table's chains somewhere else than it should: it is asked to be there, and would stay
/// where it is.
fn has_other_place(table: &HeldTable) -> bool {
    table.chains.iter().any(|it| !it.is_like(&chain(&it.name)))
}
