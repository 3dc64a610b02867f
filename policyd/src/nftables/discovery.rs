//! The messages without which IPv6 is not there. Connection tracking leaves them alone.

use ruleset::iptables::Side;
use ruleset::networks::{LINK_LOCAL_V6, MULTICAST_V6};
use ruleset::nft::{Match, Rule, Verdict};

use super::{RuleChain, accept};
use crate::iptables::discovery::{LONGEST, OF_HOSTS, OF_LISTENERS, OF_ROUTERS};

/// The chain for what hosts send.
pub(super) const OF_HOST: &str = "PODWIRE-DISCOVERY-OF-HOSTS";
/// The chain for all that there is.
pub(super) const ANY: &str = "PODWIRE-DISCOVERY";

/// Both chains. What is let pass ends the base chain.
pub(super) fn chains() -> [RuleChain; 2] {
    let of_link = Match::Address(Side::Source, LINK_LOCAL_V6);
    let of_routers = OF_ROUTERS.into_iter().map(|kind| {
        let [hops, kind] = neighbour(kind);
        accept([of_link.clone(), hops, kind])
    });
    [
        RuleChain::new(OF_HOST, too_long().into_iter().chain(of_hosts())),
        RuleChain::new(ANY, too_long().into_iter().chain(of_routers).chain(of_hosts())),
    ]
}

fn too_long() -> [Rule; 1] {
    [Rule::new([Match::LongerThan(u32::from(LONGEST))], Verdict::Return)]
}

fn of_hosts() -> impl Iterator<Item = Rule> {
    let listeners = OF_LISTENERS.into_iter().map(|kind| {
        let groups = Match::Address(Side::Destination, MULTICAST_V6);
        accept([groups, Match::HopLimit(1), Match::Icmp6Type(kind)])
    });
    OF_HOSTS.into_iter().map(|kind| accept(neighbour(kind))).chain(listeners)
}

fn neighbour(kind: u8) -> [Match; 2] {
    [Match::HopLimit(255), Match::Icmp6Type(kind)]
}
