//! The answer, as a value.

use std::net::IpAddr;

use serde::Serialize;

/// Whether traffic is allowed, and why. Its `Display` is for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Who sends.
    pub from: String,
    /// Who is sent to.
    pub to: String,
    /// What is sent.
    pub traffic: String,
    /// The answer.
    pub outcome: Outcome,
    /// The answer for each pair of addresses; those with one and the same are together.
    pub paths: Vec<Path>,
    /// What is special about the ends.
    pub notes: Vec<String>,
    /// What is wrong with the objects that have a part in it.
    pub problems: Vec<String>,
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Allowed.
    Allowed,
    /// Denied.
    Denied,
    /// Allowed on some ports, or between some addresses.
    Partly,
}

/// The answer for pairs of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Path {
    /// The addresses.
    pub addresses: Vec<Pair>,
    /// The answer.
    pub outcome: Outcome,
    /// The ports that are allowed, where [`Outcome::Partly`] is the answer.
    pub open_ports: Vec<String>,
    /// Out of what sends.
    pub egress: Side,
    /// In to what is sent to.
    pub ingress: Side,
}

/// Addresses of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pair {
    /// The source.
    pub source: IpAddr,
    /// The destination.
    pub destination: IpAddr,
}

/// What was decided for one direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// The pod whose policies were asked, if there is one.
    pub subject: Option<String>,
    /// The answer.
    pub outcome: Outcome,
    /// Why, in a sentence.
    pub reason: String,
    /// The policies that isolate the pod.
    pub policies: Vec<PolicyReport>,
}

/// What one policy says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyReport {
    /// Namespace and name.
    pub policy: String,
    /// The answer.
    pub outcome: Outcome,
    /// Its rules for this direction; without any it allows nothing.
    pub rules: Vec<RuleReport>,
}

/// What one rule says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleReport {
    /// Where it is in the object: `spec.ingress[0]`.
    pub path: String,
    /// The answer.
    pub outcome: Outcome,
    /// Which of its entries matched, or why none did.
    pub details: Vec<String>,
}

impl Outcome {
    pub(super) const fn of(is_allowed: bool) -> Self {
        if is_allowed { Self::Allowed } else { Self::Denied }
    }

    pub(super) fn of_all(paths: &[Path]) -> Self {
        let mut outcomes = paths.iter().map(|path| path.outcome);
        let first = outcomes.next().unwrap_or(Self::Denied);
        if outcomes.all(|outcome| outcome == first) { first } else { Self::Partly }
    }
}

impl Path {
    /// Whether both tell the same of other addresses.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let Self { addresses: _, outcome, open_ports, egress, ingress } = self;
        (outcome, open_ports, egress, ingress)
            == (&other.outcome, &other.open_ports, &other.egress, &other.ingress)
    }
}
