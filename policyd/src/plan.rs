//! What a node enforces, as values: free of the words of any backend.
//!
//! An [`Endpoint`] is a pod of this node. It leads, for each direction in which it is isolated, to
//! the [`PolicyChain`]s of its policies; their rules look into sets of addresses, which are shared
//! by all rules with the same [`SetKey`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::model::{Direction, NamespacedName, Protocol, Selector};

mod compile;
mod verdict;

pub use compile::compile;
pub use verdict::{Lookup, allows};

/// A pod of this node, or another container that podwire attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// What people call it: `namespace/name`.
    pub label: String,
    /// Its addresses, without those that have passed to another endpoint.
    pub addresses: BTreeSet<IpAddr>,
    /// The host's end of its link, where that is known.
    pub interface: Option<HostInterface>,
    /// The policies that isolate it for traffic to it; `None`: none does.
    pub ingress: Option<BTreeSet<ChainKey>>,
    /// The policies that isolate it for traffic from it; `None`: none does.
    pub egress: Option<BTreeSet<ChainKey>>,
}

impl Endpoint {
    /// The policies that isolate it in this direction.
    #[must_use]
    pub const fn isolation(&self, direction: Direction) -> Option<&BTreeSet<ChainKey>> {
        match direction {
            Direction::Ingress => self.ingress.as_ref(),
            Direction::Egress => self.egress.as_ref(),
        }
    }

    /// The port of a bridge that it is behind, if that is known.
    #[must_use]
    pub fn port(&self) -> Option<&str> {
        self.interface.as_ref().and_then(HostInterface::port)
    }

    /// Whether policies isolate it in any direction.
    #[must_use]
    pub const fn is_isolated(&self) -> bool {
        self.ingress.is_some() || self.egress.is_some()
    }
}

/// The host's end of a pod's link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostInterface {
    /// Its name.
    pub name: String,
    /// The bridge that it is a port of; `None` where the pod's traffic is routed.
    pub bridge: Option<String>,
}

impl HostInterface {
    /// Its name, if it is a port of a bridge.
    #[must_use]
    pub fn port(&self) -> Option<&str> {
        self.bridge.as_ref().map(|_| self.name.as_str())
    }

    /// The link that the node routes by: of a port, the bridge.
    #[must_use]
    pub fn routed_by(&self) -> &str {
        self.bridge.as_ref().unwrap_or(&self.name)
    }
}

/// Which chain a policy's rules for one direction are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainKey {
    /// Its name.
    pub policy: NamespacedName,
    /// Its uid.
    pub uid: String,
    /// The direction.
    pub direction: Direction,
}

/// What a policy allows in one direction: whatever one of the rules allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyChain {
    /// The rules.
    pub rules: Vec<AllowRule>,
}

/// Allows what matches both.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AllowRule {
    /// Which entry of the policy's `ingress` or `egress` it comes from.
    pub entry: usize,
    /// The other end.
    pub peer: PeerMatch,
    /// The port of the destination.
    pub port: PortMatch,
}

/// Who the other end is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerMatch {
    /// Anybody.
    Any,
    /// Somebody in this network.
    Network(IpNetwork),
    /// Somebody whose address is in this set.
    Set(SetKey),
}

/// What traffic it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortMatch {
    /// Any, also of protocols without ports.
    Any,
    /// All of a protocol.
    Protocol(Protocol),
    /// To ports of a protocol: from the first to the last, both included.
    Ports(Protocol, BTreeSet<(u16, u16)>),
    /// To a port that is, with the destination's address, in this set.
    Named(SetKey),
}

/// What a set holds, and so which set it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetKey {
    /// The addresses of pods.
    Pods {
        /// The namespaces.
        namespaces: NamespaceScope,
        /// Which of their pods.
        pods: Selector,
    },
    /// These networks.
    Networks(BTreeSet<IpNetwork>),
    /// The addresses and ports of pods that give a port this name.
    NamedPort {
        /// The name.
        name: String,
        /// The port's protocol.
        protocol: Protocol,
        /// For rules of ingress the pods of this node, else all.
        direction: Direction,
    },
}

impl SetKey {
    /// A text that is the same for equal keys only.
    #[must_use]
    pub fn canonical(&self) -> String {
        // All that it is made of is ordered.
        format!("{self:?}")
    }
}

/// The namespaces of a peer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceScope {
    /// The policy's own.
    Named(String),
    /// Those that are selected.
    Selected(Selector),
}

/// A member of a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// Of [`SetKey::Pods`].
    Address(IpAddr),
    /// Of [`SetKey::Networks`].
    Network(IpNetwork),
    /// Of [`SetKey::NamedPort`].
    AddressPort(IpAddr, Protocol, u16),
}

/// All that the node enforces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The endpoints, by key: the pod's uid, or what the container is called.
    pub endpoints: BTreeMap<String, Endpoint>,
    /// The chains that endpoints lead to.
    pub chains: BTreeMap<ChainKey, PolicyChain>,
    /// The sets that rules look into, with their members.
    pub sets: BTreeMap<SetKey, BTreeSet<Member>>,
}

impl Lookup for Plan {
    fn endpoint_at(&self, address: IpAddr) -> Option<&Endpoint> {
        self.endpoints.values().find(|endpoint| endpoint.addresses.contains(&address))
    }

    fn chain(&self, key: &ChainKey) -> Option<&PolicyChain> {
        self.chains.get(key)
    }

    fn has_member(&self, set: &SetKey, member: &Member) -> bool {
        self.sets.get(set).is_some_and(|members| members.contains(member))
    }
}

/// What became of a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Endpoints that are otherwise than before; `None`: gone.
    pub endpoints: BTreeMap<String, Option<Endpoint>>,
    /// Chains that are otherwise than before; `None`: gone.
    pub chains: BTreeMap<ChainKey, Option<PolicyChain>>,
    /// Sets that are otherwise than before.
    pub sets: BTreeMap<SetKey, SetChange>,
}

impl Changes {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty() && self.chains.is_empty() && self.sets.is_empty()
    }

    /// Whether rules change, and not just sets.
    #[must_use]
    pub fn touch_rules(&self) -> bool {
        !self.endpoints.is_empty() || !self.chains.is_empty()
    }
}

/// What became of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetChange {
    /// It is new, with these members.
    Created(BTreeSet<Member>),
    /// Members came (`true`) and went (`false`).
    Members(BTreeMap<Member, bool>),
    /// No rule looks into it any more.
    Removed,
}

impl Plan {
    /// What the plan is after the changes.
    pub fn apply(&mut self, changes: Changes) {
        for (key, endpoint) in changes.endpoints {
            match endpoint {
                Some(endpoint) => _ = self.endpoints.insert(key, endpoint),
                None => _ = self.endpoints.remove(&key),
            }
        }
        for (key, chain) in changes.chains {
            match chain {
                Some(chain) => _ = self.chains.insert(key, chain),
                None => _ = self.chains.remove(&key),
            }
        }
        for (key, change) in changes.sets {
            match change {
                SetChange::Created(members) => _ = self.sets.insert(key, members),
                SetChange::Removed => _ = self.sets.remove(&key),
                SetChange::Members(changes) => {
                    let members = self.sets.entry(key).or_default();
                    for (member, came) in changes {
                        if came {
                            members.insert(member)
                        } else {
                            members.remove(&member)
                        };
                    }
                }
            }
        }
    }
}
