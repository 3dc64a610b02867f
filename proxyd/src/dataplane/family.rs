//! The table of one family.

mod adoption;
mod affinity;
mod chains;
mod together;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use netlink::nftables::Client;
use ruleset::nft::{Set, Table};

use super::Error;
use super::transaction::{Transaction, Written};
use crate::model::NamespacedName;
use crate::nftables::{
    Content, Held, Key, Kind, Local, Numbers, Render, Rules, Settings, sets, table,
};
use crate::plan::{At, Plan, PoolId};
use affinity::Entry;
use chains::Chains;
use together::together;

/// The table of one family, as it is known to be.
#[derive(Debug)]
pub(super) struct Family {
    is_ipv4: bool,
    settings: Settings,
    sets: Vec<Set>,
    numbers: Numbers,
    held: HashMap<NamespacedName, Content>,
    /// How many services have what several may have.
    shared: HashMap<Shared, u32>,
    chains: Chains,
    /// The places that were found in the kernel, and that no service has.
    left: BTreeSet<At>,
}

impl Family {
    pub(super) fn new(is_ipv4: bool, settings: Settings) -> Self {
        let sets = sets(is_ipv4);
        Self {
            is_ipv4,
            settings,
            left: BTreeSet::new(),
            sets,
            numbers: Numbers::default(),
            held: HashMap::new(),
            shared: HashMap::new(),
            chains: Chains::default(),
        }
    }

    pub(super) fn take_left(&mut self) -> BTreeSet<At> {
        std::mem::take(&mut self.left)
    }

    pub(super) fn know_pods_by(&mut self, local: Local) {
        self.settings.local = local;
    }

    const fn table(&self) -> Table<'static> {
        table(self.is_ipv4)
    }

    pub(super) fn apply(
        &mut self,
        client: &mut Client,
        changes: &BTreeMap<NamespacedName, Option<Arc<Plan>>>,
    ) -> Result<Written, Error> {
        let mut contents = Vec::new();
        let mut gone: BTreeSet<Entry> = BTreeSet::new();
        for (name, plan) in changes {
            let held = self.held.get(name);
            let content = match plan {
                Some(plan) => {
                    let slots = held.map(|it| |number| slots(it, number));
                    let slots = |number| slots.map_or_else(Vec::new, |of| of(number));
                    content(&self.settings, self.is_ipv4, &mut self.numbers, (name, plan), slots)?
                }
                None => Content::default(),
            };
            let before = held.map(remembered).unwrap_or_default();
            let gone_here = &before - &remembered(&content);
            contents.push((name, content, pools(&gone_here)));
            gone.extend(gone_here);
        }
        let mut clients = affinity::look(self.table(), &self.sets, &gone)?;
        let mut written = Written::default();
        let mut transaction = Transaction::default();
        for group in together(contents, &self.held) {
            for (name, content, pools) in group {
                self.change(&mut transaction, name, content);
                let of_pools = pools.iter().filter_map(|it| clients.remove(it)).flatten();
                transaction.forget(of_pools);
            }
            if transaction.is_full() {
                written += transaction.commit(client, self.table(), &[])?;
            }
        }
        written += transaction.commit(client, self.table(), &[])?;
        // Not before may others have the numbers of pools that went.
        for (name, plan) in changes {
            let pools = plan.as_ref().map(|it| &it.pools);
            self.numbers.retain(name, |it| pools.is_some_and(|pools| pools.contains_key(it)));
        }
        Ok(written)
    }

    /// A service has this from now on.
    fn change(&mut self, transaction: &mut Transaction, name: &NamespacedName, new: Content) {
        let old = self.held.remove(name).unwrap_or_default();
        for (key, held) in old.iter().filter(|(key, held)| new.get(key) != Some(held)) {
            if self.drops(key, held) {
                transaction.delete(&self.sets, key, held);
            }
        }
        for (key, held) in new.iter().filter(|(key, held)| old.get(key) != Some(held)) {
            if self.takes(transaction, key, held) {
                transaction.add(&self.sets, key, held);
            }
        }
        if !new.is_empty() {
            self.held.insert(name.clone(), new);
        }
    }

    /// A service has it no more; whether nobody has it.
    fn drops(&mut self, key: &Key, held: &Held) -> bool {
        if let Some(shared) = Shared::of(key) {
            let Some(count) = self.shared.get_mut(&shared) else { return false };
            *count -= 1;
            let is_last = *count == 0;
            if is_last {
                self.shared.remove(&shared);
            }
            return is_last;
        }
        match (key, held) {
            (Key::Place(map, _), Held::Number(number)) => {
                if let (Some(level), Some(kind)) = (map.level(), Kind::of_number(*number)) {
                    self.chains.release(level, kind);
                }
                true
            }
            (Key::Sticky(_), Held::Seconds(seconds)) => {
                self.chains.release_remembering(*seconds);
                true
            }
            _ => true,
        }
    }

    /// A service has it now; whether nobody had it. What it needs is made.
    fn takes(&mut self, transaction: &mut Transaction, key: &Key, held: &Held) -> bool {
        if let Some(shared) = Shared::of(key) {
            let count = self.shared.entry(shared).or_default();
            *count += 1;
            return *count == 1;
        }
        let rules = Rules { settings: &self.settings, is_ipv4: self.is_ipv4 };
        match (key, held) {
            (Key::Place(map, _), Held::Number(number)) => {
                if let (Some(level), Some(kind)) = (map.level(), Kind::of_number(*number)) {
                    self.chains.need(transaction, &rules, &self.sets, (level, kind));
                }
                true
            }
            (Key::Sticky(_), Held::Seconds(seconds)) => {
                self.chains.need_remembering(transaction, &rules, *seconds);
                true
            }
            (Key::Allow(pool), Held::Sources(sources)) => {
                self.chains.allow(transaction, &rules, *pool, sources);
                false
            }
            _ => true,
        }
    }

    pub(super) fn tidy(&mut self, client: &mut Client) -> Result<Written, Error> {
        let mut transaction = Transaction::default();
        let rules = Rules { settings: &self.settings, is_ipv4: self.is_ipv4 };
        self.chains.tidy(&mut transaction, &rules, &self.sets);
        self.numbers.settle();
        transaction.commit(client, self.table(), &[])
    }
}

/// What several services may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Shared {
    /// An endpoint of the node.
    Hairpin(IpAddr),
    /// The cluster's address of a service: of several only where it does not come from an API server.
    ClusterIp(IpAddr),
}

impl Shared {
    const fn of(key: &Key) -> Option<Self> {
        match key {
            Key::Hairpin(address) => Some(Self::Hairpin(*address)),
            Key::ClusterIp(address) => Some(Self::ClusterIp(*address)),
            _ => None,
        }
    }
}

/// What a service's plan is in the table.
fn content(
    settings: &Settings,
    is_ipv4: bool,
    numbers: &mut Numbers,
    (name, plan): (&NamespacedName, &Plan),
    slots: impl Fn(u32) -> Vec<SocketAddr>,
) -> Result<Content, Error> {
    for pool in plan.pools.keys().filter(|it: &&PoolId| it.is_ipv4 == is_ipv4) {
        numbers.of(name, pool)?;
    }
    let numbers = numbers.of_service(name);
    Ok(Render { settings, is_ipv4, numbers: &numbers }.content(plan, slots))
}

/// The endpoints of pools that remember clients.
fn remembered(content: &Content) -> BTreeSet<Entry> {
    let endpoints = content.keys().filter_map(|key| match *key {
        Key::StickyEndpoint(pool, address, port) => Some((pool, SocketAddr::new(address, port))),
        _ => None,
    });
    endpoints.collect()
}

/// The pools of entries.
fn pools(entries: &BTreeSet<Entry>) -> BTreeSet<u32> {
    entries.iter().map(|(pool, _)| *pool).collect()
}

/// The endpoints of a pool, in their places.
fn slots(content: &Content, number: u32) -> Vec<SocketAddr> {
    let places = content.range(Key::Slot(number, 0)..=Key::Slot(number, u32::MAX));
    let endpoint = |(_, held): (&Key, &Held)| match held {
        Held::Endpoint(endpoint) => Some(*endpoint),
        _ => None,
    };
    places.filter_map(endpoint).collect()
}
