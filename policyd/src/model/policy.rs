//! NetworkPolicies, compiled.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};

use super::error::{Defect, Problem};
use super::{Error, IpBlock, NamespacedName, Pod, Port, PortNumber, Selector};

/// More combinations of a peer and ports than an object of one policy's size should have: each is a rule of
/// its own, and a packet is compared with one after the other.
const MOST_COMBINATIONS: usize = 4096;
/// More networks than address blocks of a policy should be: the kernel holds each by itself.
const MOST_NETWORKS: usize = 1 << 17;
/// So many ranges of ports are compared at once at least.
const RANGES_OF_A_RULE: usize = 7;

/// A direction of traffic, as seen from the pod whose policies are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

/// A NetworkPolicy with all defaults filled in.
///
/// One that is wrong somewhere is still one: it isolates, and what is wrong allows nothing. So it
/// cannot be lost by handling an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Namespace and name.
    pub name: NamespacedName,
    /// `metadata.uid`.
    pub uid: String,
    /// Which pods of its namespace it isolates. Where a part of `podSelector` is wrong, all those
    /// that the rest selects, and all rules are [`Rule::Unusable`]: they may not be theirs.
    pub pod_selector: Selector,
    /// Whether it isolates them for traffic to them, and what it then allows.
    pub ingress: Option<Vec<Rule>>,
    /// Whether it isolates them for traffic from them, and what it then allows.
    pub egress: Option<Vec<Rule>>,
    /// What is wrong with the object; of each rule, the first thing.
    pub problems: Vec<Error>,
}

/// An entry of `ingress` or `egress`, at the same index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// It allows traffic with one of the peers on one of the ports.
    Allow {
        /// `from` or `to`.
        peers: Peers,
        /// `ports`.
        ports: Ports,
    },
    /// Something in it is wrong (see [`Policy::problems`]): it allows nothing.
    Unusable,
}

/// The other ends that a rule allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peers {
    /// Absent or empty: everybody, outside of the cluster too.
    Any,
    /// Any of these.
    AnyOf(Vec<Peer>),
}

/// The ports that a rule allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// Absent or empty: every port, and every protocol, those without ports too.
    Any,
    /// Any of these.
    AnyOf(Vec<Port>),
}

/// An entry of `from` or `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// The pods of these namespaces that are selected.
    Pods {
        /// Which namespaces; `None`: the policy's own.
        namespaces: Option<Selector>,
        /// Which of their pods.
        pods: Selector,
    },
    /// A block of addresses.
    IpBlock(IpBlock),
}

impl Policy {
    /// What the policy allows the pods that it selects; `None`: it does not isolate them in this
    /// direction.
    #[must_use]
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    /// Whether the policy is one of its namespace and selects it.
    #[must_use]
    pub fn selects(&self, pod: &Pod) -> bool {
        self.name.namespace == pod.name.namespace && self.pod_selector.matches(&pod.labels)
    }
}

impl From<&NetworkPolicy> for Policy {
    fn from(object: &NetworkPolicy) -> Self {
        let name = NamespacedName::from(&object.metadata);
        let spec = object.spec.clone().unwrap_or_default();
        let selector = spec.pod_selector.clone().unwrap_or_default();
        let (pod_selector, defects) = Selector::widest(&selector);
        let selector_is_whole = defects.is_empty();
        let mut defects: Vec<_> =
            defects.into_iter().map(|defect| defect.within("spec.podSelector")).collect();

        let (isolates_ingress, isolates_egress) = directions(&spec, &mut defects);
        let ingress = spec.ingress.iter().flatten();
        let ingress = ingress.map(|rule| (rule.from.as_deref(), rule.ports.as_deref()));
        let mut ingress = rules(("ingress", "from"), ingress, &mut defects);
        let egress = spec.egress.iter().flatten();
        let egress = egress.map(|rule| (rule.to.as_deref(), rule.ports.as_deref()));
        let mut egress = rules(("egress", "to"), egress, &mut defects);
        if !selector_is_whole {
            ingress.fill(Rule::Unusable);
            egress.fill(Rule::Unusable);
        }
        Self {
            uid: object.metadata.uid.clone().unwrap_or_default(),
            pod_selector,
            ingress: isolates_ingress.then_some(ingress),
            egress: isolates_egress.then_some(egress),
            problems: defects.into_iter().map(|it| it.of("NetworkPolicy", &name)).collect(),
            name,
        }
    }
}

/// Whether ingress and egress are isolated. The default, when `policyTypes` names neither: always
/// ingress, and egress when there are rules for it.
fn directions(spec: &NetworkPolicySpec, defects: &mut Vec<Defect>) -> (bool, bool) {
    let (mut ingress, mut egress) = (false, false);
    for (index, text) in spec.policy_types.iter().flatten().enumerate() {
        match text.as_str() {
            "Ingress" => ingress = true,
            "Egress" => egress = true,
            _ => {
                let problem = Problem::PolicyType(text.clone());
                defects.push(Defect::new(format!("spec.policyTypes[{index}]"), problem));
            }
        }
    }
    if ingress || egress {
        return (ingress, egress);
    }
    (true, spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()))
}

/// The rules of one direction: of each its peers, which are in field `peer_field`, and its ports.
fn rules<'a>(
    (field, peer_field): (&str, &str),
    raw: impl Iterator<Item = (Option<&'a [NetworkPolicyPeer]>, Option<&'a [NetworkPolicyPort]>)>,
    defects: &mut Vec<Defect>,
) -> Vec<Rule> {
    let all = raw.enumerate().map(|(index, (raw_peers, raw_ports))| {
        let peers = peers(raw_peers, peer_field);
        usable(peers, raw_ports, &format!("spec.{field}[{index}]"), defects)
    });
    let rules = all.collect();
    bounded(&format!("spec.{field}"), rules, defects)
}

/// The rules, if they are not too many for a node: who may write a policy may not stop all others.
fn bounded(path: &str, rules: Vec<Rule>, defects: &mut Vec<Defect>) -> Vec<Rule> {
    let combinations = rules.iter().map(Rule::combinations).fold(0, usize::saturating_add);
    let networks = rules.iter().flat_map(Rule::blocks).flat_map(IpBlock::networks);
    let problem = if combinations > MOST_COMBINATIONS {
        Problem::TooManyCombinations { found: combinations, most: MOST_COMBINATIONS }
    } else if networks.take(MOST_NETWORKS + 1).count() > MOST_NETWORKS {
        Problem::TooManyNetworks { most: MOST_NETWORKS }
    } else {
        return rules;
    };
    defects.push(Defect::new(path, problem));
    vec![Rule::Unusable; rules.len()]
}

impl Rule {
    fn blocks(&self) -> impl Iterator<Item = &IpBlock> {
        let peers = match self {
            Self::Allow { peers: Peers::AnyOf(peers), .. } => peers.as_slice(),
            Self::Allow { peers: Peers::Any, .. } | Self::Unusable => &[],
        };
        peers.iter().filter_map(|peer| match peer {
            Peer::IpBlock(block) => Some(block),
            Peer::Pods { .. } => None,
        })
    }

    /// How many rules of a chain it is at most.
    fn combinations(&self) -> usize {
        let Self::Allow { peers, ports } = self else { return 0 };
        let peers = match peers {
            Peers::Any => 1,
            // All its blocks of a family are one.
            Peers::AnyOf(peers) => {
                let blocks = self.blocks().count();
                peers.len() - blocks + blocks.min(2)
            }
        };
        let ports = match ports {
            Ports::Any => 1,
            Ports::AnyOf(ports) => {
                let (mut named, mut numbered) = (0_usize, BTreeMap::<_, usize>::new());
                for Port { protocol, number } in ports {
                    match number {
                        PortNumber::Named(_) => named += 1,
                        _ => *numbered.entry(protocol).or_default() += 1,
                    }
                }
                named + numbered.values().map(|it| it.div_ceil(RANGES_OF_A_RULE)).sum::<usize>()
            }
        };
        peers.saturating_mul(ports)
    }
}

fn usable(
    peers: Result<Peers, Vec<Defect>>,
    raw_ports: Option<&[NetworkPolicyPort]>,
    path: &str,
    defects: &mut Vec<Defect>,
) -> Rule {
    match (peers, ports(raw_ports)) {
        (Ok(peers), Ok(ports)) => Rule::Allow { peers, ports },
        (peers, ports) => {
            let wrong = [peers.err(), ports.err()].into_iter().flatten().flatten();
            defects.extend(wrong.map(|defect| defect.within(path)));
            Rule::Unusable
        }
    }
}

fn peers(raw: Option<&[NetworkPolicyPeer]>, field: &str) -> Result<Peers, Vec<Defect>> {
    let raw = raw.unwrap_or_default();
    if raw.is_empty() {
        return Ok(Peers::Any);
    }
    entries(raw, field, Peer::compile).map(Peers::AnyOf)
}

fn ports(raw: Option<&[NetworkPolicyPort]>) -> Result<Ports, Vec<Defect>> {
    let raw = raw.unwrap_or_default();
    if raw.is_empty() {
        return Ok(Ports::Any);
    }
    entries(raw, "ports", Port::compile).map(Ports::AnyOf)
}

/// What the entries of a list mean; where some are wrong, what is so in each of them.
fn entries<Raw, Entry>(
    raw: &[Raw],
    field: &str,
    compile: impl Fn(&Raw) -> Result<Entry, Defect>,
) -> Result<Vec<Entry>, Vec<Defect>> {
    let (mut good, mut wrong) = (Vec::new(), Vec::new());
    for (index, raw) in raw.iter().enumerate() {
        match compile(raw) {
            Ok(entry) => good.push(entry),
            Err(defect) => wrong.push(defect.within(&format!("{field}[{index}]"))),
        }
    }
    if wrong.is_empty() { Ok(good) } else { Err(wrong) }
}

impl Peer {
    pub(super) fn compile(peer: &NetworkPolicyPeer) -> Result<Self, Defect> {
        let NetworkPolicyPeer { ip_block, namespace_selector, pod_selector } = peer;
        match (ip_block, namespace_selector, pod_selector) {
            (None, None, None) => Err(Defect::new("", Problem::PeerEmpty)),
            (Some(block), None, None) => IpBlock::compile(block)
                .map(Self::IpBlock)
                .map_err(|defect| defect.within("ipBlock")),
            (Some(_), ..) => Err(Defect::new("", Problem::PeerMixed)),
            (None, namespaces, pods) => {
                let namespaces = namespaces.as_ref().map(Selector::compile).transpose();
                let pods = pods.as_ref().map(Selector::compile).transpose();
                Ok(Self::Pods {
                    namespaces: namespaces.map_err(|defect| defect.within("namespaceSelector"))?,
                    pods: pods.map_err(|defect| defect.within("podSelector"))?.unwrap_or_default(),
                })
            }
        }
    }
}
