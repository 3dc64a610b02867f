//! The plan as tables of nf_tables: what stands where, and why, is told in `docs/policyd.md`. All of it is
//! pure.
//!
//! ```text
//! table inet podwire
//!   prerouting (-300)      iifname . saddr @sources      not the pod's address: drop
//!   forward-from (-150)    a flow that was cut           drop
//!                          of TCP or SCTP, and begins no flow -> PODWIRE-MIDDLE  might be an answer: drop
//!                          saddr vmap @from              accept, or jump PODWIRE-FROM-pod
//!                          an address of the node's pods that has no rules yet     drop (the gate)
//!   forward-to (-149)      daddr vmap @to                accept, or jump PODWIRE-TO-pod
//!                          the gate, as above
//!   input (-150)           as forward-from
//!   PODWIRE-FROM-pod       established                   accept
//!                          jump PODWIRE-EGRESS-policy    none accepts it: drop
//! table bridge podwire-ports, with pods on bridges: the same of their ports, and of what bridges flood
//! ```
//!
//! A verdict of `accept` ends one base chain alone: so egress and ingress have one each, and no mark tells
//! that a policy has allowed a packet.

use std::collections::BTreeSet;

use ruleset::nft::{Base, Chain, Match, Rule, Statement, Verdict};
use ruleset::{Label, short_hash};

mod base;
mod discovery;
mod dispatch;
mod endpoint;
mod policy;
mod ports;
mod sets;

pub use base::{base_chains, gate};
pub(crate) use dispatch::{BY_INTERFACE, is_by_interface};
pub use dispatch::{Elements, dispatch_sets, elements, programmed};
pub use endpoint::{endpoint_chains, policies};
pub use policy::{policy_chain, policy_rules, port_sets};
pub use sets::{members, set};

use crate::iptables::Family;
use crate::plan::Endpoint;

/// The table that packets of IP pass.
pub const TABLE: &str = "podwire";
/// The table that frames on bridges pass.
pub const PORTS_TABLE: &str = "podwire-ports";
/// The prefix of what a rule of ours carries.
const MARKER: &str = "podwire:";

/// Which of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// That of packets.
    Routed,
    /// That of frames on bridges.
    Bridged,
}

impl Layer {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Routed, Self::Bridged];

    /// The table.
    #[must_use]
    pub const fn table(self) -> ruleset::nft::Table<'static> {
        use ruleset::nft::{Family, Table};
        match self {
            Self::Routed => Table { family: Family::Inet, name: TABLE },
            Self::Bridged => Table { family: Family::Bridge, name: PORTS_TABLE },
        }
    }
}

/// What the rules of a chain carry: a hash, but those that are somebody else's.
pub type Marks = Vec<Option<String>>;

/// The families that endpoints have addresses of. Of others there are neither rules nor sets.
pub type Families = BTreeSet<Family>;

/// A chain of ours, with its rules, each of which carries a hash of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleChain {
    /// Its name.
    pub name: String,
    /// Where the kernel calls it.
    pub base: Option<Base<'static>>,
    /// Whom it is for.
    pub comment: Option<String>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

impl RuleChain {
    /// A chain that only rules lead to.
    pub(crate) fn new(name: impl Into<String>, rules: impl IntoIterator<Item = Rule>) -> Self {
        let rules = rules.into_iter().map(|it| known_again(it, None)).collect();
        Self { name: name.into(), base: None, comment: None, rules }
    }

    /// The same, as the kernel is told of it.
    #[must_use]
    pub fn head(&self) -> Chain<'_> {
        Chain { name: &self.name, base: self.base, comment: self.comment.as_deref() }
    }

    /// What its rules carry.
    #[must_use]
    pub fn marks(&self) -> Marks {
        self.rules.iter().map(|it| it.comment.as_deref().and_then(mark_of)).collect()
    }
}

/// The rule with a comment by which it is known again: rules are not read back.
pub(crate) fn known_again(rule: Rule, label: Option<&Label>) -> Rule {
    let word = label.map(|it| format!(" {it}")).unwrap_or_default();
    let hash = short_hash(&format!("{rule}{word}"));
    rule.commented(format!("{MARKER}{hash}{word}"))
}

/// What of a rule's comment tells which rule of ours it is; `None`: it is somebody else's.
#[must_use]
pub fn mark_of(comment: &str) -> Option<String> {
    comment.strip_prefix(MARKER).and_then(|it| it.split(' ').next()).map(str::to_owned)
}

/// What of a comment of ours tells people which entry of a policy the rule is made of, if it is made of one.
pub(crate) fn label_of(comment: &str) -> Option<&str> {
    comment.strip_prefix(MARKER).and_then(|it| it.split_once(' ')).map(|(_, label)| label)
}

/// Those of all families that any of the endpoints has an address of.
pub(crate) fn families<'a>(
    all: &[Family],
    endpoints: impl Iterator<Item = &'a Endpoint>,
) -> Families {
    let addresses = endpoints.flat_map(|it| &it.addresses);
    addresses.map(Family::of).filter(|it| all.contains(it)).collect()
}

pub(crate) fn drop_counted(matches: impl Into<Vec<Match>>) -> Rule {
    Rule::new(matches, Verdict::Drop).counted()
}

fn accept(matches: impl Into<Vec<Match>>) -> Rule {
    Rule::new(matches, Verdict::Accept)
}

pub(crate) fn goto(matches: impl Into<Vec<Match>>, chain: &str) -> Rule {
    Rule::new(matches, Verdict::Goto(chain.to_owned()))
}

fn jump(matches: impl Into<Vec<Match>>, chain: &str) -> Rule {
    Rule::new(matches, Verdict::Jump(chain.to_owned()))
}

fn map(fields: impl Into<Vec<ruleset::nft::Field>>, name: &str) -> Rule {
    Rule::new([], Statement::Map(fields.into(), name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_known_by_what_they_carry_and_those_of_others_are_not() {
        let rule = || drop_counted([]);
        let [bare, labelled] = [None, Some(&Label::new("d/p ingress 0"))]
            .map(|label| known_again(rule(), label).comment.unwrap());
        assert!(mark_of(&bare).is_some_and(|it| !it.is_empty() && mark_of(&labelled) != Some(it)));
        assert_eq!((label_of(&bare), label_of(&labelled)), (None, Some("d/p ingress 0")));
        let hash = mark_of(&bare).unwrap();
        for other in [hash.as_str(), "", "others:x"] {
            assert_eq!((mark_of(other), label_of(other)), (None, None));
        }
    }

    #[test]
    fn what_depends_on_interfaces_is_told_by_its_name() {
        for set in ["sources-4", "bound-6", "links", "ports", "groups"] {
            assert!(is_by_interface(set), "{set}");
        }
        for set in ["from-4", "to-6", "ingress-4", "linksx", "podwire-4-bound"] {
            assert!(!is_by_interface(set), "{set}");
        }
    }
}
