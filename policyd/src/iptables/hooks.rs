//! The chains that every packet goes through, up to those of its pods.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ruleset::iptables::{Chain, Match, Packets, Rule, Side, Target};
use ruleset::networks::LINK_LOCAL_V6;

use super::address_dispatch::by_address;
use super::discovery;
use super::endpoint;
use super::interface_dispatch::{Ends, by_interface};
use super::sets::programmed_set;
use super::sources;
use super::{ALLOW, Family, GATE, MANGLE, RAW, Settings, chain, goto, host, jump, to_several};
use crate::model::Direction;
use crate::plan::Endpoint;

/// Roots of the dispatch.
// With a dash and twelve characters of a hash after it, which is what the names of the chains below
// them have, no name may be longer than 28 (`XT_EXTENSION_MAXNAMELEN`).
const SOURCE: &str = "PODWIRE-SRC";
const DESTINATION: &str = "PODWIRE-DST";
const OUT: &str = "PODWIRE-OUT";
const MIDDLE: &str = "PODWIRE-MIDDLE";
const ANSWERER: &str = "PODWIRE-MID-SRC";
const ANSWERED: &str = "PODWIRE-MID-DST";
const UNASKED: &str = "PODWIRE-UNASKED";

/// A rule of ours at the head of a chain that the kernel has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The table.
    pub table: &'static str,
    /// The chain.
    pub chain: &'static str,
    /// The rule.
    pub rule: Rule,
}

/// What leads to our chains. Sources are looked at in raw, ahead of connection tracking; policies
/// decide in mangle, so that an ACCEPT of another agent in the filter table opens nothing; not in OUTPUT,
/// as the node may reach its own pods. REJECT is only possible in the filter table: what another agent
/// accepts there before it, the last rule drops.
#[must_use]
pub fn hooks(settings: &Settings) -> Vec<Hook> {
    let hook = |table, chain, rule| Hook { table, chain, rule };
    let mut hooks = vec![
        hook(RAW, "PREROUTING", jump([], sources::ROOT)),
        hook(MANGLE, "FORWARD", jump([], "PODWIRE-FORWARD")),
        hook(MANGLE, "INPUT", jump([], "PODWIRE-INPUT")),
    ];
    if settings.rejects {
        let rejected = || [Match::Mark(settings.marks.rejected)];
        hooks.push(hook("filter", "FORWARD", Rule::new(rejected(), Target::Reject)));
        hooks.push(hook(MANGLE, "POSTROUTING", Rule::new(rejected(), Target::Drop)));
    }
    hooks
}

/// The chains of table mangle that do not belong to one endpoint or policy.
#[must_use]
pub fn dispatch<'a>(
    family: Family,
    endpoints: impl Iterator<Item = (&'a String, &'a Endpoint)> + Clone,
    settings: &Settings,
) -> Vec<Chain> {
    let mut chains = vec![
        chain(ALLOW, [Rule::new([], Target::SetMark(settings.marks.allowed))]),
        chain(GATE, [Rule::new([], Target::Drop)]),
    ];
    let ports = ports(family, endpoints.clone());
    if !ports.is_empty() {
        chains.extend(by_interface(OUT, Match::OutBridgePort, &ports, None));
    }
    for hook in ["FORWARD", "INPUT"] {
        chains.extend(hooked(family, hook, &policed(family, hook, !ports.is_empty(), settings)));
    }
    let isolated = |direction: Direction| {
        let isolated = endpoints.clone().filter(move |(_, it)| it.isolation(direction).is_some());
        let targets = isolated.flat_map(move |(key, it)| {
            let addresses = it.addresses.iter().filter(move |address| family.has(address));
            addresses.map(move |address| (*address, endpoint::name(key, direction)))
        });
        targets.collect::<BTreeMap<_, _>>()
    };
    let (ingress, egress) = (isolated(Direction::Ingress), isolated(Direction::Egress));
    if settings.cuts_flows {
        chains.extend(in_the_middle(&ingress, &egress));
    }
    chains.extend(by_address(SOURCE, Side::Source, &egress));
    chains.extend(by_address(DESTINATION, Side::Destination, &ingress));
    chains
}

/// What is of no flow that is known, and begins none. The kernel takes it for the beginning of one in its
/// direction (`nf_conntrack_tcp_loose`), though it may be an answer: of a flow that the client had the kernel
/// forget, by a reset or by what begins another one, as that sees what is dropped later. So who may not be
/// asked does not answer out of the middle, and who may not ask is not answered.
fn in_the_middle(
    ingress: &BTreeMap<IpAddr, String>,
    egress: &BTreeMap<IpAddr, String>,
) -> Vec<Chain> {
    let dropped = |of: &BTreeMap<IpAddr, String>| -> BTreeMap<IpAddr, String> {
        of.keys().map(|address| (*address, UNASKED.to_owned())).collect()
    };
    let mut chains = vec![
        chain(UNASKED, [Rule::new([], Target::Drop)]),
        chain(MIDDLE, [jump([], ANSWERER), jump([], ANSWERED)]),
    ];
    chains.extend(by_address(ANSWERER, Side::Source, &dropped(ingress)));
    chains.extend(by_address(ANSWERED, Side::Destination, &dropped(egress)));
    chains
}

/// The chain of a hook, and for IPv6 those that keep discovery out of it.
fn hooked(family: Family, hook: &str, policed: &[Rule]) -> Vec<Chain> {
    let name = format!("PODWIRE-{hook}");
    let (discovery, rest) = (format!("{name}-ICMPV6"), format!("{name}-REST"));
    match family {
        Family::V4 => vec![chain(&name, policed)],
        Family::V6 => {
            let icmp = goto([Match::Protocol("ipv6-icmp")], &discovery);
            vec![
                chain(&name, [icmp, jump([], &rest)]),
                discovery::chain(discovery, discovery::of_all(), &rest),
                chain(&rest, policed),
            ]
        }
    }
}

fn policed(family: Family, hook: &str, any_port: bool, settings: &Settings) -> Vec<Rule> {
    let is_forward = hook == "FORWARD";
    let marks = settings.marks;
    // Nothing stands behind filter INPUT should another agent accept there: no REJECT is tried.
    let verdict = if is_forward { Target::Return } else { Target::Drop };
    let rejected = || Rule::new([Match::Mark(marks.rejected)], verdict.clone());
    let mut rules = Vec::new();
    if !is_forward {
        // The node speaks to itself, perhaps by an address of the pods' range: their gateway's.
        rules.push(Rule::new([Match::InInterface("lo".to_owned())], Target::Return));
    }
    rules.push(Rule::new([Match::ConnectionMark(marks.cut)], Target::Drop));
    for range in settings.gated.iter().filter(|range| family.has_network(range)) {
        let sides = [Some(Side::Source), is_forward.then_some(Side::Destination)];
        rules.extend(sides.into_iter().flatten().map(|side| {
            let unknown = Match::NotInSet(side, programmed_set(family).name);
            goto([Match::Address(side, *range), unknown], GATE)
        }));
    }
    rules.push(Rule::new([], Target::ClearMark(marks.allowed | marks.rejected)));
    if is_forward && any_port {
        // Ahead of what is established: whom a bridge brings it to is not in its flow.
        rules.push(jump([Match::Bridged], OUT));
        if !family.is_ipv4() {
            // No router forwards that, says RFC 4291; the kernel does, back to the bridge that it came by.
            let of_link = Match::Address(Side::Destination, LINK_LOCAL_V6);
            rules.push(goto([of_link, Match::NotBridged], GATE));
        }
    }
    if is_forward {
        // Somebody makes a flow known, and has it that he could not deliver an answer to it.
        let icmp = if family.is_ipv4() { "icmp" } else { "ipv6-icmp" };
        let of_no_answer = Match::Connection(Packets::OfNoAnswer);
        rules.push(Rule::new([Match::Protocol(icmp), of_no_answer], Target::Drop));
        if !family.is_ipv4() {
            // None is longer (RFC 4443, section 2.4), nor comes in fragments.
            let related = Match::Connection(Packets::Related);
            let longer = [Match::Protocol(icmp), Match::LongerThan(discovery::LONGEST), related];
            rules.push(Rule::new(longer, Target::Drop));
        }
    }
    rules.push(Rule::new([Match::Connection(Packets::Established)], Target::Return));
    if is_forward && settings.cuts_flows {
        let kinds = [Match::TcpWithoutSyn, Match::SctpWithoutInit];
        rules.extend(kinds.map(|kind| jump([kind], MIDDLE)));
    }
    rules.push(jump([], SOURCE));
    rules.extend(settings.rejects.then(rejected));
    if is_forward {
        rules.push(jump([], DESTINATION));
    }
    rules.push(Rule::new([], Target::ClearMark(marks.allowed)));
    rules
}

/// What is done with what a bridge forwards to the ports of endpoints, once one that is on a bridge is
/// isolated. What is for its own address is judged by that; what is for several, or for a link-local
/// address, is for this pod as well; and what is for somebody else is not.
fn ports<'a>(family: Family, endpoints: impl Iterator<Item = (&'a String, &'a Endpoint)>) -> Ends {
    let mut ports = BTreeMap::<_, Vec<_>>::new();
    for (key, endpoint) in endpoints {
        if let Some(port) = endpoint.port() {
            ports.entry(port.to_owned()).or_default().push((key, endpoint));
        }
    }
    if !ports.values().flatten().any(|(_, it)| it.is_isolated()) {
        return Ends::new();
    }
    ports.into_iter().map(|(name, behind)| (name, to_port(family, &behind))).collect()
}

fn to_port(family: Family, behind: &[(&String, &Endpoint)]) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (_, endpoint) in behind {
        let own = endpoint.addresses.iter().filter(|it| family.has(it)).map(|it| {
            let to = [Match::Address(Side::Destination, host(*it))];
            Rule::new(to, Target::Return).labelled(&endpoint.label)
        });
        rules.extend(own);
    }
    let for_several = match behind {
        _ if behind.iter().all(|(_, it)| it.ingress.is_none()) => Some(Target::Return),
        [(key, it)] if endpoint::has_chains(family, it) => {
            Some(Target::Goto(endpoint::name(key, Direction::Ingress)))
        }
        // Of several at one port nobody knows whom it is for.
        _ => None,
    };
    if let Some(target) = for_several {
        let of_link =
            (!family.is_ipv4()).then_some(Match::Address(Side::Destination, LINK_LOCAL_V6));
        let matches = to_several(family).into_iter().chain(of_link);
        rules.extend(matches.map(|it| Rule::new([it], target.clone())));
    }
    rules.push(goto([], GATE));
    rules
}
