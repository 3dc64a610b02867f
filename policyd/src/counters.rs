//! Packets that the kernel dropped, or let through, as counters that only grow.
//!
//! The kernel counts by rule, and a rule that is replaced begins at 0. So what is added here is what
//! a chain's verdict has counted since it was last read. What it counted between that and its
//! replacement is lost, and so is up to as much as it had counted where somebody else replaced it:
//! too little is shown then, never too much.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family;
use prometheus_client::registry::Registry;
use ruleset::iptables::Saved;

use crate::dataplane::Kind;
use crate::iptables::{CHAIN_PREFIX, FORGED, Family, GATE, endpoint_chain_name};
use crate::model::Direction;
use crate::nftables::{Layer, gate};
use crate::plan::{ChainKey, Endpoint, PolicyChain};

mod allowed;
mod reader;
#[cfg(test)]
mod tests;

use allowed::Allowed;
pub use reader::Reader;

type Labels = [(&'static str, String); 3];

/// The counters. Those of pods are of the pods of this node, by namespace, pod and direction.
#[derive(Debug, Default)]
pub struct Counters {
    gate: Counter,
    forged: Counter,
    denied: family::Family<Labels, Counter>,
    state: Mutex<State>,
}

/// Where rules are: chains of one name may be in several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// The tables of iptables, of one family.
    Family(Family),
    /// A table of nf_tables.
    Table(Layer),
}

/// How many packets a rule has seen.
#[derive(Debug)]
struct RuleCounter {
    chain: String,
    /// What tells which rule it is; `None` when it is not ours.
    id: Option<String>,
    packets: u64,
}

#[derive(Debug, Default)]
struct State {
    /// The chains of the node's pods; `None` before the rules are in the kernel.
    chains: Option<BTreeMap<String, Labels>>,
    /// What the last rule of each chain had counted when it was last read.
    last: BTreeMap<(Place, String), u64>,
    /// What interfaces had dropped when it was last read.
    last_at_interfaces: u64,
    allowed: Allowed,
}

impl Counters {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "gate_drops",
            "Packets dropped as an address of the pods' ranges had no rules yet",
            self.gate.clone(),
        );
        registry.register(
            "forged_sources",
            "Packets dropped as their source address is not that of the pod's interface",
            self.forged.clone(),
        );
        registry.register(
            "denied_packets",
            "Packets of a pod of this node that no policy allowed",
            self.denied.clone(),
        );
        registry.register(
            "allowed_packets",
            "Packets that began a flow and that this rule of a policy allowed",
            self.lock().allowed.packets.clone(),
        );
    }

    /// Takes in by which way the rules are written.
    pub(crate) fn know_kind(&self, kind: Kind) {
        self.lock().allowed.kind = Some(kind);
    }

    fn kind(&self) -> Option<Kind> {
        self.lock().allowed.kind
    }

    /// Takes in which pods the node has. The counters of others go.
    pub(crate) fn know_endpoints<'a>(
        &self,
        endpoints: impl Iterator<Item = (&'a String, &'a Endpoint)>,
    ) {
        let (mut chains, mut open) = (BTreeMap::new(), BTreeSet::new());
        for (key, endpoint) in endpoints {
            let (namespace, pod) = endpoint.label.split_once('/').unwrap_or(("", &endpoint.label));
            for (direction, word) in
                [(Direction::Ingress, "ingress"), (Direction::Egress, "egress")]
            {
                let labels = [("namespace", namespace), ("pod", pod), ("direction", word)]
                    .map(|(name, value)| (name, value.to_owned()));
                let chain = endpoint_chain_name(key, direction);
                if endpoint.isolation(direction).is_none() {
                    open.insert(chain.clone());
                }
                chains.insert(chain, labels);
            }
        }
        let mut state = self.lock();
        let stay: BTreeSet<&Labels> = chains.values().collect();
        let gone = state.chains.iter().flat_map(BTreeMap::values).filter(|it| !stay.contains(it));
        gone.for_each(|labels| _ = self.denied.remove(labels));
        // Such a chain goes; should it come back, it begins at 0.
        state.last.retain(|(_, chain), _| !open.contains(chain));
        state.chains = Some(chains);
    }

    /// Takes in all chains that pods of the node lead to. The counters of others go.
    pub(crate) fn know_policies(&self, chains: &BTreeMap<&ChainKey, &PolicyChain>) {
        let mut state = self.lock();
        state.allowed.retain(chains);
        chains.iter().for_each(|(key, chain)| state.allowed.know(key, Some(chain)));
    }

    /// Takes in what became of such chains.
    pub(crate) fn change_policies(&self, changes: &BTreeMap<ChainKey, Option<PolicyChain>>) {
        let mut state = self.lock();
        changes.iter().for_each(|(key, chain)| state.allowed.know(key, chain.as_ref()));
    }

    /// Takes in what `iptables-save --counters` printed of the family.
    fn add_printed(&self, family: Family, text: &str) {
        let counters = Saved::counters(text, CHAIN_PREFIX).map(|it| RuleCounter {
            chain: it.chain.to_owned(),
            id: it.hash.as_ref().map(ToString::to_string),
            packets: it.packets,
        });
        self.add(Place::Family(family), counters);
    }

    /// Takes in what the rules of a place have counted, in their order.
    fn add(&self, place: Place, counters: impl Iterator<Item = RuleCounter>) {
        let mut state = self.lock();
        // The last rule of a chain is its verdict on what nothing before it let pass.
        let mut now = BTreeMap::new();
        for counter in counters {
            state.allowed.add(place, &counter);
            now.insert(counter.chain, counter.packets);
        }
        let mut seen = BTreeMap::new();
        for (chain, packets) in now {
            let labels = state.chains.as_ref().and_then(|chains| chains.get(&chain));
            let is_gate = chain == GATE || Family::ALL.into_iter().any(|it| chain == gate(it));
            if labels.is_none() && !is_gate && chain != FORGED {
                continue;
            }
            let key = (place, chain.clone());
            let last = state.last.get(&key).copied().unwrap_or(0);
            let more = increase(last, packets);
            match labels {
                Some(labels) => _ = self.denied.get_or_create(labels).inc_by(more),
                None if is_gate => _ = self.gate.inc_by(more),
                None => _ = self.forged.inc_by(more),
            }
            seen.insert(key, packets);
        }
        state.last.retain(|(of, _), _| *of != place);
        state.last.extend(seen);
    }

    /// Takes in how many packets interfaces have dropped with others' addresses.
    fn add_at_interfaces(&self, packets: u64) {
        let mut state = self.lock();
        self.forged.inc_by(increase(state.last_at_interfaces, packets));
        state.last_at_interfaces = packets;
    }

    fn is_known(&self) -> bool {
        self.lock().chains.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked left counters that are too low at worst.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much a counter grew. One that is less than it was began anew.
fn increase(last: u64, now: u64) -> u64 {
    now.checked_sub(last).unwrap_or(now)
}
