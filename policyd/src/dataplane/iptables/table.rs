//! The tables of one family: what they are known to hold of ours, and how they are changed.

use std::collections::{BTreeMap, BTreeSet};

use ruleset::iptables::{Chain, Jump, RuleHash, Saved, Transaction};
use ruleset::nft::Table;
use runner::Runner;

use super::{Difference, Error, Programs, Written};
use crate::iptables::{
    CHAIN_PREFIX, Family, MANGLE, RAW, Settings, dispatch, endpoint_chains, hooks, policies,
    policy_chain, policy_chain_name, sources,
};
use crate::node_network;
use crate::plan::{ChainKey, Changes};

/// Tables that rules of ours may be in, in the order in which they are changed: what is marked to be
/// rejected must find who rejects it, and sources are known before policies decide by them.
pub(super) const TABLES: [&str; 3] = ["filter", RAW, MANGLE];
/// Those of them that our chains are in.
const WITH_CHAINS: [&str; 2] = [RAW, MANGLE];

/// A chain: its table, and its name.
type Place = (&'static str, String);
/// Our chains, with the hashes of their rules; `None`: something in them is not ours.
type Known = BTreeMap<Place, Option<Vec<RuleHash>>>;
/// Changes by table.
type Transactions = BTreeMap<&'static str, Transaction>;

/// By table and chain, the places of our rules (counted from 1), and their hashes.
type Hooks = BTreeMap<&'static str, BTreeMap<String, Vec<(usize, RuleHash)>>>;

#[derive(Debug)]
pub(super) struct Tables {
    family: Family,
    chains: Known,
    /// Rules of ours in the kernel's own chains, by table.
    hooks: Hooks,
    /// Chains that belong to no single endpoint or policy.
    dispatch: BTreeSet<Place>,
    /// Chains of each endpoint.
    of_endpoints: BTreeMap<String, BTreeSet<Place>>,
    /// Policies that have a chain.
    policies: BTreeSet<ChainKey>,
}

/// All that is to be changed of the tables, and what they hold of ours then.
#[derive(Debug)]
pub(super) struct Adoption {
    text: String,
    known: Known,
}

impl Tables {
    pub(super) const fn new(family: Family) -> Self {
        Self {
            family,
            chains: BTreeMap::new(),
            hooks: BTreeMap::new(),
            dispatch: BTreeSet::new(),
            of_endpoints: BTreeMap::new(),
            policies: BTreeSet::new(),
        }
    }

    pub(super) const fn family(&self) -> Family {
        self.family
    }

    /// Reads what the tables hold of ours. Tables that nothing of ours shall be in are not looked
    /// at: asking for one makes the kernel make it.
    pub(super) fn read<R: Runner>(
        &mut self,
        programs: &mut Programs<R>,
        settings: &Settings,
    ) -> Result<(), Error> {
        self.hooks.clear();
        self.chains.clear();
        let used: BTreeSet<_> = hooks(settings).iter().map(|hook| hook.table).collect();
        for table in TABLES.into_iter().filter(|table| used.contains(table)) {
            let mut saved = self.read_table(programs, table)?;
            // That of the node's network is kept by who made it.
            node_network::forget_jump(&mut saved);
            if WITH_CHAINS.contains(&table) {
                let chains = saved.chains.into_iter();
                let chains = chains.map(|(name, it)| ((table, name), it.into_iter().collect()));
                self.chains.extend(chains);
            }
            self.hooks.insert(table, saved.hooks);
        }
        Ok(())
    }

    /// How many chains and rules of ours there are.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.chains.len(), self.chains.values().flatten().map(Vec::len).sum())
    }

    /// Where the tables are otherwise than they were left.
    pub(super) fn differences<R: Runner>(
        &self,
        programs: &mut Programs<R>,
        settings: &Settings,
    ) -> Result<Vec<Difference>, Error> {
        let mut now = Self::new(self.family);
        now.read(programs, settings)?;
        let program = programs.iptables(self.family, "save");
        let in_chain = |chain: &Place| Difference::Chain(program.clone(), chain.1.clone());
        let chains: BTreeSet<_> = self.chains.keys().chain(now.chains.keys()).collect();
        let changed = chains.into_iter().filter(|it| self.chains.get(*it) != now.chains.get(*it));
        let mut differences: Vec<_> = changed.map(in_chain).collect();
        let tables =
            self.hooks.iter().chain(&now.hooks).flat_map(|(table, chains)| {
                chains.keys().map(move |chain| (*table, chain.clone()))
            });
        for (table, chain) in tables.collect::<BTreeSet<_>>() {
            let held = |it: &Self| it.hooks.get(table).and_then(|it| it.get(&chain)).cloned();
            if held(self).unwrap_or_default() != held(&now).unwrap_or_default() {
                differences.push(Difference::Hook(program.clone(), format!("{table} {chain}")));
            }
        }
        Ok(differences)
    }

    fn read_table<R: Runner>(
        &self,
        programs: &mut Programs<R>,
        table: &str,
    ) -> Result<Saved, Error> {
        self.read_printed(programs, table).map(|(_, saved)| saved)
    }

    /// The same, with what it was read from.
    fn read_printed<R: Runner>(
        &self,
        programs: &mut Programs<R>,
        table: &str,
    ) -> Result<(String, Saved), Error> {
        let text = programs.saved_table(self.family, table)?;
        let saved = Saved::read(&text, CHAIN_PREFIX).map_err(|source| {
            let program = programs.iptables(self.family, "save");
            Error::Table { program, source }
        })?;
        Ok((text, saved))
    }

    /// What makes the tables, as they were read, hold what shall be written.
    pub(super) fn adoption(&mut self, written: &Written, settings: &Settings) -> Adoption {
        let mut changes = Transactions::new();
        let mut known = std::mem::take(&mut self.chains);
        let mut stale: BTreeSet<_> = known.keys().cloned().collect();
        // One chain after the other: all of them at once take more memory than all else here.
        let mut put = |table, chain: &Chain| {
            stale.remove(&(table, chain.name.clone()));
            put(&mut known, &mut changes, table, chain);
        };
        self.dispatch.clear();
        for (table, chains) in shared_chains(self.family, written, settings) {
            chains.iter().for_each(|chain| put(table, chain));
            self.dispatch.extend(places(table, &chains));
        }
        self.of_endpoints.clear();
        for (key, endpoint) in &written.endpoints {
            let chains = endpoint_chains(self.family, key, endpoint, settings);
            chains.iter().for_each(|chain| put(MANGLE, chain));
            self.of_endpoints.insert(key.clone(), places(MANGLE, &chains).collect());
        }
        self.policies =
            policies(self.family, written.endpoints.values()).into_iter().cloned().collect();
        for (key, chain) in self.policies.iter().filter_map(|key| written.chains.get_key_value(key))
        {
            put(MANGLE, &policy_chain(self.family, key, chain));
        }
        stale.into_iter().for_each(|place| remove(&mut known, &mut changes, &place));
        Adoption { text: self.with_hooks(changes, settings), known }
    }

    /// Carries that out.
    pub(super) fn adopt<R: Runner>(
        &mut self,
        programs: &mut Programs<R>,
        adoption: Adoption,
        settings: &Settings,
    ) -> Result<(), Error> {
        self.commit(programs, &adoption.text, adoption.known)?;
        self.hooks = hooks_in_place(settings);
        Ok(())
    }

    /// Makes the changes, after which what is written shall be this.
    pub(super) fn apply<R: Runner>(
        &mut self,
        programs: &mut Programs<R>,
        written: &Written,
        changes: &Changes,
        settings: &Settings,
    ) -> Result<(), Error> {
        let family = self.family;
        let mut transactions = Transactions::new();
        let mut known = std::mem::take(&mut self.chains);
        let mut put = |known: &mut Known, table, chains: &[Chain]| {
            chains.iter().for_each(|chain| put(known, &mut transactions, table, chain));
        };
        let mut stale = BTreeSet::new();
        let policies = policies(family, written.endpoints.values());
        for key in &policies {
            let is_new = changes.chains.contains_key(key) || !self.policies.contains(key);
            let chain = written.chains.get(key).filter(|_| is_new);
            let chain = chain.map(|chain| policy_chain(family, key, chain));
            put(&mut known, MANGLE, chain.as_slice());
        }
        let gone = self.policies.iter().filter(|key| !policies.contains(key));
        stale.extend(gone.map(|key| (MANGLE, policy_chain_name(key))));
        self.policies = policies.into_iter().cloned().collect();
        for (key, endpoint) in &changes.endpoints {
            let chains = endpoint.iter();
            let chains: Vec<_> =
                chains.flat_map(|it| endpoint_chains(family, key, it, settings)).collect();
            put(&mut known, MANGLE, &chains);
            let now: BTreeSet<_> = places(MANGLE, &chains).collect();
            let before = self.of_endpoints.insert(key.clone(), now.clone()).unwrap_or_default();
            stale.extend(before.difference(&now).cloned());
            if endpoint.is_none() {
                self.of_endpoints.remove(key);
            }
        }
        if !changes.endpoints.is_empty() {
            let mut now = BTreeSet::new();
            for (table, chains) in shared_chains(family, written, settings) {
                put(&mut known, table, &chains);
                now.extend(places(table, &chains));
            }
            let before = std::mem::replace(&mut self.dispatch, now);
            stale.extend(before.difference(&self.dispatch).cloned());
        }
        for place in stale.iter().filter(|place| known.contains_key(*place)).collect::<Vec<_>>() {
            remove(&mut known, &mut transactions, place);
        }
        self.commit(programs, &text(&transactions), known)
    }

    fn commit<R: Runner>(
        &mut self,
        programs: &mut Programs<R>,
        text: &str,
        mut known: Known,
    ) -> Result<(), Error> {
        if !text.is_empty() {
            let staying = self.restore(programs, text)?;
            known.extend(staying.into_iter().map(|place| (place, Some(Vec::new()))));
        }
        self.chains = known;
        Ok(())
    }

    /// A rule of somebody else may lead to a chain that shall go, and then the kernel refuses all: those that
    /// shall go stay, empty, and go the next time that all is written.
    fn restore<R: Runner>(
        &self,
        programs: &mut Programs<R>,
        text: &str,
    ) -> Result<Vec<Place>, Error> {
        match programs.restore_tables(self.family, text) {
            Err(error @ Error::Refused { .. }) if text.lines().any(|it| removed(it).is_some()) => {
                let kept = text.lines().filter(|line| removed(line).is_none());
                let kept: String = kept.flat_map(|line| [line, "\n"]).collect();
                programs.restore_tables(self.family, &kept).map_err(|_| error)?;
                tracing::warn!(
                    "a chain that shall go stays, empty: does a rule of somebody else lead to it?"
                );
                Ok(all_removed(text))
            }
            done => done.map(|()| Vec::new()),
        }
    }

    /// The text of a change of our chains, and of what it takes to have the hooks in place.
    fn with_hooks(&self, mut changes: Transactions, settings: &Settings) -> String {
        let wanted = hooks(settings);
        for (table, held) in &self.hooks {
            for (chain, held) in held {
                let hook = wanted.iter().find(|it| it.table == *table && it.chain == chain);
                let hash = hook.map(|hook| RuleHash::of(&hook.rule));
                if hash.is_some_and(|hash| *held == [(1, hash)]) {
                    continue;
                }
                let transaction = changes.entry(table).or_default();
                held.iter().rev().for_each(|(place, _)| transaction.unhook(chain, *place));
            }
        }
        for hook in &wanted {
            let held = self.hooks.get(hook.table).and_then(|chains| chains.get(hook.chain));
            if held.is_some_and(|held| *held == [(1, RuleHash::of(&hook.rule))]) {
                continue;
            }
            changes.entry(hook.table).or_default().hook(hook.chain, &hook.rule);
        }
        text(&changes)
    }

    /// Removes everything of ours from all tables, whatever becomes of the others; what could not be.
    pub(super) fn clean_up<R: Runner>(&mut self, programs: &mut Programs<R>) -> Vec<Error> {
        let tables = TABLES.into_iter().rev();
        let errors = tables.filter_map(|it| self.clean_up_table(programs, it).err()).collect();
        *self = Self::new(self.family);
        errors
    }

    /// A chain that rules of others lead to can only be emptied.
    fn clean_up_table<R: Runner>(
        &self,
        programs: &mut Programs<R>,
        table: &'static str,
    ) -> Result<(), Error> {
        let (printed, saved) = self.read_printed(programs, table)?;
        let led_to = Jump::of_others(&printed, CHAIN_PREFIX);
        let mut changes = Transaction::default();
        for (chain, held) in &saved.hooks {
            held.iter().rev().for_each(|(place, _)| changes.unhook(chain, *place));
        }
        for chain in saved.chains.keys() {
            if led_to.contains_key(chain.as_str()) {
                changes.empty(chain);
            } else {
                changes.remove(chain);
            }
        }
        let refused = if changes.is_empty() {
            Vec::new()
        } else {
            self.restore(programs, &changes.text(table))?
        };
        let told = |(chain, from): (&&str, &BTreeSet<&str>)| {
            format!("{chain} (from {})", Vec::from_iter(from.iter().copied()).join(", "))
        };
        let mut chains: Vec<String> = led_to.iter().map(told).collect();
        if !refused.is_empty() {
            chains.push("some (from where iptables does not show)".to_owned());
        }
        if chains.is_empty() {
            return Ok(());
        }
        let table = Table { family: self.family.of_nf_tables(), name: table };
        Err(Error::ChainsInUse { table: table.to_string(), chains: chains.join("; ") })
    }
}

/// The chains that belong to no single endpoint or policy, by their table.
fn shared_chains(
    family: Family,
    written: &Written,
    settings: &Settings,
) -> [(&'static str, Vec<Chain>); 2] {
    let endpoints = written.endpoints.iter();
    let sources = sources(family, endpoints.clone());
    [(RAW, sources), (MANGLE, dispatch(family, endpoints, settings))]
}

fn places(table: &'static str, chains: &[Chain]) -> impl Iterator<Item = Place> {
    chains.iter().map(move |chain| (table, chain.name.clone()))
}

/// One table after the other: nothing is changed in one with which nothing is done.
fn text(changes: &Transactions) -> String {
    let changes = TABLES.into_iter().filter_map(|table| Some((table, changes.get(table)?)));
    changes.filter(|(_, it)| !it.is_empty()).map(|(table, it)| it.text(table)).collect()
}

/// The chain that a line of a restore removes.
fn removed(line: &str) -> Option<&str> {
    line.strip_prefix("-X ")
}

fn all_removed(text: &str) -> Vec<Place> {
    let mut table = None;
    let mut places = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = TABLES.into_iter().find(|it| *it == name);
        }
        places.extend(table.zip(removed(line)).map(|(table, chain)| (table, chain.to_owned())));
    }
    places
}

fn put(known: &mut Known, changes: &mut Transactions, table: &'static str, chain: &Chain) {
    let (place, changes) = ((table, chain.name.clone()), changes.entry(table).or_default());
    let hashes = match known.get(&place) {
        Some(Some(held)) => changes.change(held, chain),
        Some(None) | None => changes.create(chain),
    };
    known.insert(place, Some(hashes));
}

fn remove(known: &mut Known, changes: &mut Transactions, place: &Place) {
    changes.entry(place.0).or_default().remove(&place.1);
    known.remove(place);
}

fn hooks_in_place(settings: &Settings) -> Hooks {
    let mut tables = BTreeMap::<_, BTreeMap<_, _>>::new();
    for hook in hooks(settings) {
        let place = vec![(1, RuleHash::of(&hook.rule))];
        tables.entry(hook.table).or_default().insert(hook.chain.to_owned(), place);
    }
    tables
}
