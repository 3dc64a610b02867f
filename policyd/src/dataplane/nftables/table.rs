//! A table: what it is known to hold, and how it is changed.

use std::collections::{BTreeMap, BTreeSet};

use ruleset::nft::{Encoded, Set};

use super::content::Content;
use super::held::Held;
use super::transaction::{Left, Transaction};
use super::{Counts, Endpoints, Written};
use crate::iptables::{Family, Settings};
use crate::nftables::{
    Elements, Families, Layer, Marks, RuleChain, base_chains, dispatch_sets, elements,
    endpoint_chains, members, policies, policy_chain, port_sets, set,
};
use crate::plan::{ChainKey, Changes, Plan, PolicyChain, SetChange, SetKey};

#[derive(Debug)]
pub(super) struct Table {
    pub(super) layer: Layer,
    /// Our chains, with what their rules carry.
    pub(super) chains: BTreeMap<String, Marks>,
    /// Those that belong to no single endpoint or policy.
    pub(super) base: Vec<RuleChain>,
    /// Those of each endpoint.
    of_endpoints: BTreeMap<String, BTreeSet<String>>,
    /// Policies that have a chain, with the sets of ports that it looks into.
    policies: BTreeMap<ChainKey, BTreeSet<String>>,
    /// What the sets hold that belong to no selector.
    pub(super) dispatch: Elements,
    /// Sets of selectors and of ports.
    pub(super) sets: BTreeMap<String, Content>,
    /// What should have gone.
    left: Left,
}

impl Table {
    pub(super) fn new(layer: Layer) -> Self {
        Self {
            layer,
            chains: BTreeMap::new(),
            base: Vec::new(),
            of_endpoints: BTreeMap::new(),
            policies: BTreeMap::new(),
            dispatch: Elements::new(),
            sets: BTreeMap::new(),
            left: Left::default(),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let dispatch = self.dispatch.values().map(BTreeSet::len).sum::<usize>();
        Counts {
            chains: self.chains.len(),
            rules: self.chains.values().map(Vec::len).sum(),
            sets: self.dispatch.len() + self.sets.len(),
            members: dispatch + self.sets.values().map(|it| it.count).sum::<usize>(),
        }
    }

    /// What makes the table that was found one of all that shall be written.
    pub(super) fn adopt(
        &mut self,
        mut held: Held,
        plan: &Plan,
        families: &Families,
        settings: &Settings,
    ) -> Transaction {
        let base = base_chains(self.layer, families, &plan.endpoints, settings);
        let dispatch = dispatch_sets(self.layer, families);
        let chains = wanted_policies(self.layer, &plan.endpoints).into_iter();
        let chains = chains.filter_map(|key| plan.chains.get_key_value(key));
        let chains: Vec<_> =
            chains.map(|(key, chain)| (key, chain, port_sets(chain).collect::<Vec<_>>())).collect();
        let selectors: Vec<_> = plan
            .sets
            .iter()
            .flat_map(|(key, of_plan)| {
                selector_sets(families, key).map(move |(family, set)| (family, set, of_plan))
            })
            .collect();
        let of_ports = chains.iter().flat_map(|it| &it.2).map(|it| &it.0);
        let mut sets = dispatch.iter().chain(of_ports).chain(selectors.iter().map(|it| &it.1));
        let takes_all = held.is_awake
            && base.iter().all(|it| held.takes_chain(it))
            && sets.all(|it| held.takes_set(it));
        let table = self.layer.table();
        let mut transaction = if takes_all {
            Transaction::new(table)
        } else if held.exists {
            held = Held::default();
            Transaction::making(table)
        } else {
            Transaction::of_new(table)
        };
        self.chains = std::mem::take(&mut held.chains);
        let mut stale: BTreeSet<_> = self.chains.keys().cloned().collect();
        let mut put = |this: &mut Self, transaction: &mut Transaction, chain: RuleChain| {
            stale.remove(&chain.name);
            this.put(transaction, chain);
        };
        self.base.clone_from(&base);
        base.into_iter().for_each(|it| put(self, &mut transaction, it));
        for (key, endpoint) in &plan.endpoints {
            let chains = endpoint_chains(self.layer, key, endpoint, settings);
            self.of_endpoints.insert(key.clone(), names(&chains));
            chains.into_iter().for_each(|it| put(self, &mut transaction, it));
        }
        for (key, chain, sets) in chains {
            put(self, &mut transaction, policy_chain(families, key, chain));
            self.policies.insert(key.clone(), sets.iter().map(|it| it.0.name.clone()).collect());
            for (set, elements) in sets {
                self.adopt_set(&mut transaction, &mut held, &set, elements);
            }
        }
        for (family, set, of_plan) in selectors {
            let elements = members(family, &set, of_plan);
            self.adopt_set(&mut transaction, &mut held, &set, elements);
        }
        let missing = dispatch.iter().filter(|it| !held.elements.contains_key(&it.name));
        missing.for_each(|it| transaction.make_set(it));
        for set in &dispatch {
            let elements = held.elements.remove(&set.name).unwrap_or_default();
            self.dispatch.insert(set.name.clone(), elements);
        }
        self.put_dispatch(&mut transaction, families, &plan.endpoints);
        held.elements.into_keys().for_each(|set| transaction.remove_set(set));
        stale.into_iter().for_each(|it| self.remove(&mut transaction, it));
        transaction
    }

    fn adopt_set(
        &mut self,
        transaction: &mut Transaction,
        held: &mut Held,
        set: &Set,
        wanted: BTreeSet<Encoded>,
    ) {
        // Rules with the same ports share one.
        if self.sets.contains_key(&set.name) {
            return;
        }
        self.sets.insert(set.name.clone(), Content::of(&wanted));
        let Some(held) = held.elements.remove(&set.name) else {
            transaction.make_set(set);
            return transaction.add(&set.name, &Vec::from_iter(wanted));
        };
        transaction.add(&set.name, &Vec::from_iter(&wanted - &held));
        transaction.delete(&set.name, &Vec::from_iter(&held - &wanted));
    }

    /// What makes the changes, after which what is written shall be this.
    pub(super) fn apply(
        &mut self,
        written: &Written,
        changes: &Changes,
        families: &Families,
        settings: &Settings,
    ) -> Transaction {
        let mut transaction = Transaction::new(self.layer.table());
        let left = std::mem::take(&mut self.left);
        for (key, change) in &changes.sets {
            for (family, set) in selector_sets(families, key) {
                let is_left = left.sets.contains(&set.name);
                self.change_set(&mut transaction, family, &set, change, is_left);
            }
        }
        if changes.touch_rules() {
            self.put_policies(&mut transaction, written, changes, families, &left);
            self.put_endpoints(&mut transaction, changes, settings);
        }
        if !changes.endpoints.is_empty() {
            let base = base_chains(self.layer, families, &written.endpoints, settings);
            let before = std::mem::replace(&mut self.base, base.clone());
            let gone = &names(&before) - &names(&base);
            base.into_iter().for_each(|it| self.put(&mut transaction, it));
            gone.into_iter().for_each(|it| self.remove(&mut transaction, it));
            self.put_dispatch(&mut transaction, families, &written.endpoints);
        }
        // What should have gone and is not in use again; most often there is nothing, and nobody needs to know.
        if !left.chains.is_empty() {
            let gone = &left.chains - &self.wanted_chains();
            gone.into_iter().for_each(|it| self.remove(&mut transaction, it));
        }
        let sets = left.sets.into_iter().filter(|it| !self.sets.contains_key(it));
        sets.for_each(|it| transaction.remove_set(it));
        transaction
    }

    fn wanted_chains(&self) -> BTreeSet<String> {
        let of_policies = self.policies.keys().map(crate::iptables::policy_chain_name);
        let of_endpoints = self.of_endpoints.values().flatten().cloned();
        names(&self.base).into_iter().chain(of_policies).chain(of_endpoints).collect()
    }

    /// Chains that should have gone stay empty, and go the next time.
    pub(super) fn keep(&mut self, left: Left) {
        self.chains.extend(left.chains.iter().map(|it| (it.clone(), Marks::new())));
        self.left = left;
    }

    fn put_policies(
        &mut self,
        transaction: &mut Transaction,
        written: &Written,
        changes: &Changes,
        families: &Families,
        left: &Left,
    ) {
        let wanted = wanted_policies(self.layer, &written.endpoints);
        let mut loose = BTreeSet::new();
        for key in &wanted {
            let is_new = changes.chains.contains_key(*key) || !self.policies.contains_key(*key);
            let Some(chain) = written.chains.get(*key).filter(|_| is_new) else { continue };
            self.put(transaction, policy_chain(families, key, chain));
            loose.extend(self.put_port_sets(transaction, key, chain, left));
        }
        let gone: Vec<_> =
            self.policies.keys().filter(|it| !wanted.contains(it)).cloned().collect();
        for key in gone {
            loose.extend(self.policies.remove(&key).unwrap_or_default());
            self.remove(transaction, crate::iptables::policy_chain_name(&key));
        }
        if loose.is_empty() {
            return;
        }
        let used: BTreeSet<_> = self.policies.values().flatten().collect();
        for set in loose.iter().filter(|it| !used.contains(it)) {
            self.sets.remove(set);
            transaction.remove_set(set.clone());
        }
    }

    /// The sets that the policy looked into until now.
    fn put_port_sets(
        &mut self,
        transaction: &mut Transaction,
        key: &ChainKey,
        chain: &PolicyChain,
        left: &Left,
    ) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for (set, elements) in port_sets(chain) {
            names.insert(set.name.clone());
            if !self.sets.contains_key(&set.name) {
                self.make_set(transaction, &set, elements, left.sets.contains(&set.name));
            }
        }
        self.policies.insert(key.clone(), names).unwrap_or_default()
    }

    fn make_set(
        &mut self,
        transaction: &mut Transaction,
        set: &Set,
        elements: BTreeSet<Encoded>,
        is_left: bool,
    ) {
        if is_left {
            transaction.empty_set(&set.name);
        } else {
            transaction.make_set(set);
        }
        self.sets.insert(set.name.clone(), Content::of(&elements));
        transaction.add(&set.name, &Vec::from_iter(elements));
    }

    fn change_set(
        &mut self,
        transaction: &mut Transaction,
        family: Family,
        set: &Set,
        change: &SetChange,
        is_left: bool,
    ) {
        match change {
            SetChange::Created(of_plan) => {
                self.make_set(transaction, set, members(family, set, of_plan), is_left);
            }
            SetChange::Members(changes) => {
                let those = |comes: bool| {
                    let those = changes.iter().filter(move |it| *it.1 == comes).map(|it| it.0);
                    members(family, set, those)
                };
                let (gone, come) = (those(false), those(true));
                let content = self.sets.entry(set.name.clone()).or_default();
                content.change(&gone, &come);
                transaction.delete(&set.name, &Vec::from_iter(gone));
                transaction.add(&set.name, &Vec::from_iter(come));
            }
            SetChange::Removed => {
                self.sets.remove(&set.name);
                transaction.remove_set(set.name.clone());
            }
        }
    }

    fn put_endpoints(
        &mut self,
        transaction: &mut Transaction,
        changes: &Changes,
        settings: &Settings,
    ) {
        for (key, endpoint) in &changes.endpoints {
            let chains = endpoint.iter();
            let chains: Vec<_> =
                chains.flat_map(|it| endpoint_chains(self.layer, key, it, settings)).collect();
            let now = names(&chains);
            chains.into_iter().for_each(|it| self.put(transaction, it));
            let before = self.of_endpoints.insert(key.clone(), now.clone()).unwrap_or_default();
            (&before - &now).into_iter().for_each(|it| self.remove(transaction, it));
            if endpoint.is_none() {
                self.of_endpoints.remove(key);
            }
        }
    }

    fn put_dispatch(
        &mut self,
        transaction: &mut Transaction,
        families: &Families,
        endpoints: &Endpoints,
    ) {
        let mut wanted = elements(self.layer, families, endpoints);
        for (set, held) in &mut self.dispatch {
            let wanted = wanted.remove(set).unwrap_or_default();
            let gone = Vec::from_iter(&*held - &wanted);
            transaction.change_dispatch(set, &gone, &Vec::from_iter(&wanted - held));
            *held = wanted;
        }
    }

    fn put(&mut self, transaction: &mut Transaction, chain: RuleChain) {
        let (name, wanted) = (chain.name.clone(), chain.marks());
        match self.chains.get(&name) {
            Some(held) if *held == wanted => return,
            Some(held) => transaction.change(chain, held),
            None => transaction.create(&chain),
        }
        self.chains.insert(name, wanted);
    }

    fn remove(&mut self, transaction: &mut Transaction, chain: String) {
        if self.chains.remove(&chain).is_some() {
            transaction.remove(chain);
        }
    }
}

fn names(chains: &[RuleChain]) -> BTreeSet<String> {
    chains.iter().map(|it| it.name.clone()).collect()
}

fn wanted_policies(layer: Layer, endpoints: &Endpoints) -> BTreeSet<&ChainKey> {
    endpoints.values().flat_map(|it| policies(layer, it)).collect()
}

fn selector_sets(families: &Families, key: &SetKey) -> impl Iterator<Item = (Family, Set)> {
    families.iter().filter_map(move |family| Some((*family, set(*family, key)?)))
}
