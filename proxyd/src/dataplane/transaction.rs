//! Changes on their way to the kernel, in transactions of bounded size.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;

use netlink::nftables::{Batch, Change, Client};
use nix::errno::Errno;
use ruleset::nft::{Encoded, Rule, Set, Table};
use ruleset::short_hash;

use super::Error;
use crate::nftables::{AFFINITY, Held, Key, chain, element};

/// So many elements a transaction has at most, but for a single service's: while the kernel works on it nobody else
/// changes rules of the namespace.
const MOST_ELEMENTS: usize = 8192;

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Transactions.
    pub transactions: usize,
    /// Elements that came.
    pub added: usize,
    /// Elements that went.
    pub deleted: usize,
}

impl AddAssign for Written {
    fn add_assign(&mut self, other: Self) {
        self.transactions += other.transactions;
        self.added += other.added;
        self.deleted += other.deleted;
    }
}

/// What is to change together.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    /// Chains with all of their rules.
    chains: BTreeMap<String, Vec<Rule>>,
    /// The same, of those that the kernel does not have yet.
    new_chains: BTreeMap<String, Vec<Rule>>,
    purged: Vec<(String, Vec<Encoded>)>,
    deleted: BTreeMap<&'static str, Vec<Encoded>>,
    added: BTreeMap<&'static str, Vec<Encoded>>,
    unchained: BTreeSet<String>,
    /// Clients that are to be forgotten.
    clients: Vec<Encoded>,
    elements: usize,
}

impl Transaction {
    /// A chain is to have these rules and no others. Each gets a hash of itself as its comment, by which it is known
    /// again.
    pub(super) fn chain(&mut self, name: String, rules: Vec<Rule>, is_new: bool) {
        let hashed = |rule: Rule| {
            let hash = hash(&rule);
            rule.commented(hash)
        };
        let chains = if is_new { &mut self.new_chains } else { &mut self.chains };
        chains.insert(name, rules.into_iter().map(hashed).collect());
    }

    /// A chain is to go, to which nothing leads.
    pub(super) fn unchain(&mut self, name: String) {
        self.unchained.insert(name);
    }

    pub(super) fn add(&mut self, sets: &[Set], key: &Key, held: &Held) {
        self.elements += Self::push(&mut self.added, sets, key, held);
    }

    pub(super) fn delete(&mut self, sets: &[Set], key: &Key, held: &Held) {
        self.elements += Self::push(&mut self.deleted, sets, key, held);
    }

    fn push(
        to: &mut BTreeMap<&'static str, Vec<Encoded>>,
        sets: &[Set],
        key: &Key,
        held: &Held,
    ) -> usize {
        let Some(name) = key.set() else { return 0 };
        let Some(set) = sets.iter().find(|it| it.name == name) else { return 0 };
        Self::encode(to, name, set.encode(&element(key, held)))
    }

    fn encode(
        to: &mut BTreeMap<&'static str, Vec<Encoded>>,
        name: &'static str,
        encoded: Vec<Encoded>,
    ) -> usize {
        let count = encoded.len();
        to.entry(name).or_default().extend(encoded);
        count
    }

    /// An element that is no service's.
    pub(super) fn add_encoded(&mut self, set: &'static str, encoded: Vec<Encoded>) {
        self.elements += Self::encode(&mut self.added, set, encoded);
    }

    /// The same, which goes.
    pub(super) fn delete_encoded(&mut self, set: &'static str, encoded: Vec<Encoded>) {
        self.elements += Self::encode(&mut self.deleted, set, encoded);
    }

    /// Clients are to be forgotten, where that keeps nothing else from being done.
    pub(super) fn forget(&mut self, clients: impl Iterator<Item = Encoded>) {
        let before = self.clients.len();
        self.clients.extend(clients);
        self.elements += self.clients.len() - before;
    }

    /// Elements that mean nothing are to go from a set, before any others come.
    pub(super) fn purge(&mut self, set: String, elements: Vec<Encoded>) {
        self.elements += elements.len();
        self.purged.push((set, elements));
    }

    /// Whether the next service should come with another one.
    pub(super) const fn is_full(&self) -> bool {
        self.elements >= MOST_ELEMENTS
    }

    fn is_empty(&self) -> bool {
        let chains = [&self.chains, &self.new_chains];
        self.elements == 0 && chains.iter().all(|it| it.is_empty()) && self.unchained.is_empty()
    }

    /// Makes all of it, or nothing, after `before`, and is empty then. In a table that is there new chains come by a
    /// transaction of their own, ahead: a packet that came to a chain of the kernel's before a commit finds the elements of
    /// that commit, and the chains that they lead to as they were before, empty (`nft_do_chain` reads the generation once,
    /// each look-up in a set reads it again).
    pub(super) fn commit(
        &mut self,
        client: &mut Client,
        table: Table<'_>,
        before: &[Change<'_>],
    ) -> Result<Written, Error> {
        if self.is_empty() && before.is_empty() {
            return Ok(Written::default());
        }
        let mut new_chains = std::mem::take(&mut self.new_chains);
        let mut written = Written::default();
        if before.is_empty() && self.elements > 0 && !new_chains.is_empty() {
            let mut ahead = Self { chains: std::mem::take(&mut new_chains), ..Self::default() };
            written += ahead.commit(client, table, before)?;
        }
        self.chains.append(&mut new_chains);
        let Self { chains, purged, deleted, added, unchained, clients, .. } = &*self;
        let mut batch = Batch::default();
        let mut push = |change: Change<'_>| batch.push(table, &change);
        before.iter().for_each(|it| push(*it));
        // Rules may lead to chains that come after theirs.
        for name in chains.keys() {
            push(Change::Chain(&chain(name)));
            push(Change::Empty(name));
        }
        for (name, rules) in chains {
            rules.iter().for_each(|rule| push(Change::Rule(name, rule)));
        }
        if !clients.is_empty() {
            push(Change::DeleteElements(AFFINITY, clients));
        }
        purged.iter().for_each(|(set, elements)| push(Change::DeleteElements(set, elements)));
        deleted.iter().for_each(|(set, elements)| push(Change::DeleteElements(set, elements)));
        added.iter().for_each(|(set, elements)| push(Change::Elements(set, elements)));
        unchained.iter().for_each(|name| push(Change::Empty(name)));
        unchained.iter().for_each(|name| push(Change::DeleteChain(name)));
        let count = |of: &BTreeMap<_, Vec<Encoded>>| of.values().map(Vec::len).sum();
        let purged: usize = purged.iter().map(|(_, it)| it.len()).sum();
        let deleted = count(deleted) + purged + clients.len();
        let this = Written { transactions: 1, added: count(added), deleted };
        match client.commit(&batch, &format!("write services to table {table}")) {
            // A client's time has come while others were changing rules.
            Err(error) if error.errno() == Some(Errno::ENOENT) && !self.clients.is_empty() => {
                self.elements -= std::mem::take(&mut self.clients).len();
                written += self.commit(client, table, before)?;
                return Ok(written);
            }
            done => done?,
        }
        *self = Self::default();
        written += this;
        Ok(written)
    }
}

/// What a rule is known by: a hash of its text.
pub(crate) fn hash(rule: &Rule) -> String {
    short_hash(&rule.to_string())
}
