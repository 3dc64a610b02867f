//! The chains of an endpoint.

use std::collections::BTreeSet;

use ruleset::Label;
use ruleset::iptables::{Packets, Side};
use ruleset::nft::{Match, Rule, Statement, Verdict};

use super::{Layer, RuleChain, accept, jump};
use crate::iptables::{LOGGED_EACH_MINUTE, Settings, endpoint_chain_name, policy_chain_name};
use crate::model::Direction;
use crate::plan::{ChainKey, Endpoint};

/// The directions of an endpoint's traffic that a table has chains for.
fn directions(layer: Layer, endpoint: &Endpoint) -> &'static [Direction] {
    match layer {
        Layer::Routed => &[Direction::Egress, Direction::Ingress],
        // Who sends is judged in the table of packets, which frames pass as well.
        Layer::Bridged if endpoint.port().is_some() => &[Direction::Ingress],
        Layer::Bridged => &[],
    }
}

/// The policies that an endpoint's chains of a table lead to.
pub fn policies(layer: Layer, endpoint: &Endpoint) -> impl Iterator<Item = &ChainKey> {
    let directions = directions(layer, endpoint).iter();
    directions.filter_map(|it| endpoint.isolation(*it)).flatten()
}

/// The chains of an endpoint, one for each direction of its traffic.
#[must_use]
pub fn endpoint_chains(
    layer: Layer,
    key: &str,
    endpoint: &Endpoint,
    settings: &Settings,
) -> Vec<RuleChain> {
    let chain = |direction: &Direction| {
        let name = endpoint_chain_name(key, *direction);
        let rules = match endpoint.isolation(*direction) {
            None => vec![accept([])],
            Some(policies) => isolated(layer, &name, endpoint, policies, settings),
        };
        let comment = Some(Label::new(&endpoint.label).to_string());
        RuleChain { comment, ..RuleChain::new(name, rules) }
    };
    directions(layer, endpoint).iter().map(chain).collect()
}

fn isolated(
    layer: Layer,
    chain: &str,
    endpoint: &Endpoint,
    policies: &BTreeSet<ChainKey>,
    settings: &Settings,
) -> Vec<Rule> {
    let mut rules = match layer {
        Layer::Routed => known_flows(endpoint),
        // What is for a group is of no flow.
        Layer::Bridged => Vec::new(),
    };
    rules.extend(policies.iter().map(|it| jump([], &policy_chain_name(it))));
    rules.extend(deny(layer, chain, settings));
    rules
}

fn known_flows(endpoint: &Endpoint) -> Vec<Rule> {
    let connection = Match::Connection;
    let mut rules = vec![
        accept([connection(Packets::Established)]),
        Rule::new([connection(Packets::Invalid)], Verdict::Drop),
    ];
    // A Service may lead a pod to itself.
    rules.extend(endpoint.addresses.iter().map(|address| {
        accept([Side::Source, Side::Destination].map(|it| Match::Address(it, (*address).into())))
    }));
    rules
}

/// What no policy has allowed. The prefix of the log names the chain.
fn deny(layer: Layer, chain: &str, settings: &Settings) -> Vec<Rule> {
    let log = settings.log_group.map(|group| {
        let log = Statement::Log { group, prefix: chain.to_owned() };
        Rule::new([Match::AtMostEachMinute(LOGGED_EACH_MINUTE)], log)
    });
    // Nobody is told of what a bridge brings to a group.
    let rejects = settings.rejects && layer == Layer::Routed;
    let statement = if rejects { Statement::Reject } else { Verdict::Drop.into() };
    log.into_iter().chain([Rule::new([], statement).counted()]).collect()
}
