//! The chains that every packet goes through, up to those of its pods.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use ruleset::iptables::{Chain, Match, Rule, Side, Target};
use ruleset::networks::{BROADCAST, LINK_LOCAL_V6, MULTICAST_V4, MULTICAST_V6};

use super::address_dispatch::by_address;
use super::endpoint::{self, established};
use super::interface_dispatch::{Ends, by_interface};
use super::sets::{bound_set, programmed_set};
use super::{ALLOW, FORGED, Family, GATE, Settings, UNBOUND, host};
use crate::model::Direction;
use crate::plan::{Endpoint, HostInterface};

/// Roots of the dispatch.
const LINK: &str = "PODWIRE-LINK";
const PORT: &str = "PODWIRE-PORT";
// With a dash and twelve characters of a hash after it, which is what the names of the chains below
// them have, no name may be longer than 28 (`XT_EXTENSION_MAXNAMELEN`).
const SOURCE: &str = "PODWIRE-SRC";
const DESTINATION: &str = "PODWIRE-DST";
const OUT: &str = "PODWIRE-OUT";

/// Messages without which IPv6 is not there. Neighbour discovery (RFC 4861) has the greatest hop
/// limit, so that all see that no router has forwarded it: what a pod gives that type and sends
/// further is not it.
const NEIGHBOUR_DISCOVERY: [u8; 5] = [133, 134, 135, 136, 137];
/// Likewise. Listener discovery (RFC 2710, RFC 3810) goes to groups, with a hop limit that no router
/// forwards.
const LISTENER_DISCOVERY: [u8; 4] = [130, 131, 132, 143];
/// Of these, what only routers say: of routes, and of better ones.
const FROM_ROUTERS: [u8; 2] = [134, 137];
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

/// What leads to our chains. In mangle, so that an ACCEPT of another agent in the filter table opens
/// nothing; not in OUTPUT, as the node may reach its own pods. REJECT is only possible in the filter
/// table: what another agent accepts there before it, the last rule drops.
#[must_use]
pub fn hooks(settings: &Settings) -> Vec<Hook> {
    let hook = |table, chain, rule| Hook { table, chain, rule };
    let mut hooks = vec![
        hook("mangle", "FORWARD", jump("PODWIRE-FORWARD")),
        hook("mangle", "INPUT", jump("PODWIRE-INPUT")),
    ];
    if settings.rejects {
        let rejected = || [Match::Mark(settings.marks.rejected)];
        hooks.push(hook("filter", "FORWARD", Rule::new(rejected(), Target::Reject)));
        hooks.push(hook("mangle", "POSTROUTING", Rule::new(rejected(), Target::Drop)));
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
        chain(FORGED, [Rule::new([], Target::Drop)]),
        chain(GATE, [Rule::new([], Target::Drop)]),
        chain(UNBOUND, [unbound(family)]),
    ];
    let ends = |is_port| ends(family, endpoints.clone(), is_port);
    let (links, ports) = (ends(false), ends(true));
    let isolated_ports = isolated_ports(family, endpoints.clone());
    chains.extend(by_interface(LINK, Match::InInterface, &links, Some(UNBOUND)));
    if !ports.is_empty() {
        chains.extend(by_interface(PORT, Match::InBridgePort, &ports, Some(UNBOUND)));
    }
    if !isolated_ports.is_empty() {
        chains.extend(by_interface(OUT, Match::OutBridgePort, &isolated_ports, None));
    }
    let ports = Ports { any: !ports.is_empty(), isolated: !isolated_ports.is_empty() };
    for hook in ["FORWARD", "INPUT"] {
        chains.extend(hooked(family, hook, ports, &policed(family, hook, ports, settings)));
    }
    let isolated = |direction: Direction, only_unknown: bool| {
        let isolated = endpoints
            .clone()
            .filter(move |(_, it)| it.isolation(direction).is_some())
            .filter(move |(_, it)| !only_unknown || it.interface.is_none());
        let targets = isolated.flat_map(move |(key, it)| {
            let addresses = it.addresses.iter().filter(move |address| family.has(address));
            addresses.map(move |address| (*address, endpoint::name(key, direction)))
        });
        targets.collect()
    };
    chains.extend(by_address(SOURCE, Side::Source, &isolated(Direction::Egress, true)));
    let destinations = isolated(Direction::Ingress, false);
    chains.extend(by_address(DESTINATION, Side::Destination, &destinations));
    chains
}

fn chain(name: &str, rules: impl Into<Vec<Rule>>) -> Chain {
    Chain { name: name.to_owned(), rules: rules.into() }
}

fn goto(matches: impl Into<Vec<Match>>, chain: &str) -> Rule {
    Rule::new(matches, Target::Goto(chain.to_owned()))
}

fn jump(chain: &str) -> Rule {
    Rule::new([], Target::Jump(chain.to_owned()))
}

/// An address of a pod whose interface is known, from another one.
fn unbound(family: Family) -> Rule {
    goto([Match::InSet(Side::Source, bound_set(family).name)], FORGED)
}

/// The chain of a hook, and for IPv6 those that keep discovery out of it.
fn hooked(family: Family, hook: &str, ports: Ports, policed: &[Rule]) -> Vec<Chain> {
    let name = format!("PODWIRE-{hook}");
    let (discovery, rest) = (format!("{name}-ICMPV6"), format!("{name}-REST"));
    match family {
        Family::V4 => vec![chain(&name, policed)],
        Family::V6 => {
            let neighbours =
                NEIGHBOUR_DISCOVERY.map(|kind| vec![Match::HopLimit(255), Match::Icmp6Type(kind)]);
            let groups = Match::Address(Side::Destination, MULTICAST_V6);
            let listeners = LISTENER_DISCOVERY
                .map(|kind| vec![groups.clone(), Match::HopLimit(1), Match::Icmp6Type(kind)]);
            let of_link = neighbours.into_iter().chain(listeners);
            let mut types = Vec::new();
            if ports.any && hook == "FORWARD" {
                // Pods are no routers: from a pod's port the source of these is a forged one.
                types.extend(FROM_ROUTERS.map(|kind| {
                    let matches = [Match::HopLimit(255), Match::Icmp6Type(kind)];
                    Rule::new(matches, Target::Jump(PORT.to_owned()))
                }));
            }
            types.extend(of_link.map(|matches| Rule::new(matches, Target::Return)));
            types.push(goto([], &rest));
            let icmp = goto([Match::Protocol("ipv6-icmp")], &discovery);
            vec![
                chain(&name, [icmp, goto([], &rest)]),
                chain(&discovery, types),
                chain(&rest, policed),
            ]
        }
    }
}

/// Which pods are behind ports of bridges.
#[derive(Clone, Copy)]
struct Ports {
    /// Some.
    any: bool,
    /// Some that are isolated for what they are sent.
    isolated: bool,
}

fn policed(family: Family, hook: &str, ports: Ports, settings: &Settings) -> Vec<Rule> {
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
    if ports.any {
        rules.push(Rule::new([Match::ByBridge], Target::Jump(PORT.to_owned())));
        rules.push(Rule::new([Match::NotByBridge], Target::Jump(LINK.to_owned())));
    } else {
        // Loading the match makes the kernel show it the frames of every bridge of the node
        // (`br_netfilter_enable`): not where there is no need.
        rules.push(jump(LINK));
    }
    rules.extend(settings.rejects.then(rejected));
    if is_forward && ports.isolated {
        // Ahead of what is established: conntrack takes a forged packet for an answer before it is
        // dropped. To a pod's own address no flow becomes known that it has not allowed; to all others
        // it may, by somebody else's port, or by the node that hears it.
        let to_others = Match::NotInSet(Side::Destination, bound_set(family).name);
        rules.push(Rule::new([Match::Bridged, to_others], Target::Jump(OUT.to_owned())));
    }
    rules.push(established());
    rules.push(jump(SOURCE));
    rules.extend(settings.rejects.then(rejected));
    if is_forward && ports.isolated {
        rules.push(Rule::new([Match::Bridged], Target::Jump(OUT.to_owned())));
    }
    if is_forward {
        rules.push(jump(DESTINATION));
    }
    rules.push(Rule::new([], Target::ClearMark(marks.allowed)));
    rules
}

/// What is done with what a bridge forwards to the ports of isolated endpoints and is not for their own
/// addresses: what is for all, or for a link-local address, is for these pods as well. What
/// is for somebody else is not.
fn isolated_ports<'a>(
    family: Family,
    endpoints: impl Iterator<Item = (&'a String, &'a Endpoint)>,
) -> Ends {
    let mut ports = BTreeMap::<_, Vec<_>>::new();
    for (key, endpoint) in endpoints {
        if let Some(port) = endpoint.interface.as_ref().and_then(HostInterface::port) {
            ports.entry(port.to_owned()).or_default().push((key, endpoint));
        }
    }
    ports.retain(|_, behind| behind.iter().any(|(_, it)| it.ingress.is_some()));
    let rules = |behind: Vec<(&String, &Endpoint)>| {
        let at = |network| [Match::Address(Side::Destination, network)];
        let mut rules = Vec::new();
        for (_, endpoint) in &behind {
            let own = endpoint.addresses.iter().filter(|it| family.has(it)).map(|it| host(*it));
            let own = own.map(|it| Rule::new(at(it), Target::Return).labelled(&endpoint.label));
            rules.extend(own);
        }
        // Of several at one port nobody knows whom it is for.
        if let [(key, endpoint)] = behind[..]
            && endpoint::has_chains(family, endpoint)
        {
            let target = endpoint::name(key, Direction::Ingress);
            let all = shared(family).map(|it| goto(at(it), &target).labelled(&endpoint.label));
            rules.extend(all);
        }
        rules.push(goto([], GATE));
        rules
    };
    ports.into_iter().map(|(name, behind)| (name, rules(behind))).collect()
}

/// What is not one pod's own address though it may be for pods.
const fn shared(family: Family) -> [IpNetwork; 2] {
    match family {
        Family::V4 => [MULTICAST_V4, BROADCAST],
        Family::V6 => [MULTICAST_V6, LINK_LOCAL_V6],
    }
}

/// What is done with what comes through the interfaces of endpoints: what has another address than
/// the endpoint's own is dropped.
fn ends<'a>(
    family: Family,
    endpoints: impl Iterator<Item = (&'a String, &'a Endpoint)>,
    is_port: bool,
) -> Ends {
    let mut ends = Ends::new();
    for (key, endpoint) in endpoints {
        let Some(interface) = &endpoint.interface else { continue };
        if interface.port().is_some() != is_port {
            continue;
        }
        let addresses = endpoint.addresses.iter().filter(|address| family.has(address));
        let target = match endpoint.egress {
            Some(_) => Target::Goto(endpoint::name(key, Direction::Egress)),
            None => Target::Return,
        };
        let own = addresses.map(|address| {
            let from = [Match::Address(Side::Source, host(*address))];
            Rule::new(from, target.clone()).labelled(&endpoint.label)
        });
        let rules = ends.entry(interface.name.clone()).or_default();
        // Before what another endpoint at the same interface said of all others.
        rules.retain(|rule| rule.target != Target::Goto(FORGED.to_owned()));
        rules.extend(own);
        rules.push(goto([], FORGED).labelled(&endpoint.label));
    }
    ends
}
