//! Packets that the kernel dropped, as counters that only grow.
//!
//! The kernel counts by rule, and a rule that is replaced begins at 0. So what is added here is what
//! a chain's verdict has counted since it was last read. What it counted between that and its
//! replacement is lost, and so is up to as much as it had counted where somebody else replaced it:
//! too little is shown then, never too much.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family;
use prometheus_client::registry::Registry;
use ruleset::iptables::Saved;
use runner::Runner;

use crate::chain;
use crate::dataplane::Programs;
use crate::iptables::{CHAIN_PREFIX, FORGED, Family, GATE, endpoint_chain_name};
use crate::model::Direction;
use crate::plan::Endpoint;

/// The kernel is read no more often than this.
const INTERVAL: Duration = Duration::from_secs(15);
/// For so long an answer waits for the kernel; then it shows what was read before.
const PATIENCE: Duration = Duration::from_secs(5);

type Labels = [(&'static str, String); 3];

/// The counters. Those of pods are of the pods of this node, by namespace, pod and direction.
#[derive(Debug, Default)]
pub struct Drops {
    gate: Counter,
    forged: Counter,
    denied: family::Family<Labels, Counter>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The chains of the node's pods; `None` before the rules are in the kernel.
    chains: Option<BTreeMap<String, Labels>>,
    /// What the last rule of each chain had counted when it was last read.
    last: BTreeMap<(Family, String), u64>,
}

impl Drops {
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
    }

    /// Takes in which pods the node has. The counters of others go.
    pub(crate) fn know<'a>(&self, endpoints: impl Iterator<Item = (&'a String, &'a Endpoint)>) {
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

    /// Takes in what `iptables-save --counters` printed of the family.
    fn add(&self, family: Family, text: &str) {
        let mut state = self.lock();
        // The last rule of a chain is its verdict on what nothing before it let pass.
        let now: BTreeMap<_, _> = Saved::counters(text, CHAIN_PREFIX)
            .map(|counter| (counter.chain, counter.packets))
            .collect();
        let mut seen = BTreeMap::new();
        for (chain, packets) in now {
            let labels = state.chains.as_ref().and_then(|chains| chains.get(chain));
            if labels.is_none() && chain != GATE && chain != FORGED {
                continue;
            }
            let key = (family, chain.to_owned());
            let last = state.last.get(&key).copied().unwrap_or(0);
            let more = packets.checked_sub(last).unwrap_or(packets);
            match (chain, labels) {
                (GATE, _) => _ = self.gate.inc_by(more),
                (FORGED, _) => _ = self.forged.inc_by(more),
                (_, Some(labels)) => _ = self.denied.get_or_create(labels).inc_by(more),
                (_, None) => {}
            }
            seen.insert(key, packets);
        }
        state.last.retain(|(of, _), _| *of != family);
        state.last.extend(seen);
    }

    fn is_known(&self) -> bool {
        self.lock().chains.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked left counters that are too low at worst.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the kernel's counters, when they are asked for and not more often than each 15 s.
#[derive(Debug)]
pub struct Reader<R> {
    inner: Arc<tokio::sync::Mutex<Inner<R>>>,
}

#[derive(Debug)]
struct Inner<R> {
    programs: Programs<R>,
    families: Vec<Family>,
    last: Option<Instant>,
}

impl<R: Runner + Send + 'static> Reader<R> {
    /// By these programs, of these families.
    pub fn new(programs: Programs<R>, families: Vec<Family>) -> Self {
        let inner = Inner { programs, families, last: None };
        Self { inner: Arc::new(tokio::sync::Mutex::new(inner)) }
    }

    /// Brings the counters up to date, unless they are, or nothing can be said in 5 s, or somebody
    /// else is at it.
    pub(crate) async fn refresh(&self, metrics: Arc<crate::metrics::Metrics>) {
        // Asking legacy iptables for a table makes the kernel make it.
        if !metrics.drops.is_known() {
            return;
        }
        let Ok(mut inner) = Arc::clone(&self.inner).try_lock_owned() else { return };
        if inner.last.is_some_and(|last| last.elapsed() < INTERVAL) {
            return;
        }
        let reading = tokio::task::spawn_blocking(move || inner.read(&metrics.drops));
        if tokio::time::timeout(PATIENCE, reading).await.is_err() {
            tracing::warn!("the kernel's counters are slow to read; older ones are shown");
        }
    }
}

impl<R: Runner> Inner<R> {
    fn read(&mut self, drops: &Drops) {
        self.last = Some(Instant::now());
        for family in self.families.clone() {
            match self.programs.counted_table(family, "mangle") {
                Ok(text) => drops.add(family, &text),
                Err(error) => {
                    tracing::warn!("the kernel's counters cannot be read: {}", chain(&error));
                }
            }
        }
        self.programs.take_ran();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(label: &str) -> (String, Endpoint) {
        let endpoint = Endpoint {
            label: label.to_owned(),
            addresses: BTreeSet::new(),
            interface: None,
            ingress: Some(BTreeSet::new()),
            egress: None,
        };
        (format!("uid of {label}"), endpoint)
    }

    fn know(drops: &Drops, labels: &[&str]) -> String {
        let endpoints: Vec<_> = labels.iter().map(|it| endpoint(it)).collect();
        drops.know(endpoints.iter().map(|(key, it)| (key, it)));
        endpoint_chain_name(&endpoint("x/a").0, Direction::Ingress)
    }

    fn shown(drops: &Drops) -> String {
        let mut registry = Registry::default();
        drops.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text.lines().filter(|it| !it.starts_with('#')).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn counters_grow_over_replaced_rules_and_both_families() {
        let drops = Drops::default();
        let chain = know(&drops, &["x/a"]);
        let print = |accepted: u64, denied: u64, gate: u64| {
            format!(
                "[{accepted}:9] -A {chain} -j RETURN\n[{denied}:9] -A {chain} -j DROP\n[{gate}:1] -A PODWIRE-GATE -j DROP\n[7:1] -A PODWIRE-TO-other -j DROP\n"
            )
        };
        drops.add(Family::V4, &print(100, 3, 1));
        drops.add(Family::V4, &print(100, 5, 1));
        drops.add(Family::V6, &print(100, 10, 1));
        // Replaced: it counts from 0.
        drops.add(Family::V4, &print(0, 2, 1));
        // Away, and back.
        drops.add(Family::V4, "");
        drops.add(Family::V4, &print(0, 4, 0));
        assert_eq!(
            shown(&drops),
            "gate_drops_total 2\nforged_sources_total 0\ndenied_packets_total{namespace=\"x\",pod=\"a\",direction=\"ingress\"} 21"
        );
    }

    #[test]
    fn an_isolation_that_comes_back_counts_from_nothing() {
        let drops = Drops::default();
        let chain = know(&drops, &["x/a"]);
        let print = format!("[3:9] -A {chain} -j DROP\n");
        drops.add(Family::V4, &print);
        let (key, isolated) = endpoint("x/a");
        let open = Endpoint { ingress: None, ..isolated };
        drops.know(std::iter::once((&key, &open)));
        know(&drops, &["x/a"]);
        drops.add(Family::V4, &print);
        assert!(shown(&drops).ends_with("direction=\"ingress\"} 6"), "{}", shown(&drops));
    }

    #[test]
    fn a_pod_that_has_gone_is_no_longer_shown() {
        let drops = Drops::default();
        let chain = know(&drops, &["x/a", "x/b"]);
        drops.add(Family::V4, &format!("[3:9] -A {chain} -j DROP\n"));
        assert!(shown(&drops).contains("pod=\"a\""));
        know(&drops, &["x/b"]);
        drops.add(Family::V4, &format!("[4:9] -A {chain} -j DROP\n"));
        assert!(!shown(&drops).contains("pod="));
    }
}
