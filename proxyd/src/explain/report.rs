//! The answer, as a value.

use serde::Serialize;

/// What becomes of connections to a place, and why. Its `Display` is for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Who connects.
    pub from: String,
    /// To what.
    pub to: String,
    /// The answer.
    pub outcome: Outcome,
    /// The Service that has the address.
    pub service: Option<ServiceReport>,
    /// The answer by who connects; those who fare alike are together.
    pub ways: Vec<WayReport>,
    /// The endpoints of the Service's port, the first of them, those that get connections ahead.
    pub endpoints: Vec<EndpointReport>,
    /// How many more there are.
    pub endpoints_left_out: usize,
    /// What is special about the place, or who connects.
    pub notes: Vec<String>,
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The connection goes to an endpoint.
    Led,
    /// The client is told that nobody is there.
    Refused,
    /// Nothing is answered.
    Dropped,
    /// It is none of proxyd's: the packet goes on as it is.
    LeftAlone,
    /// It depends on who connects.
    Depends,
}

/// The Service that has an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceReport {
    /// Namespace and name.
    pub service: String,
    /// Its port, by name where it has one, and by number; `None`: it has no such port.
    pub port: Option<String>,
    /// What the address is to it.
    pub kind: String,
    /// What of it shapes the answer: policies, ranges, affinity.
    pub settings: Vec<String>,
}

/// The answer for some who connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WayReport {
    /// They.
    pub from: Vec<String>,
    /// The answer.
    pub outcome: Outcome,
    /// Where to, or why not.
    pub reason: String,
    /// How many endpoints it may be.
    pub endpoints: usize,
    /// Whether the endpoint sees an address of the node instead of the client's.
    pub is_masqueraded: bool,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointReport {
    /// Its address and port.
    pub address: String,
    /// The node that it is on, where that is told.
    pub node: Option<String>,
    /// What is told of it.
    pub state: String,
    /// Whose connections may come to it; nobody's where it is empty.
    pub from: Vec<String>,
}

impl Outcome {
    pub(super) fn of_all(ways: &[WayReport]) -> Self {
        let mut outcomes = ways.iter().map(|it| it.outcome);
        let first = outcomes.next().unwrap_or(Self::LeftAlone);
        if outcomes.all(|it| it == first) { first } else { Self::Depends }
    }
}

impl WayReport {
    /// Whether both tell the same of others.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let Self { from: _, outcome, reason, endpoints, is_masqueraded } = self;
        (outcome, reason, endpoints, is_masqueraded)
            == (&other.outcome, &other.reason, &other.endpoints, &other.is_masqueraded)
    }
}
