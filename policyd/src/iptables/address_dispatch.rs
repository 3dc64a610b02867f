//! From an address to its rules, in as many steps as the number of addresses has digits.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use ruleset::iptables::{Chain, Match, Rule, Side, Target};
use ruleset::networks::around;
use ruleset::short_hash;

use super::host;

/// As many addresses are looked through one by one.
const LEAF: usize = 8;
/// By so many bits addresses are told apart in one step.
const STEP: u8 = 4;

/// The chain `root`, and those it leads to, which send a packet with one of these addresses on to
/// the chain of that name.
pub(super) fn by_address(root: &str, side: Side, targets: &BTreeMap<IpAddr, String>) -> Vec<Chain> {
    let mut chains = Vec::new();
    let targets: Vec<_> = targets.iter().map(|(address, chain)| (*address, chain)).collect();
    divide(root, root.to_owned(), side, &targets, &mut chains);
    chains
}

fn divide(
    root: &str,
    name: String,
    side: Side,
    targets: &[(IpAddr, &String)],
    chains: &mut Vec<Chain>,
) {
    let mut rules = Vec::new();
    for (network, targets) in groups(targets) {
        match network {
            Some(network) => {
                let child = format!("{root}-{}", short_hash(&network.to_string()));
                let matches = [Match::Address(side, network)];
                rules.push(Rule::new(matches, Target::Goto(child.clone())));
                divide(root, child, side, &targets, chains);
            }
            None => rules.extend(targets.iter().map(|(address, chain)| {
                let matches = [Match::Address(side, host(*address))];
                Rule::new(matches, Target::Goto((*chain).clone()))
            })),
        }
    }
    chains.push(Chain { name, rules });
}

type Group<'a> = (Option<IpNetwork>, Vec<(IpAddr, &'a String)>);

/// The targets by the first bits in which they differ; few are not divided.
fn groups<'a>(targets: &[(IpAddr, &'a String)]) -> Vec<Group<'a>> {
    if targets.len() <= LEAF {
        return vec![(None, targets.to_vec())];
    }
    // They are sorted: what the first and the last have in common, all have.
    let common = match (targets.first(), targets.last()) {
        (Some((first, _)), Some((last, _))) => bits_in_common(*first, *last),
        _ => 0,
    };
    let mut groups = BTreeMap::<_, Vec<_>>::new();
    for (address, chain) in targets {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = common.saturating_add(STEP).min(longest);
        let network = around(*address, prefix).filter(|_| prefix < longest);
        groups.entry(network).or_default().push((*address, *chain));
    }
    groups.into_iter().map(|(network, it)| (network.filter(|_| it.len() > 1), it)).collect()
}

fn bits_in_common(one: IpAddr, two: IpAddr) -> u8 {
    let bits = match (one, two) {
        (IpAddr::V4(one), IpAddr::V4(two)) => (one.to_bits() ^ two.to_bits()).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(two)) => (one.to_bits() ^ two.to_bits()).leading_zeros(),
        _ => 0,
    };
    u8::try_from(bits).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Where a packet with this address ends, and how many rules it goes through.
    fn walk(chains: &[Chain], address: IpAddr) -> (Option<String>, usize) {
        let mut name = "ROOT".to_owned();
        let mut steps = 0;
        'chain: while let Some(chain) = chains.iter().find(|chain| chain.name == name) {
            for rule in &chain.rules {
                steps += 1;
                let [Match::Address(Side::Source, network)] = rule.matches[..] else { panic!() };
                let Target::Goto(next) = &rule.target else { panic!() };
                if network.contains(address) {
                    name.clone_from(next);
                    continue 'chain;
                }
            }
            return (None, steps);
        }
        (Some(name), steps)
    }

    fn check(addresses: &BTreeSet<IpAddr>, others: &[IpAddr]) -> usize {
        let targets = addresses.iter().map(|it| (*it, format!("POD {it}"))).collect();
        let chains = by_address("ROOT", Side::Source, &targets);
        let names: BTreeSet<_> = chains.iter().map(|chain| &chain.name).collect();
        assert_eq!(names.len(), chains.len());
        for other in others.iter().filter(|it| !addresses.contains(it)) {
            assert_eq!(walk(&chains, *other).0, None);
        }
        let walked = addresses.iter().map(|address| {
            let (end, steps) = walk(&chains, *address);
            assert_eq!(end, Some(format!("POD {address}")));
            steps
        });
        walked.max().unwrap_or(0)
    }

    #[test]
    fn the_cost_does_not_grow_with_the_addresses() {
        let addresses =
            |count: u16| (0..count).map(|it| [10, 244, (it >> 8) as u8, it as u8].into()).collect();
        assert!(check(&addresses(250), &[]) <= 32);
        assert!(check(&addresses(4000), &[]) <= 48);
    }

    proptest! {
        #[test]
        fn every_address_is_led_to_its_own_chain_and_no_other_to_any(
            four in proptest::collection::btree_set((0..4_u8, any::<u8>()), 0..60),
            others in proptest::collection::vec((0..4_u8, any::<u8>()), 20),
        ) {
            let address = |(one, two): &(u8, u8)| IpAddr::from([10, 0, *one, *two]);
            check(&four.iter().map(address).collect(), &others.iter().map(address).collect::<Vec<_>>());
        }

        #[test]
        fn nor_of_ipv6(
            six in proptest::collection::btree_set(any::<u128>(), 0..40),
            near in proptest::collection::btree_set(0..40_u128, 0..20),
            others in proptest::collection::vec(0..40_u128, 20),
        ) {
            let address = |bits: &u128| IpAddr::from(bits.to_be_bytes());
            check(
                &six.iter().chain(&near).map(address).collect(),
                &others.iter().map(address).collect::<Vec<_>>(),
            );
        }
    }
}
