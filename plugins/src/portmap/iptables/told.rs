//! What the kernel tells where `iptables-save` does not list a table: less than the text would.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink::nftables::{Change, Client, PortRule};

use super::saved::{holder, is_for_alone};
use super::{HOSTPORTS, OfSiblings};
use crate::iptables::{Family, NAT};
use crate::kernel_tables::table;
use crate::portmap::identity::{CHAIN_PREFIX, Identity};
use crate::portmap::mapping::{Held, Holder, Key, Protocol, Tag};

/// What containers have published: each port at whatever address of the host.
pub(super) fn held(client: &mut Client, family: Family) -> Result<Vec<Held>, netlink::Error> {
    let mut holders: BTreeMap<String, Holder> = BTreeMap::new();
    for (chain, jump) in jumps(client, family)? {
        holders.entry(chain).or_insert_with(|| holder(&comment(&jump)));
    }
    let mut held = Vec::new();
    for (chain, holder) in holders {
        for rule in client.port_rules(table(family, NAT), &chain)? {
            let Some(to) = rule.to else { continue };
            held.extend(keys(&rule).map(|key| Held {
                key,
                to,
                holder: holder.clone(),
                tag: Tag::Chain(chain.clone()),
            }));
        }
    }
    Ok(held)
}

/// The chains of the containers in `network`.
pub(super) fn chains_of(
    client: &mut Client,
    family: Family,
    network: &str,
) -> Result<BTreeSet<String>, netlink::Error> {
    let marker = Identity::comment_of_network(network);
    let jumps = jumps(client, family)?.into_iter();
    Ok(jumps.filter(|(_, it)| comment(it).contains(&marker)).map(|(chain, _)| chain).collect())
}

/// Removes what a chain has, and what leads to it from that which it is told with; but for that which is `of_siblings`. Tells
/// what that published.
pub(super) fn remove(
    client: &mut Client,
    family: Family,
    (hook, chain): (&str, &str),
    of_siblings: OfSiblings<'_>,
) -> Result<Vec<(Key, IpAddr)>, netlink::Error> {
    let table = table(family, NAT);
    if !client.has_chain(table, chain)? {
        return Ok(Vec::new());
    }
    let (mut gone, mut group, mut published) = (Vec::new(), Vec::new(), Vec::new());
    let mut kept: Option<BTreeSet<Key>> = None;
    for rule in client.port_rules(table, chain)? {
        // Those that mark stand before that which leads to the container.
        group.push(rule.handle);
        let Some(to) = rule.to else { continue };
        if of_siblings(to) {
            kept.get_or_insert_default().extend(keys(&rule));
            group.clear();
        } else {
            published.extend(keys(&rule).map(|key| (key, to)));
            gone.append(&mut group);
        }
    }
    gone.append(&mut group);
    let others: BTreeSet<Key> = published.iter().map(|(key, _)| *key).collect();
    let mut leading = client.port_rules(table, hook)?;
    let is_kept = |rule: &PortRule| {
        let keys: Vec<Key> = keys(rule).collect();
        kept.as_ref().is_some_and(|kept| is_for_alone(&keys, kept, &others))
    };
    leading.retain(|it| it.chain.as_deref() == Some(chain) && !is_kept(it));
    let leading: Vec<u64> = leading.iter().map(|it| it.handle).collect();
    if kept.is_none() {
        client.delete(table, (hook, &leading), Some(chain))?;
    } else {
        let of_chain = gone.iter().map(|it| Change::DeleteRule(chain, *it));
        let leading = leading.iter().map(|it| Change::DeleteRule(hook, *it));
        client.change(table, &of_chain.chain(leading).collect::<Vec<_>>())?;
    }
    Ok(published)
}

/// What a rule is for, at whatever address of the host.
fn keys(rule: &PortRule) -> impl Iterator<Item = Key> {
    let protocol = rule.protocol.and_then(Protocol::numbered);
    let ports = rule.ports.iter();
    ports.filter_map(move |port| Some(Key { protocol: protocol?, port: *port, address: None }))
}

/// The rules that lead to containers' chains, each with that chain.
fn jumps(client: &mut Client, family: Family) -> Result<Vec<(String, PortRule)>, netlink::Error> {
    let rules = client.port_rules(table(family, NAT), HOSTPORTS)?.into_iter();
    let jumps = rules.filter_map(|it| Some((it.chain.clone()?, it)));
    Ok(jumps.filter(|(chain, _)| chain.starts_with(CHAIN_PREFIX)).collect())
}

/// A rule's comment as `iptables-save` prints it.
fn comment(rule: &PortRule) -> String {
    format!("\"{}\"", rule.comment.as_deref().unwrap_or_default().replace('"', "\\\""))
}
