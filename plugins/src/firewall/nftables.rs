//! By nf_tables: containers' packets pass the chains of others that drop what none of their rules accepts.
//!
//! What one chain accepts another may still drop, so accepting in a table of our own would open nothing. And where
//! nobody drops what is forwarded, nothing needs to be opened.

use std::net::IpAddr;

use netlink::nftables::{Batch, Called, Change, Client};
use ruleset::iptables::{Packets, Side};
use ruleset::nft::{Family, Hook, Match, Rule, Verdict};

use super::iptables::FORWARD;
use super::isolation;
use crate::error::{Error, warn};
use crate::iptables::FILTER;
use crate::nf_tables::{attempt, deletions};
use crate::owner::{Owner, Stale};

/// What errors call it.
const WHAT: &str = "let containers' packets pass in nf_tables";

/// Whether it is a chain of iptables, whose programs could not read all of our rules.
pub(super) fn is_of_iptables(chain: &Called) -> bool {
    matches!(chain.family, Family::Ip | Family::Ip6)
        && chain.table == FILTER
        && chain.chain.name == FORWARD
}

/// The chains of others that drop what is forwarded, unless a rule of theirs accepts it.
fn dropping(client: &mut Client) -> Result<Vec<Called>, netlink::Error> {
    let mut chains = others(client)?;
    chains.retain(|it| it.chain.drops_rest());
    Ok(chains)
}

/// The chains of others that the kernel asks of what it forwards.
pub(super) fn others(client: &mut Client) -> Result<Vec<Called>, netlink::Error> {
    let mut chains = client.filters(Hook::Forward)?;
    chains.retain(|it| it.table != isolation::TABLE.name);
    Ok(chains)
}

/// The rules by which the addresses' packets pass in a table of this family.
fn rules(family: Family, owner: &Owner, addresses: &[IpAddr]) -> Vec<Rule> {
    let is_seen = |address: &&IpAddr| match family {
        Family::Ip => address.is_ipv4(),
        Family::Ip6 => address.is_ipv6(),
        _ => true,
    };
    let of_address = |address: &IpAddr| {
        let to = Match::Address(Side::Destination, (*address).into());
        let answers = Match::Connection(Packets::Established);
        let from = Match::Address(Side::Source, (*address).into());
        [vec![to, answers], vec![from]]
            .map(|matches| Rule::new(matches, Verdict::Accept).commented(&owner.comment))
    };
    addresses.iter().filter(is_seen).flat_map(of_address).collect()
}

/// Has an attachment's packets pass those of the chains that were `found` of which `is_one` is true, in place of what it
/// has there.
pub(super) fn set_up(
    client: &mut Client,
    found: Vec<Called>,
    owner: &Owner,
    addresses: &[IpAddr],
    is_one: impl Fn(&Called) -> bool,
) -> Result<(), Error> {
    let mut found = Some(found);
    attempt(|| {
        let mut batch = Batch::default();
        let chains = found.take().map_or_else(|| dropping(client), Ok)?;
        for it in chains.iter().filter(|it| is_one(it)) {
            let table = it.table();
            if client.is_owned(table)? {
                warn(&format!(
                    "chain {} of table {table} drops what it does not accept, and only who made it may change it",
                    it.chain.name
                ));
                continue;
            }
            let held = client.rules(table, &it.chain.name)?;
            let former = held.iter().filter(|rule| owner.has(rule.comment.as_deref()));
            deletions(&it.chain.name, former).for_each(|change| batch.push(table, &change));
            // The last is the first then.
            for rule in rules(it.family, owner, addresses).iter().rev() {
                batch.push(table, &Change::RuleFirst(&it.chain.name, rule));
            }
        }
        client.commit(&batch, WHAT)
    })
}

/// Whether an attachment's packets pass those of these chains of which `is_one` is true.
pub(super) fn check(
    client: &mut Client,
    found: &[Called],
    owner: &Owner,
    addresses: &[IpAddr],
    is_one: impl Fn(&Called) -> bool,
) -> Result<(), Error> {
    for it in found.iter().filter(|it| is_one(it)) {
        let table = it.table();
        let held = client.rules(table, &it.chain.name)?;
        let own = held.iter().filter(|rule| owner.has(rule.comment.as_deref())).count();
        let wanted = rules(it.family, owner, addresses).len();
        if own != wanted && !client.is_owned(table)? {
            return Err(Error::Changed(format!(
                "chain {} of table {table} drops what it does not accept, and has {own} of the attachment's {wanted} rules",
                it.chain.name
            )));
        }
    }
    Ok(())
}

/// Removes an attachment's rules.
pub(super) fn tear_down(client: &mut Client, owner: &Owner) -> Result<(), Error> {
    remove(client, |comment| owner.has(comment))
}

/// Removes the rules of attachments that are not valid.
pub(super) fn collect_garbage(client: &mut Client, stale: &Stale) -> Result<(), Error> {
    remove(client, |comment| stale.has(comment))
}

/// From all chains: one may drop no more what it did at ADD.
fn remove(client: &mut Client, is_gone: impl Fn(Option<&str>) -> bool) -> Result<(), Error> {
    attempt(|| {
        let mut batch = Batch::default();
        for it in others(client)? {
            let held = client.rules(it.table(), &it.chain.name)?;
            let gone = held.iter().filter(|rule| is_gone(rule.comment.as_deref()));
            deletions(&it.chain.name, gone).for_each(|change| batch.push(it.table(), &change));
        }
        client.commit(&batch, WHAT)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_has_the_rules_that_it_can_see() {
        let addresses = ["10.1.0.2", "fd00::2"].map(|it| it.parse().unwrap());
        let owner = Owner::new("n1", "cid1", "eth0");
        let texts = |family| -> Vec<String> {
            let rules = rules(family, &owner, &addresses);
            rules.iter().map(|it| it.to_string().replace(&owner.comment, "whose")).collect()
        };
        let four = [
            "ip daddr 10.1.0.2 ct state established,related accept comment \"whose\"",
            "ip saddr 10.1.0.2 accept comment \"whose\"",
        ];
        let six = [
            "ip6 daddr fd00::2 ct state established,related accept comment \"whose\"",
            "ip6 saddr fd00::2 accept comment \"whose\"",
        ];
        assert_eq!(texts(Family::Ip), four);
        assert_eq!(texts(Family::Ip6), six);
        assert_eq!(texts(Family::Inet), [four, six].concat());
    }
}
