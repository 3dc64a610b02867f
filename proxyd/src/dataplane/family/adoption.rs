//! Taking over what the kernel has.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use netlink::nftables::{Change, Client};
use ruleset::nft::Set;

use super::chains::Chains;
use super::{Family, content};
use crate::dataplane::Error;
use crate::dataplane::found::{Found, State};
use crate::dataplane::transaction::{Transaction, Written};
use crate::model::NamespacedName;
use crate::nftables::{Held, Key, Kind, Map, Numbers, Rules, untagged};
use crate::plan::{Plan, PoolId, Scope, Way};

/// What the table's comment says.
const COMMENT: &str = "Services, by podwire's proxyd";

impl Family {
    pub(in crate::dataplane) fn adopt(
        &mut self,
        client: &mut Client,
        plans: &BTreeMap<NamespacedName, Arc<Plan>>,
    ) -> Result<Written, Error> {
        let found = Found::read(client, self.table(), &self.sets)?;
        let pools = found.slots();
        let Found { state, mut entries, chains, led, strange } = found;
        let left = std::mem::take(&mut self.left);
        *self = Self { left, ..Self::new(self.is_ipv4, self.settings.clone()) };
        self.chains = Chains::found(chains, led);
        keep_numbers(&mut self.numbers, &entries, plans);
        find_numbers(&mut self.numbers, &entries);
        let sets = self.sets.clone();
        let mut before = preparation(state, &sets);
        let mut transaction = Transaction::default();
        let rules = Rules { settings: &self.settings, is_ipv4: self.is_ipv4 };
        self.chains.lay_out(&mut transaction, &rules);
        strange.into_iter().for_each(|(set, elements)| transaction.purge(set, elements));
        let mut written = Written::default();
        // What takes the place of a table that may serve does so in one piece, however long the kernel takes.
        let is_one = state == State::Other;
        if !is_one {
            written += transaction.commit(client, self.table(), &std::mem::take(&mut before))?;
        }
        // Where nobody is any more nothing leads on, before what it led to changes.
        let places: HashSet<_> = plans.values().flat_map(|it| it.frontends.keys()).collect();
        let is_left = |key: &Key| match key {
            Key::Place(Map::Services, at) => !places.contains(at),
            _ => false,
        };
        for (key, held) in entries.extract_if(|key, _| is_left(key)) {
            if let Key::Place(_, at) = key {
                self.left.insert(at);
            }
            transaction.delete(&self.sets, &key, &held);
            if transaction.is_full() {
                written += transaction.commit(client, self.table(), &[])?;
            }
        }
        if !is_one {
            written += transaction.commit(client, self.table(), &[])?;
        }
        let mut remembering = remembering(&entries);
        for (name, plan) in plans {
            let slots = |number: u32| pools.get(&number).cloned().unwrap_or_default();
            let numbers = &mut self.numbers;
            let content = content(&self.settings, self.is_ipv4, numbers, (name, plan), slots)?;
            for (key, held) in &content {
                // What several services have the first one finds.
                let is_new = self.takes(&mut transaction, key, held);
                match entries.remove(key) {
                    Some(found) if found == *held => {}
                    Some(found) => {
                        transaction.delete(&self.sets, key, &found);
                        transaction.add(&self.sets, key, held);
                    }
                    None if is_new => transaction.add(&self.sets, key, held),
                    None => {}
                }
            }
            // Whoever comes to what a pool has no more would be forgotten, and dropped, for as long as it remembers clients.
            for number in self.numbers.of_service(name).values() {
                for key in remembering.remove(number).unwrap_or_default() {
                    if let Some(held) = entries.remove(&key) {
                        transaction.delete(&self.sets, &key, &held);
                    }
                }
            }
            if !content.is_empty() {
                self.held.insert(name.clone(), content);
            }
            if transaction.is_full() && !is_one {
                written += transaction.commit(client, self.table(), &[])?;
            }
        }
        // In order: that a pool remembers clients goes ahead of those endpoints.
        for (key, held) in entries.into_iter().collect::<BTreeMap<_, _>>() {
            transaction.delete(&self.sets, &key, &held);
            if transaction.is_full() {
                written += transaction.commit(client, self.table(), &[])?;
            }
        }
        written += transaction.commit(client, self.table(), &before)?;
        Ok(written)
    }
}

/// Makes the table and its sets, as far as they are not there.
fn preparation(state: State, sets: &[Set]) -> Vec<Change<'_>> {
    let goes = (state == State::Other).then_some(Change::DeleteAll);
    let comes = [Change::Table(Some(COMMENT))].into_iter().chain(sets.iter().map(Change::Set));
    goes.into_iter().chain(comes.filter(|_| state != State::Ours)).collect()
}

/// Pools keep the numbers that they have in the kernel. But not one that places of several services lead to, as when one has
/// passed on meanwhile: services change in turn, and each place leads where it led until it is its service's.
fn keep_numbers(
    numbers: &mut Numbers,
    entries: &HashMap<Key, Held>,
    plans: &BTreeMap<NamespacedName, Arc<Plan>>,
) {
    let of_one = numbers_of_one(entries, plans);
    for (name, plan) in plans {
        for (at, frontend) in &plan.frontends {
            let pools = match frontend.way {
                Way::Reject | Way::Drop => vec![],
                Way::Pool { scope, .. } => vec![(Map::Pools, scope)],
                Way::Divided { .. } => {
                    vec![(Map::Pools, Scope::Cluster), (Map::LocalPools, Scope::Local)]
                }
            };
            for (map, scope) in pools {
                if let Some(Held::Number(number)) = entries.get(&Key::Place(map, *at))
                    && let Some(number) = untagged(*number)
                    && of_one.get(&number).is_some_and(Option::is_some)
                {
                    numbers.keep(name, &PoolId::of(at, frontend, scope), number);
                }
            }
        }
    }
}

/// The numbers of pools that places in the kernel lead to, and the service that has all of these; `None`: several have some.
fn numbers_of_one<'a>(
    entries: &HashMap<Key, Held>,
    plans: &'a BTreeMap<NamespacedName, Arc<Plan>>,
) -> HashMap<u32, Option<&'a NamespacedName>> {
    let places = |(name, plan): (&'a NamespacedName, &'a Arc<Plan>)| {
        plan.frontends.keys().map(move |at| (at, name))
    };
    let owners: HashMap<_, _> = plans.iter().flat_map(places).collect();
    let mut of_one = HashMap::new();
    for (key, held) in entries {
        if let Key::Place(_, at) = key
            && let Some(owner) = owners.get(at)
            && let Some(number) = pool(key, held)
        {
            let one = of_one.entry(number).or_insert(Some(*owner));
            *one = one.filter(|it| it == owner);
        }
    }
    of_one
}

/// The number of the pool that it is of, or leads to.
fn pool(key: &Key, held: &Held) -> Option<u32> {
    match (key, held) {
        (Key::Slot(pool, _) | Key::Sticky(pool) | Key::StickyEndpoint(pool, ..), _) => Some(*pool),
        (Key::Place(Map::Pools | Map::LocalPools, _), Held::Number(number)) => untagged(*number),
        (Key::Place(Map::Services, _), Held::Number(number)) => match Kind::of_number(*number) {
            Some(Kind::Allow(pool)) => Some(pool),
            _ => None,
        },
        _ => None,
    }
}

/// Pools that remember clients, in the kernel: of each what says so, and then the endpoints that they may be remembered with.
fn remembering(entries: &HashMap<Key, Held>) -> BTreeMap<u32, BTreeSet<Key>> {
    let mut pools: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for key in entries.keys() {
        if let Key::Sticky(pool) | Key::StickyEndpoint(pool, ..) = key {
            pools.entry(*pool).or_default().insert(*key);
        }
    }
    pools
}

/// What else there is of pools goes last, and leads those on meanwhile who connect to what has gone: nobody new gets their
/// numbers.
fn find_numbers(numbers: &mut Numbers, entries: &HashMap<Key, Held>) {
    entries.iter().filter_map(|(key, held)| pool(key, held)).for_each(|it| numbers.found(it));
}
