//! Which of the rules of iptables apply to the traffic between two addresses, and where they lead.

use ruleset::iptables::{Match, Rule, Target};

use super::super::walk::{Reached, Step, Way};
use super::Chains;
use crate::iptables::{Settings, hooks};
use crate::plan::HostInterface;

/// Adds what packets that go this way can come to, whatever else is true of them.
pub(super) fn follow(reached: &mut Reached, chains: &Chains, settings: &Settings, way: &Way<'_>) {
    let roots = hooks(settings).into_iter().filter_map(|hook| next(&hook.rule.target));
    reached.follow(roots, |name| {
        let rules = chains.get(name).into_iter().flat_map(|(_, it)| &it.rules);
        let rules = rules.filter(|rule| rule.matches.iter().all(|it| can_be(way, it)));
        rules.map(step).collect()
    });
}

fn step(rule: &Rule) -> Step {
    let set = |it: &Match| match it {
        Match::InSet(_, set) | Match::NotInSet(_, set) | Match::PortInSet(_, set) => {
            Some(set.clone())
        }
        _ => None,
    };
    Step {
        chains: next(&rule.target).into_iter().collect(),
        sets: rule.matches.iter().filter_map(set).collect(),
        label: rule.label.as_ref().map(ToString::to_string),
    }
}

fn next(target: &Target) -> Option<String> {
    match target {
        Target::Jump(chain) | Target::Goto(chain) => Some(chain.clone()),
        _ => None,
    }
}

/// Whether this can be true of a packet that goes this way.
fn can_be(way: &Way<'_>, it: &Match) -> bool {
    let bridge = way.interface.and_then(|it| it.bridge.as_deref());
    match it {
        Match::Address(side, network) => network.contains(way.address(*side)),
        Match::NotAddress(side, network) => !network.contains(way.address(*side)),
        // Of a port's packets the interface is the bridge.
        Match::InInterface(name) => {
            way.interface.is_some_and(|own| is_named(own.routed_by(), name))
        }
        Match::InBridgePort(name) => {
            let own = way.interface.and_then(HostInterface::port);
            own.is_some_and(|own| is_named(own, name))
        }
        Match::OutBridgePort(name) => {
            let to = way.to.and_then(HostInterface::port);
            to.is_some_and(|to| is_named(to, name))
        }
        Match::Bridged => match (way.interface, way.to) {
            (Some(from), Some(to)) => from.bridge.is_some() && from.bridge == to.bridge,
            (Some(known), None) | (None, Some(known)) => known.bridge.is_some(),
            (None, None) => true,
        },
        Match::ByBridge => way.interface.is_none() || bridge.is_some(),
        _ => true,
    }
}

/// With a `+` at its end a name stands for all that begin so.
fn is_named(own: &str, name: &str) -> bool {
    name.strip_suffix('+').map_or(own == name, |beginning| own.starts_with(beginning))
}
