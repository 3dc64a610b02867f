//! The change of a table, in the order in which the kernel can make it.

use std::collections::BTreeSet;

use netlink::nftables::{Batch, Change, Client};
use nix::errno::Errno;
use ruleset::nft::{Encoded, Set, Table};
use ruleset::steps::{Step, steps};

use super::Error;
use crate::nftables::{Marks, RuleChain, mark_of};

/// For those who list the rules of a node.
const COMMENT: &str = "NetworkPolicies, by policyd";
/// What is tried, for who reads of a refusal.
const WHAT: &str = "write the rules of policies to nf_tables";
/// A chain of no more rules is written anew: that costs less than to ask which rules it has.
const SHORT: usize = 16;

/// What is changed of a table.
#[derive(Debug)]
pub(super) struct Transaction {
    table: Table<'static>,
    /// Whether the table is made anew: then all that comes must come at once.
    is_making: bool,
    /// Sets that rules will look into, and what comes to those that there are: a new rule may meet a packet before
    /// its set is all there (`nft_set_commit_update` is the last that a transaction does).
    growing: Batch,
    /// The chains that maps and rules may lead to.
    heads: Batch,
    elements: Batch,
    rules: Batch,
    /// What goes once all else is there: a packet that meets the rules of before may look for it until then.
    going: Batch,
    /// Long chains of which some rules change, with what is held of them.
    changed: Vec<(RuleChain, Marks)>,
    emptied: Batch,
    removed: BTreeSet<String>,
    removed_sets: BTreeSet<String>,
}

/// What should have gone and stays: a rule of somebody else leads there or, before Linux 6.2, an element
/// that has just been deleted.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub(super) chains: BTreeSet<String>,
    pub(super) sets: BTreeSet<String>,
}

impl Transaction {
    /// Of a table that is there.
    pub(super) fn new(table: Table<'static>) -> Self {
        Self {
            table,
            is_making: false,
            growing: Batch::default(),
            heads: Batch::default(),
            elements: Batch::default(),
            rules: Batch::default(),
            going: Batch::default(),
            changed: Vec::new(),
            emptied: Batch::default(),
            removed: BTreeSet::new(),
            removed_sets: BTreeSet::new(),
        }
    }

    /// Of a table that is made where there is none: its sets may be filled before there is a rule.
    pub(super) fn of_new(table: Table<'static>) -> Self {
        let mut transaction = Self::new(table);
        transaction.growing.push(table, &Change::Table(Some(COMMENT)));
        transaction
    }

    /// Of a table that is made, in place of whatever has its name.
    pub(super) fn making(table: Table<'static>) -> Self {
        let mut transaction = Self { is_making: true, ..Self::removing(table) };
        transaction.growing.push(table, &Change::Table(Some(COMMENT)));
        transaction
    }

    /// Removes a table, which may be there.
    pub(super) fn removing(table: Table<'static>) -> Self {
        let mut transaction = Self::new(table);
        // Once made it can be deleted.
        transaction.growing.push(table, &Change::Table(None));
        transaction.growing.push(table, &Change::DeleteAll);
        transaction
    }

    pub(super) fn make_set(&mut self, set: &Set) {
        self.growing.push(self.table, &Change::Set(set));
    }

    pub(super) fn empty_set(&mut self, set: &str) {
        self.growing.push(self.table, &Change::EmptySet(set));
    }

    pub(super) fn add(&mut self, set: &str, elements: &[Encoded]) {
        self.growing.push(self.table, &Change::Elements(set, elements));
    }

    /// Changes what leads to the chains of endpoints, together with those.
    pub(super) fn change_dispatch(&mut self, set: &str, gone: &[Encoded], come: &[Encoded]) {
        self.elements.push(self.table, &Change::DeleteElements(set, gone));
        self.elements.push(self.table, &Change::Elements(set, come));
    }

    pub(super) fn delete(&mut self, set: &str, elements: &[Encoded]) {
        self.going.push(self.table, &Change::DeleteElements(set, elements));
    }

    pub(super) fn remove_set(&mut self, set: String) {
        self.removed_sets.insert(set);
    }

    /// Makes a chain that is not there.
    pub(super) fn create(&mut self, chain: &RuleChain) {
        self.heads.push(self.table, &Change::Chain(&chain.head()));
        self.append(chain, 0);
    }

    /// Changes a chain that holds other rules.
    pub(super) fn change(&mut self, chain: RuleChain, held: &Marks) {
        let wanted = chain.marks();
        if wanted.starts_with(held) {
            self.append(&chain, held.len());
        } else if wanted.len() <= SHORT {
            self.rules.push(self.table, &Change::Empty(&chain.name));
            self.append(&chain, 0);
        } else {
            self.changed.push((chain, held.clone()));
        }
    }

    fn append(&mut self, chain: &RuleChain, from: usize) {
        for rule in chain.rules.iter().skip(from) {
            self.rules.push(self.table, &Change::Rule(&chain.name, rule));
        }
    }

    /// Removes a chain.
    pub(super) fn remove(&mut self, chain: String) {
        // Chains that are removed may lead to each other: all are emptied first.
        self.emptied.push(self.table, &Change::Empty(&chain));
        self.removed.insert(chain);
    }

    /// Of long chains only those rules are changed that differ, which takes the handles by which the kernel
    /// knows them.
    fn compare(&mut self, client: &mut Client) -> Result<(), Error> {
        for (chain, held) in std::mem::take(&mut self.changed) {
            let rules = client.rules(self.table, &chain.name)?;
            let marks = rules.iter().map(|it| it.comment.as_deref().and_then(mark_of));
            let marks: Marks = marks.collect();
            if marks != held {
                return Err(Error::ChainChanged { chain: chain.name });
            }
            let handles: Vec<_> = rules.iter().map(|it| it.handle).collect();
            self.edit(&chain, &held, &handles);
        }
        Ok(())
    }

    fn edit(&mut self, chain: &RuleChain, held: &Marks, handles: &[u64]) {
        let steps = steps(held, &chain.marks());
        // What comes stands before the next rule that stays: one that goes is none to stand by.
        let mut before = vec![None; steps.len()];
        let (mut next, mut place) = (None, handles.len());
        for (before, step) in before.iter_mut().zip(&steps).rev() {
            *before = next;
            if *step != Step::Insert {
                place = place.saturating_sub(1);
            }
            if *step == Step::Keep {
                next = handles.get(place).copied();
            }
        }
        let (mut handles, mut wanted) = (handles.iter(), chain.rules.iter());
        for (step, before) in steps.into_iter().zip(before) {
            match step {
                Step::Keep => _ = (handles.next(), wanted.next()),
                Step::Delete => {
                    let Some(handle) = handles.next() else { continue };
                    self.rules.push(self.table, &Change::DeleteRule(&chain.name, *handle));
                }
                Step::Insert => {
                    let Some(rule) = wanted.next() else { continue };
                    let change = match before {
                        Some(next) => Change::RuleBefore(&chain.name, next, rule),
                        None => Change::Rule(&chain.name, rule),
                    };
                    self.rules.push(self.table, &change);
                }
            }
        }
    }

    fn append_coming_to(&self, batch: &mut Batch) {
        for part in [&self.heads, &self.elements, &self.rules] {
            batch.append(part);
        }
    }

    /// All that goes; or without removing chains and sets.
    fn append_going_to(&self, batch: &mut Batch, removes: bool) {
        batch.append(&self.going);
        batch.append(&self.emptied);
        if removes {
            // Maps lead to chains.
            self.removed_sets.iter().for_each(|it| batch.push(self.table, &Change::DeleteSet(it)));
            self.removed.iter().for_each(|it| batch.push(self.table, &Change::DeleteChain(it)));
        }
    }
}

/// Makes the changes of all tables: what grows, what comes, and what goes; of each table, what is left that should
/// have gone.
pub(super) fn commit(
    client: &mut Client,
    mut transactions: Vec<Transaction>,
) -> Result<Vec<Left>, Error> {
    let mut coming = Batch::default();
    transactions.iter().for_each(|it| coming.append(&it.growing));
    if !transactions.iter().any(|it| it.is_making) {
        client.commit(&std::mem::take(&mut coming), WHAT)?;
    }
    for transaction in &mut transactions {
        transaction.compare(client)?;
        transaction.append_coming_to(&mut coming);
    }
    client.commit(&coming, WHAT)?;
    let going = |removes| {
        let mut batch = Batch::default();
        transactions.iter().for_each(|it| it.append_going_to(&mut batch, removes));
        batch
    };
    match client.commit(&going(true), WHAT) {
        Err(error) if error.errno() == Some(Errno::EBUSY) => {}
        Err(error) => {
            // What keeps a chain from going must not let pass what an element that goes lets pass.
            let mut elements = Batch::default();
            transactions.iter().for_each(|it| elements.append(&it.going));
            client.commit(&elements, WHAT)?;
            return Err(error.into());
        }
        done => {
            done?;
            return Ok(transactions.iter().map(|_| Left::default()).collect());
        }
    }
    client.commit(&going(false), WHAT)?;
    let left = |it: Transaction| Left { chains: it.removed, sets: it.removed_sets };
    Ok(transactions.into_iter().map(left).collect())
}
