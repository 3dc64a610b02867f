//! The table of nf_tables, and what it takes to have it as it shall be.

use netlink::nftables::{Batch, Change, Client};
use ruleset::iptables::Side;
use ruleset::nft::{Base, Hook, Kind, Match, Policy, Rule, Statement, Table, Verdict};

use super::{CHAIN, Config, Options};
use crate::dataplane::{Error, Held};
use crate::iptables::Family;
use crate::nftables::RuleChain;

/// A table of its own.
pub(super) const TABLE: Table<'static> =
    Table { family: ruleset::nft::Family::Inet, name: "podwire-masquerade" };
const COMMENT: &str = "what leaves the cluster, by policyd";
/// Behind all others that masquerade (100): what has an address by then keeps it. An ACCEPT in a chain of theirs
/// ends that chain alone.
const BEHIND_OTHERS: i32 = 110;
/// Those with ports that can be chosen: TCP, UDP, SCTP.
const WITH_PORTS: [u8; 3] = [6, 17, 132];

/// Its chains: each family's returns for what is not masqueraded, and masquerades the rest.
fn chains(config: &Config, options: &Options) -> Vec<RuleChain> {
    let families = Family::ALL.into_iter().filter(|it| it.is_ipv4() || options.ipv6);
    let leads = families.clone().map(|family| {
        let matches = [Match::Family { is_ipv4: family.is_ipv4() }, Match::NotToLocal];
        Rule::new(matches, Verdict::Goto(name(family)))
    });
    let base = Base {
        kind: Kind::Nat,
        hook: Hook::Postrouting,
        priority: BEHIND_OTHERS,
        policy: Policy::Accept,
    };
    let base = RuleChain { base: Some(base), ..RuleChain::new("postrouting", leads) };
    let of_families = families.map(|it| RuleChain::new(name(it), rules(config, options, it)));
    of_families.chain([base]).collect()
}

fn name(family: Family) -> String {
    format!("{CHAIN}-{}", if family.is_ipv4() { 4 } else { 6 })
}

fn rules(config: &Config, options: &Options, family: Family) -> Vec<Rule> {
    let spared = super::spared(config, family);
    let mut rules: Vec<_> = spared
        .map(|it| Rule::new([Match::Address(Side::Destination, it)], Verdict::Return))
        .collect();
    let random_fully = options.random_fully;
    for protocol in WITH_PORTS {
        rules.extend(options.to_ports.shares().map(|(range, of_million)| {
            let chance = (of_million < 1_000_000).then_some(Match::ByChance { of_million });
            let matches: Vec<_> = [Match::Protocol(protocol)].into_iter().chain(chance).collect();
            masquerade(matches, Statement::Masquerade { random_fully, to_ports: Some(range) })
        }));
    }
    rules.push(masquerade(vec![], Statement::Masquerade { random_fully, to_ports: None }));
    rules
}

/// What iptables counts unasked.
fn masquerade(matches: Vec<Match>, statement: Statement) -> Rule {
    Rule::new(matches, statement).counted()
}

/// Makes the table as it shall be; whether it was not.
pub(super) fn install(config: &Config, options: &Options) -> Result<bool, Error> {
    let mut client = Client::open()?.ok_or(Error::NoNftables)?;
    let wanted = chains(config, options);
    let held = Held::read(&mut client, TABLE, |_| false)?;
    // The chains can be had by changing rules alone, while those of before are in force.
    let is_kept = held.is_awake
        && held.chains.keys().all(|name| wanted.iter().any(|it| it.name == *name))
        && wanted.iter().all(|it| held.takes_chain(it));
    if is_kept && wanted.iter().all(|it| held.chains.get(&it.name) == Some(&it.marks())) {
        return Ok(false);
    }
    let mut batch = Batch::default();
    if !is_kept {
        // Once made it can be deleted.
        batch.push(TABLE, &Change::Table(None));
        batch.push(TABLE, &Change::DeleteAll);
    }
    batch.push(TABLE, &Change::Table(Some(COMMENT)));
    wanted.iter().for_each(|it| batch.push(TABLE, &Change::Chain(&it.head())));
    for chain in &wanted {
        batch.push(TABLE, &Change::Empty(&chain.name));
        chain.rules.iter().for_each(|it| batch.push(TABLE, &Change::Rule(&chain.name, it)));
    }
    client.commit(&batch, "write the rules of masquerading to nf_tables")?;
    Ok(true)
}

/// Removes the table, where there is one.
pub(super) fn remove() -> Result<(), Error> {
    let client = Client::open()?;
    Ok(client.map_or(Ok(()), |mut it| it.remove(TABLE))?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn it_says_what_the_rules_of_iptables_say() {
        let options = Options { ipv6: true, ..Options::default() };
        let mut config = Config::default_for(&options);
        config.non_masquerade = ["10.0.0.0/8", "fd00::/8"].map(|it| it.parse().unwrap()).into();
        let chains = chains(&config, &options);
        let texts = |chain: &RuleChain| -> Vec<String> {
            let rules = chain.rules.iter().map(ToString::to_string);
            rules.map(|it| it.split(" comment ").next().unwrap().to_owned()).collect()
        };
        let text =
            chains.iter().map(|it| (it.name.as_str(), texts(it))).collect::<BTreeMap<_, _>>();
        let by_ports = |protocol: &str| {
            [
                format!(
                    "meta l4proto {protocol} numgen random mod 1000000 < 469292 counter masquerade to :1024-29999 fully-random"
                ),
                format!("meta l4proto {protocol} counter masquerade to :32768-65535 fully-random"),
            ]
        };
        let rest = ["tcp", "udp", "sctp"].map(by_ports).concat();
        let rest = [rest, vec!["counter masquerade fully-random".to_owned()]].concat();
        let spared = |networks: [&str; 3]| networks.map(|it| format!("{it} return")).to_vec();
        let four =
            spared(["ip daddr 224.0.0.0/4", "ip daddr 169.254.0.0/16", "ip daddr 10.0.0.0/8"]);
        let six = spared(["ip6 daddr ff00::/8", "ip6 daddr fe80::/10", "ip6 daddr fd00::/8"]);
        assert_eq!(text["PODWIRE-MASQUERADE-4"], [four, rest.clone()].concat());
        assert_eq!(text["PODWIRE-MASQUERADE-6"], [six, rest].concat());
        assert_eq!(
            text["postrouting"],
            [
                "meta nfproto ipv4 fib daddr type != local goto PODWIRE-MASQUERADE-4",
                "meta nfproto ipv6 fib daddr type != local goto PODWIRE-MASQUERADE-6",
            ]
        );
        assert_eq!(super::chains(&config, &Options::default()).len(), 2);
    }
}
