//! The messages without which IPv6 is not there. Connection tracking leaves them alone.

use ruleset::iptables::{Chain, Match, Rule, Side, Target};
use ruleset::networks::{LINK_LOCAL_V6, MULTICAST_V6};

use super::{goto, jump};

/// Neighbour discovery (RFC 4861) has the greatest hop limit, so that all see that no router has
/// forwarded it: what a pod gives that type and sends further is not it. These are what hosts say:
/// that they look for routers, and of neighbours.
pub(crate) const OF_HOSTS: [u8; 3] = [133, 135, 136];
/// What only routers say: of routes, and of better ones.
pub(crate) const OF_ROUTERS: [u8; 2] = [134, 137];
/// Listener discovery (RFC 2710, RFC 3810) goes to groups, with a hop limit that no router forwards.
pub(crate) const OF_LISTENERS: [u8; 4] = [130, 131, 132, 143];

/// All the types that there are of it.
pub(crate) fn types() -> impl Iterator<Item = u8> {
    OF_HOSTS.into_iter().chain(OF_ROUTERS).chain(OF_LISTENERS)
}

/// None is put together from fragments (RFC 6980), and what is no longer than this a bridge does not take
/// apart again (`br_ip6_fragment`): then the kernel would fill in a checksum wherever its sender has asked it to
/// (`skb_checksum_help`), and so have it be something else than what was looked at.
pub(crate) const LONGEST: u16 = 1280;

/// The chain for what is of ICMPv6: these kinds are let pass, and the rest is asked of `rest`.
pub(super) fn chain(name: String, kinds: impl Iterator<Item = Vec<Match>>, rest: &str) -> Chain {
    let passing = kinds.map(|matches| Rule::new(matches, Target::Return));
    let too_long = goto([Match::LongerThan(LONGEST)], rest);
    Chain { name, rules: [too_long].into_iter().chain(passing).chain([jump([], rest)]).collect() }
}

/// What matches each kind that a host sends.
pub(super) fn of_hosts() -> impl Iterator<Item = Vec<Match>> {
    OF_HOSTS.into_iter().map(neighbour).chain(OF_LISTENERS.into_iter().map(listener))
}

/// What matches each kind that there is: from a router, which has a link-local address for that, or from a
/// host.
pub(super) fn of_all() -> impl Iterator<Item = Vec<Match>> {
    let of_link = Match::Address(Side::Source, LINK_LOCAL_V6);
    let of_router = move |kind| [vec![of_link.clone()], neighbour(kind)].concat();
    OF_ROUTERS.into_iter().map(of_router).chain(of_hosts())
}

fn neighbour(kind: u8) -> Vec<Match> {
    vec![Match::HopLimit(255), Match::Icmp6Type(kind)]
}

fn listener(kind: u8) -> Vec<Match> {
    let groups = Match::Address(Side::Destination, MULTICAST_V6);
    vec![groups, Match::HopLimit(1), Match::Icmp6Type(kind)]
}
