//! What the reference has published by nf_tables (`plugins/meta/portmap/portmap_nftables.go`): rules whose comment is
//! the container's id. It is found, checked and removed here, and never made.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink::nftables::Client;
use ruleset::nft::{Family, Table};

use super::conf::{self, Conf};
use super::iptables::OfSiblings;
use super::mapping::{Held, Holder, Key, Protocol, Tag};
use crate::error::Error;
use crate::nf_tables::{attempt, deletions};

const NAME: &str = "cni_hostport";
const HOSTPORTS: &str = "hostports";
const MASQUERADING: &str = "masquerading";
/// The second one is of old releases.
const CHAINS: [&str; 3] = [HOSTPORTS, "hostip_hostports", MASQUERADING];

/// Chains that are only made by it.
pub(super) const SIGNS: [(Table<'static>, &str); 2] =
    [(table(true), HOSTPORTS), (table(false), HOSTPORTS)];

const fn table(is_ipv4: bool) -> Table<'static> {
    Table { family: if is_ipv4 { Family::Ip } else { Family::Ip6 }, name: NAME }
}

fn count(client: &mut Client, is_ipv4: bool, chain: &str, id: &str) -> Result<usize, Error> {
    let rules = client.rules(table(is_ipv4), chain)?;
    Ok(rules.iter().filter(|rule| rule.comment.as_deref() == Some(id)).count())
}

/// What containers have published of a family.
pub(super) fn held(client: &mut Client, is_ipv4: bool) -> Result<Vec<Held>, netlink::Error> {
    let rules = client.translations(table(is_ipv4), HOSTPORTS)?;
    let held = rules.into_iter().filter_map(|it| {
        let protocol = Protocol::numbered(it.protocol)?;
        let container_id = it.comment?;
        Some(Held {
            key: Key { protocol, port: it.port, address: it.address },
            to: it.to,
            tag: Tag::Id(container_id.clone()),
            holder: Holder { network: String::new(), container_id, is_cut: false, ifname: None },
        })
    });
    Ok(held.collect())
}

/// What a container has published of a family.
fn of_container(client: &mut Client, is_ipv4: bool, id: &str) -> Result<Vec<Held>, netlink::Error> {
    let mut held = held(client, is_ipv4)?;
    held.retain(|it| it.tag == Tag::Id(id.into()));
    Ok(held)
}

/// Whether any of a container's rules leads to such an address.
pub(super) fn lead_to(
    client: &mut Client,
    id: &str,
    is_such: impl Fn(IpAddr) -> bool,
) -> Result<bool, Error> {
    let mut held = of_container(client, true, id)?;
    held.append(&mut of_container(client, false, id)?);
    Ok(held.iter().any(|it| is_such(it.to)))
}

/// Whether a container has as many rules as it must have; `false` when none leads to these addresses.
pub(super) fn check(
    client: &mut Client,
    conf: &Conf,
    id: &str,
    addresses: &[Option<IpNetwork>; 2],
) -> Result<bool, Error> {
    let own = conf::bare(addresses);
    let (mut has_any, mut missing) = (false, None);
    for is_ipv4 in addresses.iter().flatten().map(IpNetwork::is_ipv4) {
        let ports = conf.mappings.iter().filter(|it| it.key(is_ipv4).is_some()).count();
        let masqueraded = match (conf.snat, is_ipv4 && !conf.masq_all) {
            (false, _) => 0,
            (true, true) => 2,
            (true, false) => 1,
        };
        // What masquerades leads nowhere: that of the container's other networks is counted as well.
        let held = of_container(client, is_ipv4, id)?;
        let leading = held.iter().filter(|it| own.contains(&it.to)).count();
        has_any |= leading > 0;
        let masquerading = count(client, is_ipv4, MASQUERADING, id)?;
        for (chain, wanted, held) in
            [(HOSTPORTS, ports, leading), (MASQUERADING, masqueraded, masquerading)]
        {
            if held < wanted {
                let table = table(is_ipv4);
                missing = Some(format!(
                    "chain {chain} of table {table} has {held} rules of container {id:?}, not {wanted}"
                ));
            }
        }
    }
    match missing {
        Some(missing) if has_any => Err(Error::Changed(missing)),
        _ => Ok(has_any),
    }
}

/// Removes a container's rules; but for those of a family that all lead to what is `kept`, where that is asked. Tells
/// what they published.
pub(super) fn tear_down(
    client: &mut Client,
    id: &str,
    kept: Option<OfSiblings<'_>>,
) -> Result<Vec<Held>, Error> {
    let mut removed = Vec::new();
    for is_ipv4 in [true, false] {
        let table = table(is_ipv4);
        if !client.has_table(table)? {
            continue;
        }
        let mut own = of_container(client, is_ipv4, id)?;
        if kept.is_some_and(|is_kept| !own.is_empty() && own.iter().all(|it| is_kept(it.to))) {
            continue;
        }
        attempt(|| {
            let mut held = Vec::new();
            for chain in CHAINS {
                held.push((chain, client.rules(table, chain)?));
            }
            let changes = held.iter().flat_map(|(chain, rules)| {
                deletions(chain, rules.iter().filter(|rule| rule.comment.as_deref() == Some(id)))
            });
            let changes: Vec<_> = changes.collect();
            client.change(table, &changes)
        })?;
        removed.append(&mut own);
    }
    Ok(removed)
}
