//! Masquerading by nf_tables, without a program, in the reference plugins' layout
//! (`pkg/ip/ipmasq_nftables_linux.go`): one table, in which a comment tells whose a rule is.

use ipnetwork::IpNetwork;
use netlink::nftables::{Change, Client, HeldRule};
use nix::errno::Errno;
use ruleset::iptables::Side;
use ruleset::nft::{
    Base, Chain, Family, Hook, Kind, Match, Policy, Rule, Statement, Table, Verdict,
};

use super::multicast;
use crate::error::Error;
use crate::iptables::FAMILIES;
use crate::nf_tables::{attempt, deletions};
use crate::owner::{Owner, Stale};

pub(super) const TABLE: Table<'static> =
    Table { family: Family::Inet, name: "cni_plugins_masquerade" };
const TABLE_COMMENT: &str = "Masquerading for plugins from github.com/containernetworking/plugins";
/// The attachments' rules.
pub(super) const CHECKS: Chain<'static> = Chain {
    name: "masq_checks",
    base: None,
    comment: Some(
        "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet",
    ),
};
/// What leads there.
const POSTROUTING: Chain<'static> = Chain {
    name: "postrouting",
    // `srcnat`.
    base: Some(Base {
        kind: Kind::Nat,
        hook: Hook::Postrouting,
        priority: 100,
        policy: Policy::Accept,
    }),
    comment: None,
};
/// The rules for an attachment's addresses.
fn rules(owner: &Owner, addresses: &[IpNetwork]) -> Vec<Rule> {
    let rule = |address: &IpNetwork| {
        let own = Match::Address(Side::Source, address.ip().into());
        let elsewhere = Match::NotAddress(Side::Destination, *address);
        Rule::new([own, elsewhere], Statement::MASQUERADE).commented(&owner.comment)
    };
    addresses.iter().map(rule).collect()
}

/// Whether a rule is the attachment's.
fn is_of(owner: &Owner, rule: &HeldRule) -> bool {
    owner.has(rule.comment.as_deref())
}

/// What is in front of the attachments' rules.
fn head() -> [Rule; 3] {
    let [four, six] = FAMILIES.map(|family| {
        let groups = Match::Address(Side::Destination, multicast(family));
        Rule::new([groups], Verdict::Return)
    });
    [four, six, Rule::new([], Verdict::Goto(CHECKS.name.to_owned()))]
}

/// Adds the rules for an attachment's addresses, in place of any that it has.
pub(super) fn set_up(
    client: &mut Client,
    owner: &Owner,
    addresses: &[IpNetwork],
) -> Result<(), Error> {
    let (head, rules) = (head(), rules(owner, addresses));
    attempt(|| {
        let held = client.rules(TABLE, CHECKS.name)?;
        let mut changes = Vec::new();
        // Whoever deletes rules waits for the kernel when it closes the socket.
        if !leads_there(client)? {
            changes.extend([Change::Table(Some(TABLE_COMMENT)), Change::Chain(&CHECKS)]);
            changes.extend([Change::Chain(&POSTROUTING), Change::Empty(POSTROUTING.name)]);
            changes.extend(head.iter().map(|rule| Change::Rule(POSTROUTING.name, rule)));
        }
        changes.extend(deletions(CHECKS.name, held.iter().filter(|rule| is_of(owner, rule))));
        changes.extend(rules.iter().map(|rule| Change::Rule(CHECKS.name, rule)));
        client.change(TABLE, &changes)
    })
}

/// Whether the kernel has what leads to the attachments' rules.
fn leads_there(client: &mut Client) -> Result<bool, netlink::Error> {
    let jumps = client.jumps(TABLE, POSTROUTING.name, CHECKS.name);
    let jumps = match jumps {
        Err(error) if error.errno() == Some(Errno::ENOENT) => return Ok(false),
        jumps => jumps?,
    };
    Ok(jumps.iter().any(|jump| jump.source.is_none())
        && client.rules(TABLE, POSTROUTING.name)?.len() == head().len())
}

/// Removes an attachment's rules, whichever suite made them.
pub(super) fn tear_down(client: &mut Client, owner: &Owner) -> Result<(), Error> {
    remove(client, |rule| is_of(owner, rule))
}

/// Removes the rules of attachments that are not valid.
pub(super) fn collect_garbage(client: &mut Client, stale: &Stale) -> Result<(), Error> {
    remove(client, |rule| stale.has(rule.comment.as_deref()))
}

fn remove(client: &mut Client, is_stale: impl Fn(&HeldRule) -> bool) -> Result<(), Error> {
    attempt(|| {
        let held = client.rules(TABLE, CHECKS.name)?;
        let changes: Vec<_> =
            deletions(CHECKS.name, held.iter().filter(|rule| is_stale(rule))).collect();
        client.change(TABLE, &changes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_read_as_nft_lists_those_of_the_reference() {
        let addresses = ["10.1.0.2/24".parse().unwrap(), "fd00::2/64".parse().unwrap()];
        let owner = Owner::new("n1", "cid1", "eth0");
        let rules: Vec<String> =
            super::rules(&owner, &addresses).iter().map(ToString::to_string).collect();
        let comment = &owner.comment;
        assert_eq!(
            rules,
            [
                format!(
                    "ip saddr 10.1.0.2 ip daddr != 10.1.0.0/24 masquerade comment \"{comment}\""
                ),
                format!(
                    "ip6 saddr fd00::2 ip6 daddr != fd00::/64 masquerade comment \"{comment}\""
                ),
            ]
        );
        let head = head().map(|rule| rule.to_string());
        assert_eq!(
            head,
            ["ip daddr 224.0.0.0/4 return", "ip6 daddr ff00::/8 return", "goto masq_checks"]
        );
    }
}
