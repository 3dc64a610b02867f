//! A chain, and the hashes by which its rules are known again.

use std::fmt;

use super::{Rule, Target};
use crate::name::LENGTH as HASH_LENGTH;
use crate::short_hash;

/// What begins the comments of rules of ours.
pub(super) const MARKER: &str = "podwire:";

/// The hash of a rule's text: what its comment holds, if it has one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleHash(Box<str>);

impl RuleHash {
    /// Of a rule of ours.
    #[must_use]
    pub fn of(rule: &Rule) -> Self {
        let label = rule.label.as_ref().map(ToString::to_string).unwrap_or_default();
        Self(short_hash(&format!("{rule} {label}")).into())
    }

    /// Of a line of `iptables-save` without the name of its chain, which is one of ours; those begin
    /// with `prefix`. `None` when the rule is not ours.
    pub(super) fn of_line_of_ours(line: &str, prefix: &str) -> Option<Self> {
        Self::of_line(line).or_else(|| {
            let target = line.strip_prefix("-j ").filter(|it| it.starts_with(prefix))?;
            Some(Self::of(&Rule::new([], Target::Jump(target.to_owned()))))
        })
    }

    /// The same of any chain. Only what begins a comment counts, and has a hash's length: others may
    /// speak of ours.
    pub(super) fn of_line(line: &str) -> Option<Self> {
        line.split("--comment ").skip(1).find_map(|comment| {
            // A copy that somebody made by a shell has quotes within quotes.
            let rest = comment.trim_start_matches(['"', '\\']).strip_prefix(MARKER)?;
            let end = rest.find(|it: char| !it.is_ascii_alphanumeric()).unwrap_or(rest.len());
            rest.get(..end).filter(|hash| hash.len() == HASH_LENGTH).map(|hash| Self(hash.into()))
        })
    }
}

impl fmt::Display for RuleHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A chain of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name: at most 28 bytes (`XT_EXTENSION_MAXNAMELEN`).
    pub name: String,
    /// Its rules.
    pub rules: Vec<Rule>,
}

impl Chain {
    /// The hashes of its rules.
    #[must_use]
    pub fn hashes(&self) -> Vec<RuleHash> {
        self.rules.iter().map(RuleHash::of).collect()
    }
}

/// A rule of a chain of ours, as `iptables-restore` reads it after the name of the chain. One that only
/// leads to another chain says by that what it is: iptables-nft has the kernel call a match of its own
/// for each comment, which costs a packet more than the jump.
pub(super) struct InChain<'a>(pub(super) &'a Rule, pub(super) &'a RuleHash);

impl fmt::Display for InChain<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(rule, hash) = self;
        if rule.is_bare_jump() && rule.label.is_none() {
            write!(formatter, "{}", rule.target)
        } else {
            write!(formatter, "{}", Commented(rule, hash))
        }
    }
}

/// A rule as `iptables-restore` reads it after the name of a chain, with its hash.
pub(super) struct Commented<'a>(pub(super) &'a Rule, pub(super) &'a RuleHash);

impl fmt::Display for Commented<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(rule, hash) = self;
        for it in &rule.matches {
            write!(formatter, "{it} ")?;
        }
        write!(formatter, "-m comment --comment \"{MARKER}{hash}")?;
        if let Some(label) = &rule.label {
            write!(formatter, " {label}")?;
        }
        write!(formatter, "\" {}", rule.target)
    }
}
