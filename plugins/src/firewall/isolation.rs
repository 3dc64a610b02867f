//! Keeping bridges' containers apart without iptables, in a table of our own: two look-ups, however many bridges there
//! are.
//!
//! A policy is the bridge's, which DEL of a container does not remove either; GC removes it with a network's last
//! attachment, and ADD where the network's policy is `open` by now.

use std::collections::BTreeSet;

use attachment::kernel::FIREWALL_TABLE;
use cni::Call;
use netlink::nftables::{Change, Client};
use netlink::{Link, Request, Socket};
use ruleset::nft::{
    Base, Chain, Element, Encoded, Family, Field, Hook, Key, Kind, Match, Policy, Rule, Set,
    Statement, Table, Value, Verdict,
};

use super::Wanted;
use super::conf::IngressPolicy;
use crate::error::Error;
use crate::nf_tables::attempt;
use crate::owner::{LONGEST_COMMENT, of_network};
use crate::veth;

/// The table of both families.
pub(super) const TABLE: Table<'static> = Table { family: Family::Inet, name: FIREWALL_TABLE };
const TABLE_COMMENT: &str = "Which bridges' containers may reach which, by podwire's firewall";
/// The bridges with a policy.
const BRIDGES: &str = "bridges";
/// What becomes of what a bridge with a policy sends back where it came from.
const WITHIN: &str = "within";
const FORWARD: Chain<'static> = Chain {
    name: "forward",
    // `filter`.
    base: Some(Base {
        kind: Kind::Filter,
        hook: Hook::Forward,
        priority: 0,
        policy: Policy::Accept,
    }),
    comment: None,
};

fn sets() -> [Set; 2] {
    let names = [Key::Interface, Key::Interface];
    [Set::new(BRIDGES, [Key::Interface]), Set::new(WITHIN, names).to_verdicts()]
}

fn rules() -> [Rule; 2] {
    let (from, to) = (Field::InInterface, Field::OutInterface);
    let is_bridge = |field| Match::In(vec![field], BRIDGES.to_owned());
    [
        Rule::new([], Statement::Map(vec![from, to], WITHIN.to_owned())),
        Rule::new([is_bridge(from), is_bridge(to)], Verdict::Drop),
    ]
}

/// The elements of a bridge, in the sets' order. Their comment tells the network that had them made.
fn elements(bridge: &str, policy: IngressPolicy, network: &str) -> [Element; 2] {
    let name = || Value::Interface(bridge.to_owned());
    let verdict = match policy {
        IngressPolicy::Isolated => Verdict::Drop,
        IngressPolicy::Open | IngressPolicy::SameBridge => Verdict::Accept,
    };
    let within = Element::new([name(), name()]).leading_to(verdict);
    [Element::new([name()]), within].map(|it| it.commented(comment(network)))
}

fn comment(network: &str) -> String {
    let mut comment = format!("{}, net: {}", of_network(network), network.replace('"', ""));
    comment.truncate(comment.floor_char_boundary(LONGEST_COMMENT));
    comment
}

/// What the table holds of one set.
fn held(client: &mut Client, set: &Set) -> Result<BTreeSet<Element>, netlink::Error> {
    let encoded = client.elements(TABLE, &set.name)?;
    Ok(set.decode(&encoded.into_iter().collect()))
}

fn encoded(set: &Set, elements: &[&Element]) -> Vec<Encoded> {
    elements.iter().flat_map(|it| set.encode(it)).collect()
}

/// Keeps a bridge's containers apart from others as its policy says. Where networks that share a bridge disagree,
/// it is isolated.
pub(super) fn set_up(
    client: &mut Client,
    bridge: &str,
    policy: IngressPolicy,
    network: &str,
) -> Result<(), Error> {
    let (sets, rules, wanted) = (sets(), rules(), elements(bridge, policy, network));
    attempt(|| {
        let mut changes = Vec::new();
        if !is_whole(client)? {
            changes.extend([Change::Table(Some(TABLE_COMMENT)), Change::Chain(&FORWARD)]);
            changes.extend(sets.iter().map(Change::Set));
            changes.push(Change::Empty(FORWARD.name));
            changes.extend(rules.iter().map(|rule| Change::Rule(FORWARD.name, rule)));
        }
        let mut replaced = Vec::new();
        for (set, wanted) in sets.iter().zip(&wanted) {
            let held = held(client, set)?;
            let present = held.into_iter().find(|it| it.key == wanted.key);
            if !present.as_ref().is_some_and(|present| stays(present, wanted)) {
                let former: Vec<&Element> = present.iter().collect();
                replaced.push((&set.name, encoded(set, &former), encoded(set, &[wanted])));
            }
        }
        for (set, former, wanted) in &replaced {
            if !former.is_empty() {
                changes.push(Change::DeleteElements(set, former));
            }
            changes.push(Change::Elements(set, wanted));
        }
        client.change(TABLE, &changes)
    })
}

/// Whether an element that is there serves as well as the wanted one: it says the same, or isolates for another
/// network.
fn stays(present: &Element, wanted: &Element) -> bool {
    present.verdict == wanted.verdict
        || (present.verdict == Some(Verdict::Drop) && present.comment != wanted.comment)
}

/// Whether the table has its chain and its rules.
fn is_whole(client: &mut Client) -> Result<bool, netlink::Error> {
    let Some(table) = client.table(TABLE)? else { return Ok(false) };
    let has_chain = table.chains.iter().any(|it| it.is_like(&FORWARD));
    let sets = client.sets(TABLE)?;
    let has_sets = self::sets().iter().all(|set| sets.iter().any(|it| it.is_like(set)));
    Ok(has_chain && has_sets && client.rules(TABLE, FORWARD.name)?.len() == rules().len())
}

/// Whether a bridge has its policy.
pub(super) fn check(
    client: &mut Client,
    bridge: &str,
    policy: IngressPolicy,
    network: &str,
) -> Result<(), Error> {
    let mut is_kept = is_whole(client)?;
    for (set, wanted) in sets().iter().zip(&elements(bridge, policy, network)) {
        let held = held(client, set)?;
        is_kept &= held.iter().any(|it| it.key == wanted.key && stays(it, wanted));
    }
    let text = || format!("table {TABLE} does not keep bridge {bridge:?} as {policy} any more");
    if is_kept { Ok(()) } else { Err(Error::Changed(text())) }
}

/// Whether no bridge has a policy that a network had made, whose policy is `open` now.
pub(super) fn check_open(client: &mut Client, network: &str) -> Result<(), Error> {
    for set in sets() {
        if let Some(element) = held(client, &set)?.into_iter().find(|it| is_of(it, network)) {
            let text = format!("table {TABLE} keeps apart what the network has open: {element}");
            return Err(Error::Changed(text));
        }
    }
    Ok(())
}

fn is_of(element: &Element, network: &str) -> bool {
    element.comment.as_deref().is_some_and(|comment| comment.starts_with(&of_network(network)))
}

/// Removes the policies that a network had made. The table stays: another network may just come to it. Where networks
/// share a bridge its elements tell but one of them; what that one takes back the next ADD of another makes anew, and
/// until then CHECK tells.
pub(super) fn take_back(client: &mut Client, network: &str) -> Result<(), Error> {
    let sets = sets();
    attempt(|| {
        let mut gone = Vec::new();
        for set in &sets {
            let held = held(client, set)?;
            let of_network: Vec<&Element> = held.iter().filter(|it| is_of(it, network)).collect();
            gone.push((&set.name, encoded(set, &of_network)));
        }
        let gone = gone.iter().filter(|(_, elements)| !elements.is_empty());
        let changes: Vec<Change<'_>> =
            gone.map(|(set, elements)| Change::DeleteElements(set, elements)).collect();
        client.change(TABLE, &changes)
    })
}

/// Removes the policies that a network had made, of which no attachment is left; and the table with the last.
pub(super) fn collect_garbage(client: &mut Client, network: &str) -> Result<(), Error> {
    take_back(client, network)?;
    for set in &sets() {
        if !held(client, set)?.is_empty() {
            return Ok(());
        }
    }
    Ok(client.remove(TABLE)?)
}

/// Keeps the container's port from the other ports of its bridge that are kept so: what a bridge takes from port to
/// port no table sees unless the module br_netfilter is there.
pub(super) fn isolate_port(call: &Call, wanted: &Wanted) -> Result<(), Error> {
    let Some((mut host, port)) = port(call, wanted)? else { return Ok(()) };
    Ok(host.execute(&[Request::isolate_port(port.index, &port.name)])?)
}

/// Whether the container's port is kept from others as its policy says, as podwire has it: the reference leaves ports as
/// they are.
pub(super) fn check_port(call: &Call, wanted: &Wanted) -> Result<(), Error> {
    match port(call, wanted)? {
        Some((_, port)) if !port.is_isolated => Err(Error::Changed(format!(
            "port {:?} of the bridge is not isolated any more",
            port.name
        ))),
        _ => Ok(()),
    }
}

/// The port that is to be kept from others, if the container is isolated and has one.
fn port(call: &Call, wanted: &Wanted) -> Result<Option<(Socket, Link)>, Error> {
    let Some(bridge) = &wanted.bridge else { return Ok(None) };
    if wanted.conf.ingress_policy != IngressPolicy::Isolated {
        return Ok(None);
    }
    let mut host = Socket::open()?;
    let Some(bridge) = host.link_by_name(bridge)?.filter(|it| it.kind == "bridge") else {
        return Ok(None);
    };
    let port = veth::host_end(call, &mut host)?;
    Ok(port.filter(|port| port.controller == Some(bridge.index)).map(|port| (host, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_from_bridge_to_bridge_is_looked_up() {
        assert_eq!(
            rules().map(|it| it.to_string()),
            ["iifname . oifname vmap @within", "iifname @bridges oifname @bridges drop"]
        );
        let texts = elements("cni0", IngressPolicy::Isolated, "n1").map(|it| it.to_string());
        let comment = "comment \"43d91f8451058a70-, net: n1\"";
        assert_eq!(
            texts,
            [format!("\"cni0\" {comment}"), format!("\"cni0\" . \"cni0\" {comment} : drop")]
        );
    }

    #[test]
    fn of_two_networks_that_disagree_the_one_that_isolates_is_heard() {
        let of = |policy, network| elements("cni0", policy, network)[1].clone();
        let (isolated, open) = (IngressPolicy::Isolated, IngressPolicy::SameBridge);
        assert!(stays(&of(isolated, "a"), &of(open, "b")));
        assert!(!stays(&of(open, "a"), &of(isolated, "b")));
        // It has changed its mind.
        assert!(!stays(&of(isolated, "a"), &of(open, "a")));
        assert!(stays(&of(open, "a"), &of(open, "b")));
    }
}
