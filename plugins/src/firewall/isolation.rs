//! Keeping bridges' containers apart without iptables, in a table of our own: two look-ups, however many bridges there
//! are.
//!
//! A policy is the bridge's, which DEL of a container does not remove either. Networks may share a bridge, and disagree:
//! a map that packets are not looked up in tells what each of them wants of it, and the bridge is isolated as long as one
//! of them has it so. GC takes back what a network wants with its last attachment, and ADD where its policy is `open` by
//! now.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use attachment::kernel::FIREWALL_TABLE;
use cni::Call;
use netlink::nftables::{Batch, Change, Client};
use netlink::{Link, Request, Socket};
use ruleset::nft::{
    Base, Chain, Element, Encoded, Family, Field, Hook, Key, Kind, Match, Policy, Rule, Set,
    Statement, Table, Value, Verdict,
};

use super::Wanted;
use super::conf::IngressPolicy;
use crate::error::Error;
use crate::nf_tables::persist;
use crate::owner::{LONGEST_COMMENT, of_network};
use crate::veth;

/// The table of both families.
pub(super) const TABLE: Table<'static> = Table { family: Family::Inet, name: FIREWALL_TABLE };
const TABLE_COMMENT: &str = "Which bridges' containers may reach which, by podwire's firewall";
/// The bridges with a policy.
const BRIDGES: &str = "bridges";
/// What becomes of what a bridge with a policy sends back where it came from.
const WITHIN: &str = "within";
/// The same as each network wants it, by bridge and network: of the network the hash that comments begin with, in an
/// address of IPv6.
const NETWORKS: &str = "networks";
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

fn sets() -> [Set; 3] {
    let names = [Key::Interface, Key::Interface];
    [
        Set::new(BRIDGES, [Key::Interface]),
        Set::new(WITHIN, names).to_verdicts(),
        Set::new(NETWORKS, [Key::Interface, Key::Ipv6]).to_verdicts(),
    ]
}

fn rules() -> [Rule; 2] {
    let (from, to) = (Field::InInterface, Field::OutInterface);
    let is_bridge = |field| Match::In(vec![field], BRIDGES.to_owned());
    [
        Rule::new([], Statement::Map(vec![from, to], WITHIN.to_owned())),
        Rule::new([is_bridge(from), is_bridge(to)], Verdict::Drop),
    ]
}

/// What a network wants of a bridge, as an element of the map.
fn wish(bridge: &str, policy: IngressPolicy, network: &str) -> Element {
    let verdict = match policy {
        IngressPolicy::Isolated => Verdict::Drop,
        IngressPolicy::Open | IngressPolicy::SameBridge => Verdict::Accept,
    };
    let mut comment = format!("{}, net: {}", of_network(network), network.replace('"', ""));
    comment.truncate(comment.floor_char_boundary(LONGEST_COMMENT));
    let key = [Value::Interface(bridge.to_owned()), hash(&comment)];
    Element::new(key).leading_to(verdict).commented(comment)
}

/// The hash of a network that a comment begins with.
fn hash(comment: &str) -> Value {
    let digits = comment.split('-').next().unwrap_or_default();
    let hash = u64::from_str_radix(digits, 16).unwrap_or_default();
    Value::Address(Ipv6Addr::from(u128::from(hash)).into())
}

/// What networks want of bridges.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wishes(BTreeSet<Element>);

impl Wishes {
    /// By what the sets hold. Where the map of networks tells nothing of a bridge, the comment of the bridge's element
    /// does: in the tables of before that was all there was.
    fn of([_, within, networks]: &[BTreeSet<Element>; 3]) -> Self {
        let is_told = |bridge| networks.iter().any(|it| it.key.first() == Some(bridge));
        let of_before = within.iter().filter_map(|it| {
            let bridge = it.key.first().filter(|bridge| !is_told(*bridge))?;
            let whose = hash(it.comment.as_deref()?);
            Some(Element { key: vec![bridge.clone(), whose], ..it.clone() })
        });
        Self(of_before.chain(networks.iter().cloned()).collect())
    }

    fn add(&mut self, wish: &Element) {
        self.0.retain(|it| it.key != wish.key);
        self.0.insert(wish.clone());
    }

    fn of_network(&self, network: &str) -> Option<&Element> {
        let whose = hash(&of_network(network));
        self.0.iter().find(|it| it.key.last() == Some(&whose))
    }

    fn take_back(&mut self, network: &str) {
        let whose = hash(&of_network(network));
        self.0.retain(|it| it.key.last() != Some(&whose));
    }

    /// What the sets hold then. A bridge is isolated if one network wants that.
    fn elements(&self) -> [BTreeSet<Element>; 3] {
        let mut verdicts: BTreeMap<&Value, &Verdict> = BTreeMap::new();
        for wish in &self.0 {
            if let (Some(bridge), Some(verdict)) = (wish.key.first(), &wish.verdict) {
                let told = verdicts.entry(bridge).or_insert(verdict);
                if *verdict == Verdict::Drop {
                    *told = verdict;
                }
            }
        }
        let bridges = verdicts.keys().map(|it| Element::new([(*it).clone()]));
        let within = verdicts.iter().map(|(it, verdict)| {
            Element::new([(*it).clone(), (*it).clone()]).leading_to((*verdict).clone())
        });
        [bridges.collect(), within.collect(), self.0.clone()]
    }
}

/// What the table holds of each set.
fn held(client: &mut Client) -> Result<[BTreeSet<Element>; 3], netlink::Error> {
    let mut held = [const { BTreeSet::new() }; 3];
    for (elements, set) in held.iter_mut().zip(sets()) {
        *elements = set.decode(&client.elements(TABLE, &set.name)?.into_iter().collect());
    }
    Ok(held)
}

/// Those that are not among the others, whatever the comments are.
fn not_among(these: &BTreeSet<Element>, others: &BTreeSet<Element>, set: &Set) -> Vec<Encoded> {
    let is_same = |a: &Element, b: &Element| a.key == b.key && a.verdict == b.verdict;
    let missing = these.iter().filter(|it| !others.iter().any(|other| is_same(it, other)));
    missing.flat_map(|it| set.encode(it)).collect()
}

/// Keeps a bridge's containers apart from others as its policy says. Where networks that share a bridge disagree,
/// it is isolated.
pub(super) fn set_up(
    client: &mut Client,
    bridge: &str,
    policy: IngressPolicy,
    network: &str,
) -> Result<(), Error> {
    let wish = wish(bridge, policy, network);
    // Most often another container of the network was there before.
    if is_whole(client, &sets())? && has(client, &wish)? {
        return Ok(());
    }
    change(client, |wishes| wishes.add(&wish))
}

/// Whether the table has the wish of a network, and what comes of that for the bridge; another network may have that
/// isolated.
fn has(client: &mut Client, wish: &Element) -> Result<bool, netlink::Error> {
    let wanted = Wishes([wish.clone()].into()).elements();
    for (set, wanted) in sets().iter().zip(&wanted) {
        for element in wanted.iter().flat_map(|it| set.encode(it)) {
            let Some(found) = client.element(TABLE, &set.name, &element)? else {
                return Ok(false);
            };
            let is_isolated = set.name == WITHIN && found.verdict == Some(Verdict::Drop);
            if found.verdict != element.verdict && !is_isolated {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Changes what networks want, and with that what the bridges have; the table goes with the last wish. Nobody else has
/// changed anything meanwhile: who comes to a bridge and who leaves it must know of each other.
fn change(client: &mut Client, changed: impl Fn(&mut Wishes)) -> Result<(), Error> {
    persist(TABLE, || try_change(client, &changed))
}

fn try_change(client: &mut Client, changed: &dyn Fn(&mut Wishes)) -> Result<(), netlink::Error> {
    let mut batch = client.generation()?.map_or_else(Batch::default, Batch::of_generation);
    let (held, sets, rules) = (held(client)?, sets(), rules());
    let mut wishes = Wishes::of(&held);
    changed(&mut wishes);
    let wanted = wishes.elements();
    let each = sets.iter().zip(held.iter().zip(&wanted));
    let differing: Vec<_> = each
        .map(|(set, (held, wanted))| {
            (&set.name, not_among(held, wanted, set), not_among(wanted, held, set))
        })
        .collect();
    let mut changes = Vec::new();
    if wishes.0.is_empty() {
        if client.has_table(TABLE)? {
            changes.push(Change::DeleteAll);
        }
    } else {
        if !is_whole(client, &sets)? {
            let are_there = client.sets(TABLE)?;
            let is_there =
                |set: &Set| are_there.iter().any(|it| it.name == set.name && it.is_like(set));
            changes.extend([Change::Table(Some(TABLE_COMMENT)), Change::Chain(&FORWARD)]);
            changes.extend(sets.iter().filter(|it| !is_there(it)).map(Change::Set));
            changes.push(Change::Empty(FORWARD.name));
            changes.extend(rules.iter().map(|rule| Change::Rule(FORWARD.name, rule)));
        }
        for (set, gone, come) in &differing {
            changes.push(Change::DeleteElements(set, gone));
            changes.push(Change::Elements(set, come));
        }
    }
    changes.iter().for_each(|it| batch.push(TABLE, it));
    client.commit(&batch, &format!("change table {TABLE} in nf_tables"))
}

/// Whether the table has its chain, its rules and these of its sets.
fn is_whole(client: &mut Client, sets: &[Set]) -> Result<bool, netlink::Error> {
    let Some(table) = client.table(TABLE)? else { return Ok(false) };
    let has_chain = table.chains.iter().any(|it| it.is_like(&FORWARD));
    let held = client.sets(TABLE)?;
    let has_sets =
        sets.iter().all(|set| held.iter().any(|it| it.name == set.name && it.is_like(set)));
    Ok(has_chain && has_sets && client.rules(TABLE, FORWARD.name)?.len() == rules().len())
}

/// Whether a bridge has its policy.
pub(super) fn check(
    client: &mut Client,
    bridge: &str,
    policy: IngressPolicy,
    network: &str,
) -> Result<(), Error> {
    let wish = wish(bridge, policy, network);
    let held = held(client)?;
    let wishes = Wishes::of(&held);
    let is_wanted = wishes.0.iter().any(|it| it.key == wish.key && it.verdict == wish.verdict);
    let of_bridge = wishes.0.into_iter().filter(|it| it.key.first() == wish.key.first());
    // Packets do not ask what the networks want.
    let asked = sets().into_iter().filter(|it| it.name != NETWORKS);
    let asked = Vec::from_iter(asked);
    let wanted = Wishes(of_bridge.collect()).elements();
    let mut each = asked.iter().zip(wanted.iter().zip(&held));
    let is_kept = each.all(|(set, (wanted, held))| not_among(wanted, held, set).is_empty());
    if is_wanted && is_kept && is_whole(client, &asked)? {
        return Ok(());
    }
    let text = format!("table {TABLE} does not keep bridge {bridge:?} as {policy} any more");
    Err(Error::Changed(text))
}

/// Whether no bridge has a policy that a network had made, whose policy is `open` now.
pub(super) fn check_open(client: &mut Client, network: &str) -> Result<(), Error> {
    match Wishes::of(&held(client)?).of_network(network) {
        Some(element) => {
            let text = format!("table {TABLE} keeps apart what the network has open: {element}");
            Err(Error::Changed(text))
        }
        None => Ok(()),
    }
}

/// Takes back what a network wants of bridges, if anything.
pub(super) fn take_back(client: &mut Client, network: &str) -> Result<(), Error> {
    if !client.has_table(TABLE)? {
        return Ok(());
    }
    let wishes = Wishes::of(&held(client)?);
    if wishes.of_network(network).is_none() && !wishes.0.is_empty() {
        return Ok(());
    }
    change(client, |wishes| wishes.take_back(network))
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
        let wish = wish("cni0", IngressPolicy::Isolated, "n1");
        let [bridges, within, networks] = Wishes([wish].into()).elements().map(told);
        assert_eq!(bridges, ["\"cni0\""]);
        assert_eq!(within, ["\"cni0\" . \"cni0\" : drop"]);
        let comment = "comment \"43d91f8451058a70-, net: n1\"";
        assert_eq!(networks, [format!("\"cni0\" . ::43d9:1f84:5105:8a70 {comment} : drop")]);
    }

    fn told(elements: BTreeSet<Element>) -> Vec<String> {
        elements.iter().map(ToString::to_string).collect()
    }

    const ISOLATED: IngressPolicy = IngressPolicy::Isolated;
    const SAME: IngressPolicy = IngressPolicy::SameBridge;

    #[test]
    fn a_bridge_is_isolated_as_long_as_one_network_wants_it() {
        let mut wishes = Wishes(BTreeSet::new());
        let within = |wishes: &Wishes| told(wishes.elements()[1].clone()).join(", ");
        wishes.add(&wish("br0", SAME, "a"));
        wishes.add(&wish("br1", SAME, "a"));
        wishes.add(&wish("br0", ISOLATED, "b"));
        wishes.add(&wish("br0", ISOLATED, "c"));
        let isolated = "\"br0\" . \"br0\" : drop, \"br1\" . \"br1\" : accept";
        assert_eq!(within(&wishes), isolated);
        wishes.take_back("b");
        assert_eq!(within(&wishes), isolated);
        // It has changed its mind.
        wishes.add(&wish("br0", SAME, "c"));
        assert_eq!(within(&wishes), isolated.replace("drop", "accept"));
        wishes.take_back("a");
        assert_eq!(within(&wishes), "\"br0\" . \"br0\" : accept");
        wishes.take_back("c");
        assert_eq!(wishes.elements(), [const { BTreeSet::new() }; 3]);
    }

    /// Tables of before had a comment in place of the map of networks.
    #[test]
    fn a_bridge_of_a_table_of_before_is_of_the_network_in_its_comment() {
        let of = |bridge: &str, policy, network| {
            let wish = wish(bridge, policy, network);
            let name = wish.key[0].clone();
            (Element { key: vec![name.clone(), name], ..wish.clone() }, wish)
        };
        let (a, of_a) = of("br0", ISOLATED, "a");
        let (b, of_b) = of("br1", SAME, "b");
        let held = [BTreeSet::new(), [a.clone(), b.clone()].into(), BTreeSet::new()];
        assert_eq!(Wishes::of(&held), Wishes([of_a.clone(), of_b].into()));
        let held = [BTreeSet::new(), [a, b].into(), [of_a.clone()].into()];
        assert!(Wishes::of(&held).0.contains(&of_a));
        assert_eq!(Wishes::of(&held).0.len(), 2);
    }
}
