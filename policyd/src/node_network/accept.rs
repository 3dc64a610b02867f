//! Letting pods' packets pass where others drop what is forwarded: Docker, ufw and firewalld set the
//! policy of FORWARD in table filter to DROP, or end it with a refusal.
//!
//! It opens nothing that NetworkPolicies close: those are in table mangle, which comes before.

use std::fs;

use ipnetwork::IpNetwork;
use netlink::nftables::Client;
use ruleset::iptables::{Chain, Match, Rule, RuleHash, Saved, Side, Target};
use ruleset::nft::Table;

use super::constants::CHAIN;
use crate::iptables::Family;
use crate::own_chain::{OwnChain, Place};

/// The jump to the chain.
fn jump() -> Rule {
    Rule::new([], Target::Jump(CHAIN.to_owned())).labelled("accept what pods send and get")
}

/// Leaves out the jump of what a table holds of ours, for who looks at the rules of policy alone.
pub(crate) fn forget_jump(saved: &mut Saved) {
    let hash = RuleHash::of(&jump());
    saved.hooks.retain(|_, held| {
        held.retain(|(_, it)| *it != hash);
        !held.is_empty()
    });
}

/// Where the chain hangs: ahead of all, but for the rule by which policyd rejects what it denies.
pub(crate) fn own_chain() -> OwnChain {
    OwnChain { table: "filter", name: CHAIN, from: "FORWARD", jump: jump(), place: Place::First }
}

/// Whether FORWARD in table filter drops, or may (what the old tables have only their programs tell), or has our
/// chain, so that there is something for the programs of iptables to do. A refusal at its end is not seen.
///
/// # Errors
/// [`netlink::Error`] when the kernel cannot be asked.
pub(crate) fn needs_programs(family: Family) -> Result<bool, netlink::Error> {
    if has_old_tables() {
        return Ok(true);
    }
    let Some(mut client) = Client::open()? else { return Ok(false) };
    let table = client.table(Table { family: family.of_nf_tables(), name: "filter" })?;
    let mut chains = table.into_iter().flat_map(|it| it.chains);
    Ok(chains.any(|it| it.name == CHAIN || (it.name == "FORWARD" && it.drops_rest())))
}

pub(crate) fn has_old_tables() -> bool {
    let files = ["ip_tables_names", "ip6_tables_names"];
    let names = files.map(|it| fs::read_to_string(format!("/proc/thread-self/net/{it}")));
    names.iter().flatten().any(|names| names.lines().any(|name| name == "filter"))
}

/// The chain of one family, for these ranges of the node's pods. Whatever is forwarded for a pod of
/// this node comes from there or goes there: those of others need no rule here. (What comes in for a
/// Service and leaves to a pod of another node is the service proxy's, which accepts it by itself.)
pub(crate) fn chain(ranges: &[IpNetwork], family: Family) -> Chain {
    let own = ranges.iter().filter(|range| family.has_network(range));
    let rules = own.flat_map(|range| {
        [Side::Source, Side::Destination]
            .map(|side| Rule::new([Match::Address(side, *range)], Target::Accept))
    });
    Chain { name: CHAIN.to_owned(), rules: rules.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_has_its_own_ranges() {
        let ranges = ["10.244.1.0/24", "fd00:1::/64"].map(|it| it.parse().unwrap());
        let texts = |family| {
            let chain = chain(&ranges, family);
            chain.rules.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(texts(Family::V4), ["-s 10.244.1.0/24 -j ACCEPT", "-d 10.244.1.0/24 -j ACCEPT"]);
        assert_eq!(texts(Family::V6), ["-s fd00:1::/64 -j ACCEPT", "-d fd00:1::/64 -j ACCEPT"]);
    }
}
