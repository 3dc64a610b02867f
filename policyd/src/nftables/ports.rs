//! The table of frames on bridges: who is behind a port, and what a bridge brings to it. Which policies hold
//! for what is for one pod's address alone is asked in the table of packets, which br_netfilter has frames
//! pass.

use ruleset::iptables::Side;
use ruleset::networks::LINK_LOCAL_V6;
use ruleset::nft::{Field, Hook, Match, Rule, Statement};

use super::base::{RAW, address, base, discovery_of_hosts, frame_kinds, of_bound};
use super::dispatch::{GROUPS, PORTS, SOURCES, named};
use super::{Families, RuleChain, accept, discovery, drop_counted, goto, jump, map};
use crate::iptables::{FORGED, Family, GATE, Settings};

/// Ahead of br_netfilter (0), which has the table of packets asked.
const FILTER: i32 = -200;

pub(super) fn base_chains(
    families: &Families,
    any_isolated: bool,
    settings: &Settings,
) -> Vec<RuleChain> {
    let mut chains = vec![
        RuleChain::new(FORGED, [drop_counted([])]),
        base("prerouting", Hook::Prerouting, RAW, prerouting(families)),
    ];
    if any_isolated {
        chains.push(RuleChain::new(GATE, [drop_counted([])]));
        chains.push(base("forward", Hook::Forward, FILTER, forward(families, settings)));
    }
    if families.contains(&Family::V6) {
        chains.extend(discovery::chains());
    }
    chains
}

/// What comes from a pod's port has an address of the pod, and nothing else that comes in has one of those.
fn prerouting(families: &Families) -> Vec<Rule> {
    let mut rules = Vec::new();
    if families.contains(&Family::V6) {
        rules.extend(discovery_of_hosts());
    }
    rules.extend(families.iter().map(|family| {
        let fields = vec![Field::InInterface, address(*family, Side::Source)];
        accept([Match::In(fields, named(SOURCES, *family))])
    }));
    let from_port = Match::In(vec![Field::InInterface], PORTS.to_owned());
    rules.push(accept([Match::Arp]));
    rules.push(goto([from_port], FORGED));
    rules.extend(of_bound(families, Side::Source));
    rules
}

/// What is done with what a bridge forwards to the ports of endpoints. What is for its own address is judged by
/// that; what is for several, or for a link-local address, is for this pod as well; and what is for somebody
/// else is not. That a frame for several is so by its address, too, was seen when it came in.
fn forward(families: &Families, settings: &Settings) -> Vec<Rule> {
    let mut rules = Vec::new();
    let to_link_local = || Match::Address(Side::Destination, LINK_LOCAL_V6);
    if families.contains(&Family::V6) {
        rules.push(Rule::new([to_link_local()], Statement::SetMark(settings.marks.allowed)));
        rules.push(jump([Match::Protocol(58)], discovery::ANY));
    }
    rules.extend(families.iter().map(|family| {
        let fields = vec![Field::OutInterface, address(*family, Side::Destination)];
        accept([Match::In(fields, named(SOURCES, *family))])
    }));
    rules.push(accept([Match::Arp]));
    let to_groups = |it: Match| {
        let map = map([Field::OutInterface], GROUPS);
        Rule { matches: vec![it], ..map }
    };
    rules.extend(frame_kinds().map(to_groups));
    if families.contains(&Family::V6) {
        rules.push(to_groups(to_link_local()));
    }
    rules.push(goto([Match::In(vec![Field::OutInterface], PORTS.to_owned())], GATE));
    rules
}
