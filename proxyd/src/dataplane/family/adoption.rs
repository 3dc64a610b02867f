//! Taking over what the kernel has.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;

use netlink::nftables::{Change, Client, HeldTable};
use ruleset::nft::{Set, Value};

use super::chains::Chains;
use super::{Family, content, remembered};
use crate::dataplane::Error;
use crate::dataplane::transaction::{Transaction, Written};
use crate::model::NamespacedName;
use crate::nftables::{
    AFFINITY, Held, Key, Kind, Level, Map, Numbers, Rules, chain, read, untagged,
};
use crate::plan::{Plan, PoolId, Scope, Way};

/// What the table's comment says.
const COMMENT: &str = "Services, by podwire's proxyd";

/// What the kernel was found to have.
#[derive(Debug, Default)]
struct Found {
    state: State,
    entries: HashMap<Key, Held>,
    /// Hashes of the rules of chains.
    chains: BTreeMap<String, Vec<String>>,
    led: BTreeSet<(Level, Kind)>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    /// There is no table.
    #[default]
    Absent,
    /// Somebody, or another version, has made it otherwise.
    Other,
    /// It is as it should be.
    Ours,
}

impl Family {
    pub(in crate::dataplane) fn adopt(
        &mut self,
        client: &mut Client,
        plans: &BTreeMap<NamespacedName, Plan>,
    ) -> Result<Written, Error> {
        let Found { state, mut entries, chains, led } = self.find(client)?;
        *self = Self::new(self.is_ipv4, self.settings.clone());
        self.chains = Chains::found(chains, led);
        keep_numbers(&mut self.numbers, &entries, plans);
        let mut written = self.lay_out(client, &state)?;
        let pools = places(&entries);
        let mut transaction = Transaction::default();
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
            self.held.insert(name.clone(), content);
            if transaction.is_full() {
                written += transaction.commit(client, self.table(), &[])?;
            }
        }
        for (key, held) in entries {
            transaction.delete(&self.sets, &key, &held);
            if transaction.is_full() {
                written += transaction.commit(client, self.table(), &[])?;
            }
        }
        written += transaction.commit(client, self.table(), &[])?;
        written += self.forget_strangers(client)?;
        Ok(written)
    }

    fn find(&self, client: &mut Client) -> Result<Found, Error> {
        let table = self.table();
        let Some(held) = client.table(table)? else { return Ok(Found::default()) };
        let sets = client.sets(table)?;
        let has = |set: &Set| sets.iter().any(|it| it.name == set.name && it.is_like(set));
        if !held.is_awake || !self.sets.iter().all(has) || has_other_place(&held) {
            return Ok(Found { state: State::Other, ..Found::default() });
        }
        let names = held.chains.into_iter().map(|it| (it.name, Vec::new()));
        let mut found = Found { state: State::Ours, chains: names.collect(), ..Found::default() };
        for (chain, rules) in client.all_rules(table)? {
            let comments = rules.into_iter().map(|it| it.comment.unwrap_or_default());
            found.chains.insert(chain, comments.collect());
        }
        for set in self.sets.iter().filter(|it| it.name != AFFINITY) {
            let elements = client.elements(table, &set.name)?.into_iter().collect();
            if let Some(level) = Level::ALL.into_iter().find(|it| it.name() == set.name) {
                let kinds = set.decode(&elements).iter().filter_map(leading).collect::<Vec<_>>();
                found.led.extend(kinds.into_iter().map(|it| (level, it)));
            } else {
                found.entries.extend(read(set, &elements));
            }
        }
        Ok(found)
    }

    /// Makes the table, its sets, and the chains that there always are, as far as they are not there.
    fn lay_out(&mut self, client: &mut Client, state: &State) -> Result<Written, Error> {
        let mut before = Vec::new();
        if *state == State::Other {
            before.push(Change::DeleteAll);
        }
        if *state != State::Ours {
            before.push(Change::Table(Some(COMMENT)));
            before.extend(self.sets.iter().map(Change::Set));
        }
        let mut transaction = Transaction::default();
        let rules = Rules { settings: &self.settings, is_ipv4: self.is_ipv4 };
        self.chains.lay_out(&mut transaction, &rules);
        transaction.commit(client, self.table(), &before)
    }

    /// Has the kernel forget clients that were sent to what is no endpoint of the pool.
    fn forget_strangers(&self, client: &mut Client) -> Result<Written, Error> {
        let endpoints: HashSet<_> = self.held.values().flat_map(remembered).collect();
        self.forget(client, |pool, endpoint| !endpoints.contains(&(pool, endpoint)))
    }
}

/// The kind that an element leads on, as it should.
fn leading(element: &ruleset::nft::Element) -> Option<Kind> {
    let [Value::Priority(number)] = element.key.as_slice() else { return None };
    Kind::of_number(*number).filter(|kind| element.verdict == Some(kind.verdict()))
}

/// Whether the kernel calls one of the table's chains somewhere else than it should: it is asked to be there, and would stay
/// where it is.
fn has_other_place(table: &HeldTable) -> bool {
    table.chains.iter().any(|it| !it.is_like(&chain(&it.name)))
}

/// Pools keep the numbers that they have in the kernel.
fn keep_numbers(
    numbers: &mut Numbers,
    entries: &HashMap<Key, Held>,
    plans: &BTreeMap<NamespacedName, Plan>,
) {
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
                {
                    numbers.keep(name, &PoolId::of(at, frontend, scope), number);
                }
            }
        }
    }
}

/// The endpoints of pools, in their places.
fn places(entries: &HashMap<Key, Held>) -> HashMap<u32, Vec<SocketAddr>> {
    let endpoint = |(key, held): (&Key, &Held)| match (key, held) {
        (Key::Slot(pool, slot), Held::Endpoint(endpoint)) => Some(((*pool, *slot), *endpoint)),
        _ => None,
    };
    let places: BTreeMap<_, _> = entries.iter().filter_map(endpoint).collect();
    let mut pools: HashMap<u32, Vec<SocketAddr>> = HashMap::new();
    for ((pool, _), endpoint) in places {
        pools.entry(pool).or_default().push(endpoint);
    }
    pools
}
