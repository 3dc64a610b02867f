//! The chains that the kernel calls, and those that they lead to, up to those of pods.

use std::collections::BTreeMap;

use ruleset::iptables::{Packets, Side};
use ruleset::networks::{BROADCAST, LINK_LOCAL_V6, MULTICAST_V4, MULTICAST_V6, UNSPECIFIED_V6};
use ruleset::nft::{Base, Field, FrameKind, Hook, Kind, Match, Policy, Rule, Statement, Verdict};

use super::dispatch::{BOUND, FROM, IN_EGRESS, IN_INGRESS, LINKS, SOURCES, TO, named};
use super::{Families, Layer, RuleChain, accept, discovery, drop_counted, goto, jump, map, ports};
use crate::iptables::{FORGED, Family, GATE, Settings};
use crate::plan::Endpoint;

/// Ahead of connection tracking (-200), behind what puts fragments together (-400).
pub(super) const RAW: i32 = -300;
/// Once a Service's address has become an endpoint's, and ahead of the tables in which others decide.
const MANGLE: i32 = -150;

const OWN: &str = "PODWIRE-OWN";
const SEVERAL: &str = "PODWIRE-SEVERAL";
const TO_SEVERAL: &str = "PODWIRE-FOR-SEVERAL";
const MIDDLE: &str = "PODWIRE-MIDDLE";
const LINK_LOCAL: &str = "PODWIRE-LINK-LOCAL";
const BRIDGED: &str = "PODWIRE-BRIDGED";

/// The chains of a table that belong to no single endpoint or policy.
#[must_use]
pub fn base_chains(
    layer: Layer,
    families: &Families,
    endpoints: &BTreeMap<String, Endpoint>,
    settings: &Settings,
) -> Vec<RuleChain> {
    let mut ports = endpoints.values().filter(|it| it.port().is_some());
    let any_isolated_port = ports.any(Endpoint::is_isolated);
    match layer {
        Layer::Routed => routed(families, any_isolated_port, settings),
        Layer::Bridged => ports::base_chains(families, any_isolated_port, settings),
    }
}

pub(super) fn base(
    name: &str,
    hook: Hook<'static>,
    priority: i32,
    rules: impl IntoIterator<Item = Rule>,
) -> RuleChain {
    let base = Base { kind: Kind::Filter, hook, priority, policy: Policy::Accept };
    RuleChain { base: Some(base), ..RuleChain::new(name, rules) }
}

fn routed(families: &Families, any_port: bool, settings: &Settings) -> Vec<RuleChain> {
    let mut chains = vec![
        RuleChain::new(FORGED, [drop_counted([])]),
        base("prerouting", Hook::Prerouting, RAW, prerouting(families)),
        RuleChain::new(OWN, own()),
        RuleChain::new(SEVERAL, several(families)),
        RuleChain::new(TO_SEVERAL, to_several(families)),
        base("forward-from", Hook::Forward, MANGLE, forward_from(families, any_port, settings)),
        base("forward-to", Hook::Forward, MANGLE + 1, forward_to(families, settings)),
        base("input", Hook::Input, MANGLE, input(families, settings)),
    ];
    for family in Family::ALL {
        if is_gated(family, settings) {
            chains.push(RuleChain::new(gate(family), [drop_counted([])]));
        }
    }
    if settings.cuts_flows {
        chains.push(RuleChain::new(MIDDLE, middle(families)));
    }
    if families.contains(&Family::V6) {
        chains.extend(discovery::chains());
        if any_port {
            chains.extend(link_local(settings));
        }
    }
    chains
}

/// Whether there is a range of the family: it is gated whether a pod has an address of it or not.
fn is_gated(family: Family, settings: &Settings) -> bool {
    settings.gated.iter().any(|range| family.has_network(range))
}

/// The chain that the gate of a family sends what it keeps back to.
#[must_use]
pub fn gate(family: Family) -> String {
    if family.is_ipv4() { format!("{GATE}-4") } else { format!("{GATE}-6") }
}

/// Whose address a packet has: looked at ahead of connection tracking, which would take a forged one
/// for the answer to another, or make a flow known of it, before any later rule drops it.
fn prerouting(families: &Families) -> Vec<Rule> {
    // The node speaks to itself.
    let mut rules = vec![accept([Match::InInterface("lo".to_owned())])];
    if families.contains(&Family::V6) {
        rules.extend(discovery_of_hosts());
    }
    rules.extend(families.iter().map(|family| {
        let fields = vec![Field::InInterface, address(*family, Side::Source)];
        goto([Match::In(fields, named(SOURCES, *family))], OWN)
    }));
    rules.push(goto([Match::In(vec![Field::InInterface], LINKS.to_owned())], FORGED));
    rules.extend(of_bound(families, Side::Source));
    rules.extend(frame_kinds().map(|kind| jump([kind], TO_SEVERAL)));
    rules
}

/// From the link's own address, or from none yet. Pods are no routers: advertisements of theirs have a source
/// that is not the pod's.
pub(super) fn discovery_of_hosts() -> impl Iterator<Item = Rule> {
    [LINK_LOCAL_V6, UNSPECIFIED_V6].into_iter().map(|source| {
        let matches = [Match::Address(Side::Source, source), Match::Protocol(58)];
        jump(matches, discovery::OF_HOST)
    })
}

/// What has an address of an endpoint whose interface is known.
pub(super) fn of_bound(families: &Families, side: Side) -> impl Iterator<Item = Rule> {
    families.iter().map(move |family| {
        goto([Match::In(vec![address(*family, side)], named(BOUND, *family))], FORGED)
    })
}

pub(super) fn frame_kinds() -> impl Iterator<Item = Match> {
    [FrameKind::Broadcast, FrameKind::Multicast].into_iter().map(Match::Frame)
}

/// What came in a frame for several stations is for several by its address too. Of another one
/// the kernel would make a flow known though every port of a bridge drops it (`br_nf_local_in`).
fn own() -> Vec<Rule> {
    frame_kinds().map(|kind| goto([kind], SEVERAL)).chain([accept([])]).collect()
}

fn several(families: &Families) -> Vec<Rule> {
    let of_family = |family: &Family| match family {
        Family::V4 => vec![MULTICAST_V4, BROADCAST],
        Family::V6 => vec![MULTICAST_V6],
    };
    let groups = families.iter().flat_map(of_family);
    let to = groups.map(|it| accept([Match::Address(Side::Destination, it)]));
    to.chain([accept([Match::ToBroadcast]), goto([], FORGED)]).collect()
}

/// The same of what came by an interface that is nobody's.
fn to_several(families: &Families) -> impl Iterator<Item = Rule> {
    of_bound(families, Side::Destination)
}

pub(super) const fn address(family: Family, side: Side) -> Field {
    Field::address(side, family.is_ipv4())
}

/// What all packets that pass through, or are for the node, meet first.
fn first(families: &Families, settings: &Settings) -> Vec<Rule> {
    let mut rules = Vec::new();
    if families.contains(&Family::V6) {
        rules.push(jump([Match::Protocol(58)], discovery::ANY));
    }
    rules.push(Rule::new([Match::ConnectionMark(settings.marks.cut)], Verdict::Drop));
    rules
}

fn by_source(families: &Families, settings: &Settings) -> Vec<Rule> {
    by_address(families, settings, Side::Source, FROM)
}

/// An address that has its rules goes there. One of the node's ranges that has none is kept back.
fn by_address(families: &Families, settings: &Settings, side: Side, name: &str) -> Vec<Rule> {
    let maps = families.iter().map(|family| map([address(*family, side)], &named(name, *family)));
    let gates = settings
        .gated
        .iter()
        .map(|range| goto([Match::Address(side, *range)], &gate(Family::of(&range.ip()))));
    maps.chain(gates).collect()
}

fn forward_from(families: &Families, any_port: bool, settings: &Settings) -> Vec<Rule> {
    let mut rules = first(families, settings);
    if families.contains(&Family::V6) && any_port {
        rules.push(jump([Match::Address(Side::Destination, LINK_LOCAL_V6)], LINK_LOCAL));
    }
    rules.extend(errors(families));
    if settings.cuts_flows {
        rules.extend([Match::TcpWithoutSyn, Match::SctpWithoutInit].map(|it| jump([it], MIDDLE)));
    }
    rules.extend(by_source(families, settings));
    rules
}

/// Somebody makes a flow known, and has it that he could not deliver an answer to it. And no error of IPv6 is
/// longer than this (RFC 4443, section 2.4), nor comes in fragments.
fn errors(families: &Families) -> Vec<Rule> {
    let dropped = |matches: Vec<Match>| Rule::new(matches, Verdict::Drop);
    let of_no_answer = Match::Connection(Packets::OfNoAnswer);
    let mut rules = vec![dropped(vec![Match::Protocol(1), of_no_answer.clone()])];
    if families.contains(&Family::V6) {
        let longer = Match::LongerThan(u32::from(crate::iptables::discovery::LONGEST));
        let related = Match::Connection(Packets::Related);
        rules.push(dropped(vec![Match::Protocol(58), of_no_answer]));
        rules.push(dropped(vec![Match::Protocol(58), longer, related]));
    }
    rules
}

/// What is of no flow that is known, and begins none. The kernel takes it for the beginning of one in its
/// direction (`nf_conntrack_tcp_loose`), though it may be an answer: of a flow that the client had the kernel
/// forget, by a reset or by what begins another one, as that sees what is dropped later. So who may not be
/// asked does not answer out of the middle, and who may not ask is not answered.
fn middle(families: &Families) -> Vec<Rule> {
    let known = Rule::new([Match::Connection(Packets::Established)], Verdict::Return);
    let sides = [(Side::Source, IN_INGRESS), (Side::Destination, IN_EGRESS)];
    let unasked = families.iter().flat_map(|family| {
        sides.map(|(side, set)| {
            let isolated = Match::In(vec![address(*family, side)], named(set, *family));
            Rule::new([isolated], Verdict::Drop)
        })
    });
    [known].into_iter().chain(unasked).collect()
}

fn forward_to(families: &Families, settings: &Settings) -> Vec<Rule> {
    let discovery = families.contains(&Family::V6);
    let discovery = discovery.then(|| jump([Match::Protocol(58)], discovery::ANY));
    discovery.into_iter().chain(by_address(families, settings, Side::Destination, TO)).collect()
}

fn input(families: &Families, settings: &Settings) -> Vec<Rule> {
    // The node speaks to itself, perhaps by an address of the pods' range: their gateway's.
    let own = accept([Match::InInterface("lo".to_owned())]);
    let rest = first(families, settings).into_iter().chain(by_source(families, settings));
    [own].into_iter().chain(rest).collect()
}

/// No router forwards what is for a link-local address, says RFC 4291; the kernel does, back to the bridge that
/// it came by. What a bridge brings there has been marked by the table of its ports.
fn link_local(settings: &Settings) -> [RuleChain; 2] {
    let bit = settings.marks.allowed;
    [
        RuleChain::new(LINK_LOCAL, [goto([Match::Mark(bit)], BRIDGED), drop_counted([])]),
        RuleChain::new(BRIDGED, [Rule::new([], Statement::ClearMark(bit))]),
    ]
}
