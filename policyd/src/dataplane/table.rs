//! The tables of one family: what they are known to hold of ours, and how they are changed.

use std::collections::{BTreeMap, BTreeSet};

use ruleset::iptables::{Chain, RuleHash, Saved, Transaction};
use runner::Runner;

use super::programs::Programs;
use super::written::Written;
use super::{Difference, Error};
use crate::iptables::{
    CHAIN_PREFIX, Family, Settings, dispatch, endpoint_chains, hooks, policies, policy_chain,
    policy_chain_name,
};
use crate::node_network;
use crate::plan::{ChainKey, Changes};

/// Tables that rules of ours may be in.
pub(super) const TABLES: [&str; 2] = ["mangle", "filter"];
/// The one that our chains are in.
const OURS: &str = "mangle";

/// By table and chain, the places of our rules (counted from 1), and their hashes.
type Hooks = BTreeMap<&'static str, BTreeMap<String, Vec<(usize, RuleHash)>>>;

#[derive(Debug)]
pub(super) struct Tables {
    family: Family,
    /// Our chains, with the hashes of their rules; `None`: something in them is not ours.
    chains: BTreeMap<String, Option<Vec<RuleHash>>>,
    /// Rules of ours in the kernel's own chains, by table.
    hooks: Hooks,
    /// Chains that belong to no single endpoint or policy.
    dispatch: BTreeSet<String>,
    /// Chains of each endpoint.
    of_endpoints: BTreeMap<String, BTreeSet<String>>,
    /// Policies that have a chain.
    policies: BTreeSet<ChainKey>,
}

/// All that is to be changed of the tables, and what they hold of ours then.
#[derive(Debug)]
pub(super) struct Adoption {
    text: String,
    known: BTreeMap<String, Option<Vec<RuleHash>>>,
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
        let used: BTreeSet<_> = hooks(settings).iter().map(|hook| hook.table).collect();
        for table in TABLES.into_iter().filter(|table| used.contains(table)) {
            let mut saved = self.read_table(programs, table)?;
            // That of the node's network is kept by who made it.
            node_network::forget_jump(&mut saved);
            if table == OURS {
                let chains = saved.chains.into_iter();
                self.chains = chains.map(|(name, it)| (name, it.into_iter().collect())).collect();
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
        let in_chain = |chain: &String| Difference::Chain(program.clone(), chain.clone());
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
        let text = programs.saved_table(self.family, table)?;
        Saved::read(&text, CHAIN_PREFIX).map_err(|source| {
            let program = programs.iptables(self.family, "save");
            Error::Table { program, source }
        })
    }

    /// What makes the tables, as they were read, hold what shall be written.
    pub(super) fn adoption(&mut self, written: &Written, settings: &Settings) -> Adoption {
        let mut changes = Transaction::default();
        let mut known = std::mem::take(&mut self.chains);
        let mut stale: BTreeSet<_> = known.keys().cloned().collect();
        // One chain after the other: all of them at once take more memory than all else here.
        let mut put = |chain: &Chain| {
            stale.remove(&chain.name);
            put(&mut known, &mut changes, chain);
        };
        let chains = dispatch(self.family, written.endpoints.iter(), settings);
        chains.iter().for_each(&mut put);
        self.dispatch = names(&chains);
        self.of_endpoints.clear();
        for (key, endpoint) in &written.endpoints {
            let chains = endpoint_chains(self.family, key, endpoint, settings);
            chains.iter().for_each(&mut put);
            self.of_endpoints.insert(key.clone(), names(&chains));
        }
        self.policies =
            policies(self.family, written.endpoints.values()).into_iter().cloned().collect();
        for (key, chain) in self.policies.iter().filter_map(|key| written.chains.get_key_value(key))
        {
            put(&policy_chain(self.family, key, chain));
        }
        for name in stale {
            changes.remove(&name);
            known.remove(&name);
        }
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
        let mut transaction = Transaction::default();
        let mut known = std::mem::take(&mut self.chains);
        let mut stale = BTreeSet::new();
        let policies = policies(family, written.endpoints.values());
        for key in &policies {
            let is_new = changes.chains.contains_key(key) || !self.policies.contains(key);
            let chain = written.chains.get(key).filter(|_| is_new);
            let chain = chain.map(|chain| policy_chain(family, key, chain));
            chain.iter().for_each(|chain| put(&mut known, &mut transaction, chain));
        }
        let gone = self.policies.iter().filter(|key| !policies.contains(key));
        stale.extend(gone.map(policy_chain_name));
        self.policies = policies.into_iter().cloned().collect();
        for (key, endpoint) in &changes.endpoints {
            let chains = endpoint.iter();
            let chains: Vec<_> =
                chains.flat_map(|it| endpoint_chains(family, key, it, settings)).collect();
            chains.iter().for_each(|chain| put(&mut known, &mut transaction, chain));
            let before = self.of_endpoints.insert(key.clone(), names(&chains)).unwrap_or_default();
            stale.extend(before.difference(&names(&chains)).cloned());
            if endpoint.is_none() {
                self.of_endpoints.remove(key);
            }
        }
        if !changes.endpoints.is_empty() {
            let chains = dispatch(family, written.endpoints.iter(), settings);
            chains.iter().for_each(|chain| put(&mut known, &mut transaction, chain));
            let before = std::mem::replace(&mut self.dispatch, names(&chains));
            stale.extend(before.difference(&self.dispatch).cloned());
        }
        for name in stale.into_iter().filter(|name| known.contains_key(name)).collect::<Vec<_>>() {
            transaction.remove(&name);
            known.remove(&name);
        }
        let text = if transaction.is_empty() { String::new() } else { transaction.text(OURS) };
        self.commit(programs, &text, known)
    }

    fn commit<R: Runner>(
        &mut self,
        programs: &mut Programs<R>,
        text: &str,
        known: BTreeMap<String, Option<Vec<RuleHash>>>,
    ) -> Result<(), Error> {
        if !text.is_empty() {
            self.restore(programs, text)?;
        }
        self.chains = known;
        Ok(())
    }

    /// A rule of somebody else may lead to a chain that shall go, and then the kernel refuses all: the
    /// chain stays, empty, and goes the next time that all is written.
    fn restore<R: Runner>(&self, programs: &mut Programs<R>, text: &str) -> Result<(), Error> {
        match programs.restore_tables(self.family, text) {
            Err(error @ Error::Refused { .. }) if text.lines().any(removes_chain) => {
                let kept = text.lines().filter(|line| !removes_chain(line));
                let text: String = kept.flat_map(|line| [line, "\n"]).collect();
                programs.restore_tables(self.family, &text).map_err(|_| error)?;
                tracing::warn!(
                    "a chain that shall go stays, empty: does a rule of somebody else lead to it?"
                );
                Ok(())
            }
            done => done,
        }
    }

    /// The text of a change of our chains, and of what it takes to have the hooks in place.
    fn with_hooks(&self, mut changes: Transaction, settings: &Settings) -> String {
        let mut others = BTreeMap::<&str, Transaction>::new();
        let wanted = hooks(settings);
        for (table, held) in &self.hooks {
            let transaction =
                if *table == OURS { &mut changes } else { others.entry(table).or_default() };
            for (chain, held) in held {
                let hook = wanted.iter().find(|it| it.table == *table && it.chain == chain);
                let hash = hook.map(|hook| RuleHash::of(&hook.rule));
                if hash.is_some_and(|hash| *held == [(1, hash)]) {
                    continue;
                }
                held.iter().rev().for_each(|(place, _)| transaction.unhook(chain, *place));
            }
        }
        for hook in &wanted {
            let held = self.hooks.get(hook.table).and_then(|chains| chains.get(hook.chain));
            if held.is_some_and(|held| *held == [(1, RuleHash::of(&hook.rule))]) {
                continue;
            }
            let transaction = if hook.table == OURS {
                &mut changes
            } else {
                others.entry(hook.table).or_default()
            };
            transaction.hook(hook.chain, &hook.rule);
        }
        let others = others.iter().filter(|(_, it)| !it.is_empty());
        let others: String = others.map(|(table, it)| it.text(table)).collect();
        // What is marked to be rejected must find who rejects it.
        if changes.is_empty() { others } else { others + &changes.text(OURS) }
    }

    /// Removes everything of ours.
    pub(super) fn clean_up<R: Runner>(&mut self, programs: &mut Programs<R>) -> Result<(), Error> {
        for table in TABLES.into_iter().rev() {
            let saved = self.read_table(programs, table)?;
            let mut changes = Transaction::default();
            for (chain, held) in &saved.hooks {
                held.iter().rev().for_each(|(place, _)| changes.unhook(chain, *place));
            }
            saved.chains.keys().for_each(|chain| changes.remove(chain));
            if !changes.is_empty() {
                programs.restore_tables(self.family, &changes.text(table))?;
            }
        }
        *self = Self::new(self.family);
        Ok(())
    }
}

fn names(chains: &[Chain]) -> BTreeSet<String> {
    chains.iter().map(|chain| chain.name.clone()).collect()
}

fn removes_chain(line: &str) -> bool {
    line.starts_with("-X ")
}

fn put(
    known: &mut BTreeMap<String, Option<Vec<RuleHash>>>,
    changes: &mut Transaction,
    chain: &Chain,
) {
    let hashes = match known.get(&chain.name) {
        Some(Some(held)) => changes.change(held, chain),
        Some(None) | None => changes.create(chain),
    };
    known.insert(chain.name.clone(), Some(hashes));
}

fn hooks_in_place(settings: &Settings) -> Hooks {
    let mut tables = BTreeMap::<_, BTreeMap<_, _>>::new();
    for hook in hooks(settings) {
        let place = vec![(1, RuleHash::of(&hook.rule))];
        tables.entry(hook.table).or_default().insert(hook.chain.to_owned(), place);
    }
    tables
}
