//! Whose address a packet has: looked at ahead of connection tracking, which would take a forged one
//! for the answer to another, or make a flow known of it, before any later rule drops it.

use ruleset::iptables::{Chain, Match, Rule, Side, Target};
use ruleset::networks::{LINK_LOCAL_V6, UNSPECIFIED_V6};

use super::discovery;
use super::interface_dispatch::{Ends, by_interface};
use super::sets::bound_set;
use super::{FORGED, Family, chain, goto, host, jump, to_several};
use crate::plan::{Endpoint, HostInterface};

/// Where the table's own chain leads.
pub(super) const ROOT: &str = "PODWIRE-PREROUTING";
const LINK: &str = "PODWIRE-LINK";
const PORT: &str = "PODWIRE-PORT";
const UNBOUND: &str = "PODWIRE-UNBOUND";
const FOR_SEVERAL: &str = "PODWIRE-SEVERAL";

/// The chains of table raw: what comes from a pod's interface has an address of the pod, and nothing
/// else that comes in has one of those.
#[must_use]
pub fn sources<'a>(
    family: Family,
    endpoints: impl Iterator<Item = (&'a String, &'a Endpoint)>,
) -> Vec<Chain> {
    let (mut links, mut ports) = (Ends::new(), Ends::new());
    for (_, endpoint) in endpoints {
        if let Some(interface) = &endpoint.interface {
            let ends = if interface.port().is_some() { &mut ports } else { &mut links };
            add(ends, family, interface, endpoint);
        }
    }
    let any_port = !ports.is_empty();
    // A bridge hands frames to its own groups (01:80:c2:00:00:00 and those after it) on as the port's.
    links.extend(ports.keys().map(|port| (port.clone(), vec![goto([], FORGED)])));
    let mut chains = vec![
        chain(FORGED, [Rule::new([], Target::Drop)]),
        chain(UNBOUND, unbound(family, any_port)),
    ];
    chains.extend(by_interface(LINK, Match::InInterface, &links, Some(UNBOUND)));
    if any_port {
        chains.extend(by_interface(PORT, Match::InBridgePort, &ports, Some(UNBOUND)));
        chains.push(in_frame_for_several(family));
    }
    chains.extend(roots(family, any_port));
    chains
}

/// The chain that the table's own leads to, and for IPv6 those that keep discovery out of it.
fn roots(family: Family, any_port: bool) -> Vec<Chain> {
    // The node speaks to itself.
    let mut rules = vec![Rule::new([Match::InInterface("lo".to_owned())], Target::Return)];
    // Loading the match of ports makes the kernel show it the frames of every bridge of the node
    // (`br_netfilter_enable`): not where there is no need.
    let by_port = any_port.then(|| goto([Match::ByBridge], PORT));
    let by_interface = by_port.into_iter().chain([jump([], LINK)]);
    if family.is_ipv4() {
        rules.extend(by_interface);
        return vec![chain(ROOT, rules)];
    }
    let (discovery, rest) = (format!("{ROOT}-ICMPV6"), format!("{ROOT}-REST"));
    // From the link's own address, or from none yet. Pods are no routers: advertisements of theirs
    // have a source that is not the pod's.
    rules.extend([LINK_LOCAL_V6, UNSPECIFIED_V6].map(|source| {
        goto([Match::Protocol("ipv6-icmp"), Match::Address(Side::Source, source)], &discovery)
    }));
    rules.push(jump([], &rest));
    let by_interface: Vec<_> = by_interface.collect();
    vec![
        chain(ROOT, rules),
        discovery::chain(discovery, discovery::of_hosts(), &rest),
        chain(&rest, by_interface),
    ]
}

/// What came through no interface of an endpoint: not with an address of one whose interface is
/// known. Nor, as below, to one by a frame for several.
fn unbound(family: Family, any_port: bool) -> Vec<Rule> {
    let bound = |side| Match::InSet(side, bound_set(family).name);
    let mut rules = vec![goto([bound(Side::Source)], FORGED)];
    rules.extend(any_port.then(|| goto([Match::FrameToSeveral, bound(Side::Destination)], FORGED)));
    rules
}

/// What came in a frame for several stations, which is for several by its address too. Of another one
/// the kernel would make a flow known though every port drops it (`br_nf_local_in`).
fn in_frame_for_several(family: Family) -> Chain {
    let several = to_several(family).into_iter().map(|it| Rule::new([it], Target::Return));
    chain(FOR_SEVERAL, several.chain([goto([], FORGED)]).collect::<Vec<_>>())
}

/// What is done with what comes through the interface of an endpoint.
fn add(ends: &mut Ends, family: Family, interface: &HostInterface, endpoint: &Endpoint) {
    let own = endpoint.addresses.iter().filter(|address| family.has(address));
    let own = own.flat_map(|address| {
        let from = Match::Address(Side::Source, host(*address));
        match interface.port() {
            None => vec![Rule::new([from], Target::Return)],
            Some(_) => vec![
                Rule::new([from.clone(), Match::FrameToOne], Target::Return),
                goto([from], FOR_SEVERAL),
            ],
        }
    });
    let rules = ends.entry(interface.name.clone()).or_default();
    // Before what another endpoint at the same interface said of all others.
    rules.retain(|rule| rule.target != Target::Goto(FORGED.to_owned()));
    rules.extend(own.map(|rule| rule.labelled(&endpoint.label)));
    rules.push(goto([], FORGED).labelled(&endpoint.label));
}
