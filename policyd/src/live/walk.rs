//! Which chains and sets the traffic between two addresses can come to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ruleset::iptables::{Match, Rule, Side, Target};

use super::Chains;
use crate::iptables::{Settings, hooks};
use crate::plan::HostInterface;

/// One direction of the traffic between two ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// The interface of the pod of this node that sends.
    pub(super) interface: Option<&'a HostInterface>,
    /// That of the pod of this node that is sent to.
    pub(super) to: Option<&'a HostInterface>,
}

/// What looks into a set.
#[derive(Debug, Clone)]
pub(super) struct User {
    pub(super) chain: String,
    /// What people call it.
    pub(super) label: Option<String>,
}

/// What was come to.
#[derive(Debug, Default)]
pub(super) struct Reached {
    pub(super) chains: BTreeSet<String>,
    /// Sets that rules look into, with the first that does.
    pub(super) sets: BTreeMap<String, User>,
}

impl Reached {
    /// Adds what packets that go this way can come to, whatever else is true of them.
    pub(super) fn follow(&mut self, chains: &Chains, settings: &Settings, way: &Way<'_>) {
        let roots = hooks(settings)
            .into_iter()
            .filter_map(|hook| next(&hook.rule.target).map(str::to_owned));
        let mut ahead: Vec<String> = roots.collect();
        let mut seen = BTreeSet::new();
        while let Some(name) = ahead.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            for rule in chains.get(&name).into_iter().flat_map(|(_, it)| &it.rules) {
                if !rule.matches.iter().all(|it| way.can_be(it)) {
                    continue;
                }
                ahead.extend(next(&rule.target).map(str::to_owned));
                self.note_sets(&name, rule);
            }
        }
        self.chains.append(&mut seen);
    }

    fn note_sets(&mut self, chain: &str, rule: &Rule) {
        for it in &rule.matches {
            let (Match::InSet(_, set) | Match::NotInSet(_, set) | Match::PortInSet(_, set)) = it
            else {
                continue;
            };
            self.sets.entry(set.clone()).or_insert_with(|| User {
                chain: chain.to_owned(),
                label: rule.label.as_ref().map(ToString::to_string),
            });
        }
    }
}

fn next(target: &Target) -> Option<&str> {
    match target {
        Target::Jump(chain) | Target::Goto(chain) => Some(chain),
        _ => None,
    }
}

impl Way<'_> {
    /// Whether this can be true of a packet that goes this way.
    fn can_be(&self, it: &Match) -> bool {
        let address = |side: &Side| match side {
            Side::Source => self.source,
            Side::Destination => self.destination,
        };
        let bridge = self.interface.and_then(|it| it.bridge.as_deref());
        match it {
            Match::Address(side, network) => network.contains(address(side)),
            Match::NotAddress(side, network) => !network.contains(address(side)),
            // Of a port's packets the interface is the bridge.
            Match::InInterface(name) => {
                self.interface.is_some_and(|own| is_named(own.routed_by(), name))
            }
            Match::InBridgePort(name) => {
                let own = self.interface.and_then(HostInterface::port);
                own.is_some_and(|own| is_named(own, name))
            }
            Match::OutBridgePort(name) => {
                let to = self.to.and_then(HostInterface::port);
                to.is_some_and(|to| is_named(to, name))
            }
            Match::Bridged => match (self.interface, self.to) {
                (Some(from), Some(to)) => from.bridge.is_some() && from.bridge == to.bridge,
                (Some(known), None) | (None, Some(known)) => known.bridge.is_some(),
                (None, None) => true,
            },
            Match::ByBridge => self.interface.is_none() || bridge.is_some(),
            _ => true,
        }
    }
}

/// With a `+` at its end a name stands for all that begin so.
fn is_named(own: &str, name: &str) -> bool {
    name.strip_suffix('+').map_or(own == name, |beginning| own.starts_with(beginning))
}
