//! The chains of an endpoint.

use std::collections::BTreeSet;

use ruleset::iptables::{Chain, Match, Packets, Rule, Side, Target};
use ruleset::short_hash;

use super::{CHAIN_PREFIX, Family, Settings, host, policy};
use crate::model::Direction;
use crate::plan::{ChainKey, Endpoint};

/// How many denied packets of an endpoint and direction are copied to the log in a minute.
pub(crate) const LOGGED_EACH_MINUTE: u32 = 30;

/// After about as many policies it is looked whether one of them has allowed the packet.
const POLICIES_BETWEEN_LOOKS: u32 = 8;

/// The chains of the directions in which the endpoint is isolated. None lead to it in a family that it
/// has no address of: what comes from its interface there is forged.
#[must_use]
pub fn endpoint_chains(
    family: Family,
    key: &str,
    endpoint: &Endpoint,
    settings: &Settings,
) -> Vec<Chain> {
    if !has_chains(family, endpoint) {
        return Vec::new();
    }
    [Direction::Egress, Direction::Ingress]
        .into_iter()
        .filter_map(|direction| {
            let policies = endpoint.isolation(direction)?;
            let mut rules = vec![Rule::new([Match::Connection(Packets::Invalid)], Target::Drop)];
            rules.extend(itself(family, endpoint));
            rules.push(Rule::new([], Target::ClearMark(settings.marks.allowed)));
            rules.extend(ask(policies, settings));
            rules.extend(deny(key, direction, settings));
            // A word for readers would be looked at for each packet that goes on to a policy.
            for rule in rules.iter_mut().filter(|it| !it.is_bare_jump()) {
                rule.label = Some(ruleset::Label::new(&endpoint.label));
            }
            Some(Chain { name: name(key, direction), rules })
        })
        .collect()
}

/// The policies that chains of these endpoints lead to.
pub fn policies<'a>(
    family: Family,
    endpoints: impl Iterator<Item = &'a Endpoint>,
) -> BTreeSet<&'a ChainKey> {
    let endpoints = endpoints.filter(|it| has_chains(family, it));
    endpoints.flat_map(|it| [&it.ingress, &it.egress]).flatten().flatten().collect()
}

/// Whether any of the endpoints has an address of the family: else none leads to a chain of it.
pub fn is_in_use<'a>(family: Family, mut endpoints: impl Iterator<Item = &'a Endpoint>) -> bool {
    endpoints.any(|it| has_chains(family, it))
}

/// Whether it has chains of the family, if it is isolated.
pub(super) fn has_chains(family: Family, endpoint: &Endpoint) -> bool {
    endpoint.addresses.iter().any(|address| family.has(address))
}

/// The name of an endpoint's chain.
pub(crate) fn name(key: &str, direction: Direction) -> String {
    format!("{CHAIN_PREFIX}{}-{}", word(direction), short_hash(key))
}

/// The direction of an endpoint's chain; `None` when that is not the name of one.
pub(crate) fn direction(name: &str) -> Option<Direction> {
    let rest = name.strip_prefix(CHAIN_PREFIX)?;
    let has_word =
        |it: &Direction| rest.strip_prefix(word(*it)).is_some_and(|hash| hash.starts_with('-'));
    [Direction::Ingress, Direction::Egress].into_iter().find(has_word)
}

const fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "TO",
        Direction::Egress => "FROM",
    }
}

/// A Service may lead a pod to itself.
fn itself(family: Family, endpoint: &Endpoint) -> Vec<Rule> {
    let addresses = endpoint.addresses.iter().filter(|address| family.has(address));
    let both = |address: &std::net::IpAddr| {
        [Side::Source, Side::Destination].map(|side| Match::Address(side, host(*address)))
    };
    addresses.map(|address| Rule::new(both(address), Target::Return)).collect()
}

/// Asks the policies one after the other, and now and then whether one of them has allowed the
/// packet: to look each time would cost as much again. Where that is follows from the names, so
/// that a policy which comes or goes moves no rule of others.
fn ask(policies: &BTreeSet<ChainKey>, settings: &Settings) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (index, policy) in policies.iter().enumerate() {
        let name = policy::name(policy);
        let is_last = index + 1 == policies.len();
        let is_looked_after = is_last || hash_of(&name).is_multiple_of(POLICIES_BETWEEN_LOOKS);
        rules.push(Rule::new([], Target::Jump(name)));
        if is_looked_after {
            rules.push(Rule::new([Match::Mark(settings.marks.allowed)], Target::Return));
        }
    }
    rules
}

/// A number that is the same for the same name, on every node.
fn hash_of(name: &str) -> u32 {
    name.bytes().fold(0, |sum, byte| (sum * 31 + u32::from(byte)) % 65_521)
}

/// What no policy has allowed. The prefix of the log names the chain.
fn deny(key: &str, direction: Direction, settings: &Settings) -> Vec<Rule> {
    let log = settings.log_group.map(|group| {
        let target = Target::Log { group, prefix: name(key, direction) };
        Rule::new([Match::AtMostEachMinute(LOGGED_EACH_MINUTE)], target)
    });
    let verdict =
        if settings.rejects { Target::SetMark(settings.marks.rejected) } else { Target::Drop };
    log.into_iter().chain([Rule::new([], verdict)]).collect()
}
