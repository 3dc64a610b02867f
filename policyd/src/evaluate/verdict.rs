//! What is answered, and why.

use crate::model::{Direction, NamespacedName};

/// Whether a packet is allowed, for each direction on its own: the node of the sending pod decides
/// the one, the node of the receiving pod the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Out of the pod that sends it.
    pub egress: Decision,
    /// In to the pod that it is for.
    pub ingress: Decision,
}

impl Verdict {
    /// Whether both directions allow it.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.egress.is_allowed() && self.ingress.is_allowed()
    }

    /// What was decided for one direction.
    #[must_use]
    pub const fn decision(&self, direction: Direction) -> &Decision {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// What was decided for one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Allowed: policy does not speak of such packets.
    Exempt(Exemption),
    /// Allowed: no policy isolates the pod in this direction.
    NotIsolated {
        /// The pod whose policies were asked.
        subject: NamespacedName,
    },
    /// Policies isolate the pod: allowed when a rule of one of them matched.
    Isolated {
        /// The pod whose policies were asked.
        subject: NamespacedName,
        /// All that isolate it in this direction, by name; at least one.
        policies: Vec<PolicyOutcome>,
    },
}

impl Decision {
    /// Whether this direction allows the packet.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        match self {
            Self::Exempt(_) | Self::NotIsolated { .. } => true,
            Self::Isolated { policies, .. } => policies.iter().any(PolicyOutcome::is_allowed),
        }
    }
}

/// Why policy does not speak of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exemption {
    /// The pod's own packet to itself.
    Itself,
    /// The node on which the pod runs sends it.
    OwnNode,
    /// At this end there is no pod that policy knows by this address.
    NoPod,
}

/// What one policy says of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyOutcome {
    /// The policy.
    pub policy: NamespacedName,
    /// What its rules for this direction say, in their order in the object.
    pub rules: Vec<RuleOutcome>,
}

impl PolicyOutcome {
    /// Whether one of its rules matched.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.rules.iter().any(|rule| matches!(rule, RuleOutcome::Matched { .. }))
    }
}

/// What one rule says of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleOutcome {
    /// It allows it. Where several entries match, the first is told.
    Matched {
        /// The entry of `from` or `to`; `None`: the rule has none, so that all are its peers.
        peer: Option<usize>,
        /// The entry of `ports`; `None`: the rule has none, so that all are its ports.
        port: Option<usize>,
    },
    /// The other end is none of its peers.
    NoPeer,
    /// The other end is one of its peers, but the port is none of its ports.
    NoPort {
        /// The entry of `from` or `to`, as above.
        peer: Option<usize>,
    },
    /// Something in the rule is wrong: it allows nothing.
    Unusable,
}
