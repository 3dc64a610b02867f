//! What the text tells that `iptables-save` prints.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::{HOSTPORTS, OfSiblings};
use crate::portmap::identity::{CHAIN_PREFIX, Identity};
use crate::portmap::mapping::{Held, Holder, Key, Protocol, Tag};

/// The rules that jump or go to a chain.
pub(super) fn leading_to<'a>(
    saved: &'a str,
    chain: &str,
) -> impl Iterator<Item = &'a str> + use<'a> {
    let targets = [format!(" -j {chain}"), format!(" -g {chain}")];
    let rules = saved.lines().filter_map(|line| line.strip_prefix("-A "));
    rules.filter(move |rule| targets.iter().any(|target| rule.ends_with(target)))
}

/// What containers have published. Whose a chain is, the comments of the rules that lead there tell.
pub(super) fn held(saved: &str) -> Vec<Held> {
    let rules = || saved.lines().filter_map(|line| line.strip_prefix("-A ")?.split_once(' '));
    let mut holders: BTreeMap<&str, Holder> = BTreeMap::new();
    for (_, rule) in rules().filter(|(chain, _)| *chain == HOSTPORTS) {
        let target = rule.rsplit_once(" -j ").map(|(_, target)| target);
        if let Some(target) = target.filter(|name| name.starts_with(CHAIN_PREFIX)) {
            holders.entry(target).or_insert_with(|| holder(rule));
        }
    }
    let held = rules().filter_map(|(chain, rule)| {
        let holder = holders.get(chain)?.clone();
        let (key, to) = translation(rule)?;
        Some(Held { key, to, holder, tag: Tag::Chain(chain.to_owned()) })
    });
    held.collect()
}

/// Network and container of a rule's comment.
pub(super) fn holder(rule: &str) -> Holder {
    let comment = rule.split_once("dnat name: \\\"").map_or("", |(_, rest)| rest);
    let (network, rest) = comment.split_once("\\\" id: \\\"").unwrap_or((comment, ""));
    let is_of_id = |it: char| it.is_ascii_alphanumeric() || "_.-".contains(it);
    let end = rest.find(|it: char| !is_of_id(it)).unwrap_or(rest.len());
    let container_id = rest.get(..end).unwrap_or_default();
    // Two dots where it was cut.
    let whole = container_id.trim_end_matches("..");
    Holder {
        network: network.to_owned(),
        container_id: whole.to_owned(),
        is_cut: whole.len() < container_id.len() || whole.is_empty(),
        ifname: None,
    }
}

/// What a rule translates, and where to.
fn translation(rule: &str) -> Option<(Key, IpAddr)> {
    let mut words = rule.split(' ');
    let (mut protocol, mut port, mut address, mut to) = (None, None, None, None);
    while let Some(word) = words.next() {
        match word {
            "-p" => protocol = words.next().and_then(Protocol::parse),
            "--dport" => port = words.next().and_then(|it| it.parse().ok()),
            "-d" => address = words.next().and_then(|it| it.split('/').next()?.parse().ok()),
            "--to-destination" => {
                let target: SocketAddr = words.next()?.parse().ok()?;
                to = Some(target.ip());
            }
            _ => {}
        }
    }
    Some((Key { protocol: protocol?, port: port?, address }, to?))
}

/// What other interfaces of a container have in the chain that they share with one, and what else there is.
pub(super) struct Kept<'a> {
    /// Their rules, in order.
    pub(super) rules: Vec<&'a str>,
    /// All other rules of the chain.
    pub(super) others: Vec<&'a str>,
    /// What theirs publish.
    ports: BTreeSet<(Protocol, u16)>,
    /// What the other rules do.
    other_ports: BTreeSet<(Protocol, u16)>,
}

impl<'a> Kept<'a> {
    /// Of a chain: the rules that lead to an address which is `of_siblings`, each with those that mark before it.
    pub(super) fn of(saved: &'a str, chain: &str, of_siblings: OfSiblings<'_>) -> Self {
        let (rules, others) = (Vec::new(), Vec::new());
        let (ports, other_ports) = (BTreeSet::new(), BTreeSet::new());
        let mut kept = Self { rules, others, ports, other_ports };
        let mut group = Vec::new();
        for rule in rules_of(saved, chain) {
            group.push(rule);
            let Some((key, to)) = translation(rule) else { continue };
            if of_siblings(to) {
                kept.ports.insert((key.protocol, key.port));
                kept.rules.append(&mut group);
            } else {
                kept.other_ports.insert((key.protocol, key.port));
                kept.others.append(&mut group);
            }
        }
        kept.others.append(&mut group);
        kept
    }

    /// Whether a rule that leads to the chain is for ports of theirs alone, and for some of them. Ports that nothing in the chain is for
    /// are published of an address of the other family.
    pub(super) fn needs(&self, rule: &str) -> bool {
        ports(rule).is_some_and(|ports| is_for_alone(&ports, &self.ports, &self.other_ports))
    }

    /// Whether any other rule of the chain is for a port of a rule that leads there.
    pub(super) fn is_led_to(&self, rule: &str) -> bool {
        ports(rule).is_none_or(|ports| ports.iter().any(|port| self.other_ports.contains(port)))
    }
}

/// The ports of a rule, if it is for single ones.
fn ports(rule: &str) -> Option<Vec<(Protocol, u16)>> {
    let words: Vec<&str> = rule.split(' ').collect();
    let after = |word: &str| {
        let place = words.iter().position(|it| *it == word)?;
        words.get(place.checked_add(1)?).copied()
    };
    let protocol = Protocol::parse(after("-p")?)?;
    let ports = after("--dports").or_else(|| after("--dport"))?;
    ports.split(',').map(|port| Some((protocol, port.parse().ok()?))).collect()
}

/// Whether some of these are among the first, and the others are among none, or there as well.
pub(super) fn is_for_alone<T: Ord>(all: &[T], first: &BTreeSet<T>, second: &BTreeSet<T>) -> bool {
    let mut of_any = all.iter().filter(|it| first.contains(it) || second.contains(it)).peekable();
    of_any.peek().is_some() && of_any.all(|it| first.contains(it))
}

/// The rules of a chain.
fn rules_of<'a>(saved: &'a str, chain: &str) -> impl Iterator<Item = &'a str> {
    let rules = saved.lines().filter_map(|line| line.strip_prefix("-A "));
    rules.filter(move |rule| rule.split(' ').next() == Some(chain))
}

/// Where a chain leads what.
pub(super) fn translations(saved: &str, chain: &str) -> Vec<(Key, IpAddr)> {
    rules_of(saved, chain).filter_map(translation).collect()
}

/// The chains of the containers in `network`, each once. The comment's end does not matter, because iptables
/// cuts it.
pub(super) fn chains_of<'a>(saved: &'a str, network: &str) -> Vec<&'a str> {
    let marker = Identity::comment_of_network(network);
    let rules = saved.lines().filter(|line| line.starts_with("-A ") && line.contains(&marker));
    let targets = rules.filter_map(|rule| rule.rsplit_once(" -j ").map(|(_, target)| target));
    let mut chains: Vec<&str> = targets.filter(|name| name.starts_with(CHAIN_PREFIX)).collect();
    chains.sort_unstable();
    chains.dedup();
    chains
}
