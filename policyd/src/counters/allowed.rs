//! What the rules of policies have let through.

use std::collections::{BTreeMap, BTreeSet};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family;
use ruleset::iptables::RuleHash;

use super::{Place, RuleCounter};
use crate::dataplane::Kind;
use crate::iptables::{Family, policy_chain_name, policy_rules};
use crate::nftables::{self, Layer, mark_of};
use crate::plan::{ChainKey, PolicyChain};
use crate::words;

type Labels = [(&'static str, String); 4];

/// The counters of the policies that pods of this node are isolated by, one for each entry of their
/// `ingress` and `egress`. They count packets that no flow was known of yet: those after it pass as
/// established, before any policy is asked.
#[derive(Debug, Default)]
pub(super) struct Allowed {
    pub(super) packets: family::Family<Labels, Counter>,
    /// By which way the rules are written: iptables, unless that was told.
    pub(super) kind: Option<Kind>,
    chains: BTreeMap<String, Chain>,
}

#[derive(Debug)]
struct Chain {
    key: ChainKey,
    rules: BTreeMap<(Place, String), Rule>,
}

/// A rule in the kernel: of one entry there may be several.
#[derive(Debug)]
struct Rule {
    entry: usize,
    /// What it had counted when it was last read.
    last: u64,
}

impl Allowed {
    /// Takes in what became of a chain; `None`: it has gone, and so do its counters.
    pub(super) fn know(&mut self, key: &ChainKey, chain: Option<&PolicyChain>) {
        let name = policy_chain_name(key);
        let before = self.chains.remove(&name);
        let rules = chain.map(|chain| self.rules(key, chain, before.as_ref())).unwrap_or_default();
        let stay: BTreeSet<_> = rules.values().map(|it| it.entry).collect();
        let gone = before.iter().flat_map(|it| it.rules.values());
        for rule in gone.filter(|it| !stay.contains(&it.entry)) {
            self.packets.remove(&labels(key, rule.entry));
        }
        if chain.is_some() {
            self.chains.insert(name, Chain { key: key.clone(), rules });
        }
    }

    /// Forgets the chains that are not among these.
    pub(super) fn retain(&mut self, stay: &BTreeMap<&ChainKey, &PolicyChain>) {
        let chains = self.chains.values().map(|it| &it.key);
        let gone: Vec<_> = chains.filter(|key| !stay.contains_key(key)).cloned().collect();
        gone.iter().for_each(|key| self.know(key, None));
    }

    fn rules(
        &self,
        key: &ChainKey,
        chain: &PolicyChain,
        before: Option<&Chain>,
    ) -> BTreeMap<(Place, String), Rule> {
        let mut rules = BTreeMap::new();
        for (id, entry) in self.ids(key, chain) {
            // One that has counted nothing is shown too.
            drop(self.packets.get_or_create(&labels(key, entry)));
            let last = before.and_then(|it| it.rules.get(&id)).map_or(0, |it| it.last);
            rules.insert(id, Rule { entry, last });
        }
        rules
    }

    /// What tells which rule each is, with the entry of the policy that it is made of.
    fn ids(&self, key: &ChainKey, chain: &PolicyChain) -> Vec<((Place, String), usize)> {
        if self.kind == Some(Kind::Nftables) {
            let rules = nftables::policy_rules(&Family::ALL.into(), key, chain)
                .filter_map(|(entry, rule)| Some((mark_of(&rule.comment?)?, entry)))
                .collect::<Vec<_>>();
            let of_layer = |layer| {
                rules.iter().map(move |(id, entry)| ((Place::Table(layer), id.clone()), *entry))
            };
            return Layer::ALL.into_iter().flat_map(of_layer).collect();
        }
        let of_family = |family| {
            let rules = policy_rules(family, key, chain);
            rules.map(move |(entry, rule)| {
                ((Place::Family(family), RuleHash::of(&rule).to_string()), entry)
            })
        };
        Family::ALL.into_iter().flat_map(of_family).collect()
    }

    /// Adds what the rule has counted since it was last read, if it is one of a policy's.
    pub(super) fn add(&mut self, place: Place, counter: &RuleCounter) {
        let Some(chain) = self.chains.get_mut(&counter.chain) else { return };
        let Some(id) = &counter.id else { return };
        let Some(rule) = chain.rules.get_mut(&(place, id.clone())) else { return };
        let more = super::increase(rule.last, counter.packets);
        rule.last = counter.packets;
        self.packets.get_or_create(&labels(&chain.key, rule.entry)).inc_by(more);
    }
}

fn labels(key: &ChainKey, entry: usize) -> Labels {
    let ChainKey { policy, direction, .. } = key;
    [
        ("namespace", policy.namespace.clone()),
        ("policy", policy.name.clone()),
        ("direction", words::direction(*direction).to_owned()),
        ("rule", entry.to_string()),
    ]
}
