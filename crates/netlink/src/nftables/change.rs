//! Changes of a table.

use ruleset::nft::{Chain, Encoded, Rule, Set, Table};

use super::expression::IptablesRule;
use super::set;
use crate::netfilter::message::Message;

/// A change of a table.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// The table is made, unless it is there; with a comment.
    Table(Option<&'a str>),
    /// The rules of the table, which must be there, are in force from now on. In a transaction of its own: the kernel
    /// refuses chains that it calls after it.
    Wake,
    /// The table goes, which must be empty.
    DeleteTable,
    /// The table goes, which must be there, with all that is in it.
    DeleteAll,
    /// A chain is made, unless it is there.
    Chain(&'a Chain<'a>),
    /// All rules of a chain go.
    Empty(&'a str),
    /// An empty chain goes.
    DeleteChain(&'a str),
    /// A rule comes to the end of a chain.
    Rule(&'a str, &'a Rule),
    /// A rule of iptables comes to the end of a chain.
    IptablesRule(&'a str, &'a IptablesRule),
    /// A rule comes to the beginning of a chain.
    RuleFirst(&'a str, &'a Rule),
    /// A rule comes before the rule of its chain that has this handle.
    RuleBefore(&'a str, u64, &'a Rule),
    /// The rule of a chain that has this handle goes.
    DeleteRule(&'a str, u64),
    /// A set or map is made, unless it is there.
    Set(&'a Set),
    /// A set or map goes, which no rule looks into.
    DeleteSet(&'a str),
    /// All elements of a set or map go.
    EmptySet(&'a str),
    /// Elements come to a set or map; those that are there must be the same.
    Elements(&'a str, &'a [Encoded]),
    /// Elements of a set or map go, which must be there.
    DeleteElements(&'a str, &'a [Encoded]),
}

impl Change<'_> {
    /// Whether something goes.
    pub(super) const fn deletes(&self) -> bool {
        match self {
            Self::DeleteTable
            | Self::DeleteAll
            | Self::Empty(_)
            | Self::DeleteChain(_)
            | Self::DeleteRule(..)
            | Self::DeleteSet(_)
            | Self::EmptySet(_)
            | Self::DeleteElements(..) => true,
            Self::Table(_)
            | Self::Wake
            | Self::Chain(_)
            | Self::Rule(..)
            | Self::IptablesRule(..)
            | Self::RuleFirst(..)
            | Self::RuleBefore(..)
            | Self::Set(_)
            | Self::Elements(..) => false,
        }
    }

    /// What the kernel is told, most often in one message.
    pub(super) fn messages(&self, table: Table<'_>) -> Vec<Message> {
        vec![match *self {
            Self::Table(comment) => Message::new_table(table, comment),
            Self::Wake => Message::wake_table(table),
            Self::DeleteTable => Message::delete_empty_table(table),
            Self::DeleteAll => Message::delete_table(table),
            Self::Chain(chain) => Message::new_chain(table, chain),
            Self::Empty(chain) => Message::empty_chain(table, chain),
            Self::DeleteChain(chain) => Message::delete_chain(table, chain),
            Self::Rule(chain, rule) => Message::add_rule(table, chain, rule),
            Self::IptablesRule(chain, rule) => Message::add_iptables_rule(table, chain, rule),
            Self::RuleFirst(chain, rule) => Message::add_first_rule(table, chain, rule),
            Self::RuleBefore(chain, handle, rule) => {
                Message::insert_rule(table, chain, handle, rule)
            }
            Self::DeleteRule(chain, handle) => Message::delete_rule(table, chain, handle),
            Self::Set(it) => set::new_set(table, it),
            Self::DeleteSet(name) => set::delete_set(table, name),
            Self::EmptySet(name) => set::empty_set(table, name),
            Self::Elements(set, elements) => return set::add_elements(table, set, elements),
            Self::DeleteElements(set, elements) => {
                return set::delete_elements(table, set, elements);
            }
        }]
    }
}
