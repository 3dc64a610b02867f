//! The chains that services share.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use ipnetwork::IpNetwork;
use ruleset::nft::{Element, Encoded, Rule, Set, Value};

use crate::dataplane::transaction::{Transaction, hash};
use crate::nftables::{Kind, Level, Rules, chain};

/// Which chains there are, and how many have need of them.
#[derive(Debug, Default)]
pub(super) struct Chains {
    kinds: HashMap<(Level, Kind), usize>,
    remembering: HashMap<u32, usize>,
    /// The kinds that maps lead on.
    led: BTreeSet<(Level, Kind)>,
    /// All chains of the table, with hashes of their rules.
    made: BTreeMap<String, Vec<String>>,
}

impl Chains {
    /// As the kernel has them, before anybody has need of one.
    pub(super) fn found(made: BTreeMap<String, Vec<String>>, led: BTreeSet<(Level, Kind)>) -> Self {
        Self { made, led, ..Self::default() }
    }

    /// Those that there always are. Of those that the kernel calls none stays that other settings wanted: nobody is led there, and
    /// what it drops is not to be dropped now.
    pub(super) fn lay_out(&mut self, transaction: &mut Transaction, rules: &Rules<'_>) {
        let wanted = rules.fixed(true);
        let is_stale = |name: &str| chain(name).base.is_some() && !wanted.contains_key(name);
        for (name, _) in self.made.extract_if(.., |name, _| is_stale(name)) {
            transaction.unchain(name);
        }
        for (name, rules) in rules.fixed(false) {
            self.make(transaction, name, rules);
        }
    }

    /// A place leads to a kind.
    pub(super) fn need(
        &mut self,
        transaction: &mut Transaction,
        rules: &Rules<'_>,
        sets: &[Set],
        (level, kind): (Level, Kind),
    ) {
        let count = self.kinds.entry((level, kind)).or_default();
        *count += 1;
        // That of those who may connect comes with them.
        if *count == 1 && !matches!(kind, Kind::Allow(_)) {
            for kind in [kind.leads_to(), Some(kind)].into_iter().flatten() {
                if let Some((name, rules)) = rules.of_kind(kind, &[]) {
                    self.make(transaction, name, rules);
                }
            }
        }
        if self.led.insert((level, kind)) {
            transaction.add_encoded(level.name(), lead(sets, level, kind));
        }
    }

    /// A place leads to a kind no more.
    pub(super) fn release(&mut self, level: Level, kind: Kind) {
        release(&mut self.kinds, (level, kind));
    }

    /// A pool remembers clients for so long.
    pub(super) fn need_remembering(
        &mut self,
        transaction: &mut Transaction,
        rules: &Rules<'_>,
        seconds: u32,
    ) {
        let count = self.remembering.entry(seconds).or_default();
        *count += 1;
        if *count == 1 {
            for (name, rules) in rules.remembering().into_iter().chain([rules.remember(seconds)]) {
                self.make(transaction, name, rules);
            }
        }
    }

    /// A pool remembers nobody for so long any more.
    pub(super) fn release_remembering(&mut self, seconds: u32) {
        release(&mut self.remembering, seconds);
    }

    /// Those may connect to what leads to this pool.
    pub(super) fn allow(
        &mut self,
        transaction: &mut Transaction,
        rules: &Rules<'_>,
        pool: u32,
        sources: &[IpNetwork],
    ) {
        if let Some((name, rules)) = rules.of_kind(Kind::Allow(pool), sources) {
            self.make(transaction, name, rules);
        }
    }

    /// A chain has these rules, and is written if it has not.
    fn make(&mut self, transaction: &mut Transaction, name: String, rules: Vec<Rule>) {
        let hashes: Vec<_> = rules.iter().map(hash).collect();
        let made = self.made.get(&name);
        if made != Some(&hashes) {
            transaction.chain(name.clone(), rules, made.is_none());
            self.made.insert(name, hashes);
        }
    }

    /// Has what nobody needs go.
    pub(super) fn tidy(&mut self, transaction: &mut Transaction, rules: &Rules<'_>, sets: &[Set]) {
        let needed = self.needed(rules);
        let Self { kinds, led, made, .. } = self;
        led.retain(|(level, kind)| {
            let is_needed = kinds.contains_key(&(*level, *kind));
            if !is_needed {
                transaction.delete_encoded(level.name(), lead(sets, *level, *kind));
            }
            is_needed
        });
        made.retain(|name, _| {
            let is_needed = needed.contains(name);
            if !is_needed {
                transaction.unchain(name.clone());
            }
            is_needed
        });
    }

    fn needed(&self, rules: &Rules<'_>) -> BTreeSet<String> {
        let remembers = !self.remembering.is_empty();
        let fixed = rules.fixed(remembers).into_keys();
        let kinds = self.kinds.keys().flat_map(|(_, it)| [Some(*it), it.leads_to()]).flatten();
        let remember = self.remembering.keys().map(|it| rules.remember(*it).0);
        fixed.chain(kinds.filter_map(Kind::chain)).chain(remember).collect()
    }
}

fn release<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: K) {
    if let Entry::Occupied(mut entry) = counts.entry(key) {
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}

/// The element that leads a kind on.
fn lead(sets: &[Set], level: Level, kind: Kind) -> Vec<Encoded> {
    let element = Element::new([Value::Priority(kind.number())]).leading_to(kind.verdict());
    sets.iter().find(|it| it.name == level.name()).map(|it| it.encode(&element)).unwrap_or_default()
}
