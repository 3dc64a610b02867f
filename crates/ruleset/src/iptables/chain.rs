//! A chain, and the hashes by which its rules are known again.

use std::fmt;

use super::Rule;
use crate::short_hash;

/// What begins the comment of every rule of ours.
pub(super) const MARKER: &str = "podwire:";

/// The hash of a rule's text: what its comment holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleHash(Box<str>);

impl RuleHash {
    /// Of a rule of ours.
    #[must_use]
    pub fn of(rule: &Rule) -> Self {
        let label = rule.label.as_ref().map(ToString::to_string).unwrap_or_default();
        Self(short_hash(&format!("{rule} {label}")).into())
    }

    /// Of a line of `iptables-save`; `None` when the rule is not ours.
    pub(super) fn of_line(line: &str) -> Option<Self> {
        let (_, comment) = line.split_once(MARKER)?;
        let end = comment.find(|it: char| !it.is_ascii_alphanumeric()).unwrap_or(comment.len());
        comment.get(..end).filter(|hash| !hash.is_empty()).map(|hash| Self(hash.into()))
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

/// A rule as `iptables-restore` reads it after the name of the chain.
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
