//! Who connects, as the tables see it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::{Error, Part, Query, Who, World};
use crate::nftables::Local;
use crate::walk::Client;
use crate::words::all_of;

/// Somebody who connects.
#[derive(Debug)]
pub(crate) struct Asker {
    /// Who, in words.
    pub(crate) words: String,
    /// What the tables see of it.
    pub(crate) client: Client,
}

/// Those that the question is about. Where only some may connect to the place, one of those stands for all of whom no
/// address is told, but for pods: those that may are told apart from others.
pub(crate) fn askers(world: &World, part: &Part<'_>, query: &Query) -> Result<Vec<Asker>, Error> {
    let is_ipv4 = query.to.address.is_ipv4();
    let sources = part.frontend(&query.to).and_then(|it| it.sources.as_deref());
    let everybody = everybody(is_ipv4);
    let any = sources.and_then(<[_]>::first).unwrap_or(&everybody).ip();
    let asker = |words: &str, address, is_pod, is_node| Asker {
        words: words.to_owned(),
        client: Client { address, is_pod, is_node },
    };
    let node = || {
        let of_family = |it: &&IpAddr| it.is_ipv4() == is_ipv4;
        let own = world.own().iter().filter(of_family).copied();
        let may = |it: &IpAddr| sources.is_none_or(|all| all.iter().any(|some| some.contains(*it)));
        let address = own.clone().find(may).or_else(|| own.clone().next());
        asker("the node", address.unwrap_or_else(|| everybody.ip()), false, true)
    };
    let local = &world.settings().local;
    let pods = || pods(local, sources, everybody);
    let outside = |words| asker(words, any, false, false);
    Ok(match &query.from {
        Who::Anybody => {
            let stranger = sources.filter(|it| !it.is_empty());
            let stranger = stranger.and_then(|it| stranger_in(everybody, it));
            let words = "whoever is in none of spec.loadBalancerSourceRanges";
            let stranger = stranger.map(|it| asker(words, it, false, false));
            pods().into_iter().chain([node(), outside("outside")]).chain(stranger).collect()
        }
        Who::Pod => pods(),
        Who::Node => vec![node()],
        Who::Outside => vec![outside("outside")],
        Who::Address { address, .. } if address.is_ipv4() != is_ipv4 => {
            return Err(Error::Families { from: *address, to: query.to.address });
        }
        Who::Address { address, interface } => {
            let is_node = address.is_loopback() || world.own().contains(address);
            let is_pod = is_pod(local, *address, interface.as_deref(), is_node)?;
            vec![asker(&address.to_string(), *address, is_pod, is_node)]
        }
    })
}

/// Pods: where only some sources may connect, those that are in these ranges, and others.
fn pods(local: &Local, sources: Option<&[IpNetwork]>, everybody: IpNetwork) -> Vec<Asker> {
    let asker = |words: String, address| {
        let client = Client { address, is_pod: *local != Local::Unknown, is_node: false };
        Asker { words, client }
    };
    let Some(sources) = sources else { return vec![asker("pods".to_owned(), everybody.ip())] };
    let of_family = |it: &&IpNetwork| it.is_ipv4() == everybody.is_ipv4();
    let mut ranges: Vec<_> = match local {
        Local::Ranges(ranges) => ranges.iter().filter(of_family).copied().collect(),
        Local::Unknown | Local::Interface(_) | Local::Interfaces(_) => Vec::new(),
    };
    if ranges.is_empty() {
        // Nobody knows which addresses they have.
        ranges.push(everybody);
    }
    let common = |range: &IpNetwork| sources.iter().filter_map(|it| common(*it, *range)).collect();
    let may: BTreeSet<_> = ranges.iter().flat_map::<Vec<_>, _>(common).collect();
    let may: Vec<_> = may.into_iter().collect();
    let others = ranges.iter().find_map(|it| stranger_in(*it, sources));
    match (may.first(), others) {
        (Some(first), None) => vec![asker("pods".to_owned(), first.ip())],
        (Some(first), Some(other)) => vec![
            asker(format!("pods in {}", all_of(&may)), first.ip()),
            asker("other pods".to_owned(), other),
        ],
        (None, other) => vec![asker("pods".to_owned(), other.unwrap_or_else(|| everybody.ip()))],
    }
}

/// What two ranges have in common.
fn common(one: IpNetwork, other: IpNetwork) -> Option<IpNetwork> {
    let (wide, narrow) = if one.prefix() < other.prefix() { (one, other) } else { (other, one) };
    wide.contains(narrow.network()).then_some(narrow)
}

/// An address of a range that is in none of others.
fn stranger_in(range: IpNetwork, others: &[IpNetwork]) -> Option<IpAddr> {
    let near: Vec<_> = others.iter().filter(|it| common(**it, range).is_some()).copied().collect();
    if near.is_empty() {
        return Some(range.network());
    }
    if near.iter().any(|it| it.prefix() <= range.prefix()) {
        return None;
    }
    halves(range).into_iter().flatten().find_map(|half| stranger_in(half, &near))
}

/// A range's halves; none of a single address.
fn halves(range: IpNetwork) -> [Option<IpNetwork>; 2] {
    let Some(prefix) = range.prefix().checked_add(1) else { return [None; 2] };
    let upper = match range.network() {
        IpAddr::V4(it) => {
            let bit = 1_u32.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or_default();
            IpAddr::from(Ipv4Addr::from(it.to_bits() | bit))
        }
        IpAddr::V6(it) => {
            let bit = 1_u128.checked_shl(128_u32.saturating_sub(prefix.into())).unwrap_or_default();
            IpAddr::from(Ipv6Addr::from(it.to_bits() | bit))
        }
    };
    [range.network(), upper].map(|it| IpNetwork::new(it, prefix).ok())
}

fn is_pod(
    local: &Local,
    address: IpAddr,
    interface: Option<&str>,
    is_node: bool,
) -> Result<bool, Error> {
    let by_interface = |is_one: &dyn Fn(&str) -> bool| match interface {
        // What the node itself sends comes by none.
        _ if is_node => Ok(false),
        Some(name) => Ok(is_one(name)),
        None => Err(Error::Interface(address)),
    };
    match local {
        Local::Unknown => Ok(false),
        Local::Ranges(ranges) => Ok(ranges.iter().any(|it| it.contains(address))),
        Local::Interface(wanted) => by_interface(&|name| name == wanted),
        Local::Interfaces(prefix) => by_interface(&|name| name.starts_with(prefix.as_str())),
    }
}

/// All addresses of a family.
fn everybody(is_ipv4: bool) -> IpNetwork {
    let first: IpAddr =
        if is_ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // A prefix of 0 is one of each family.
    IpNetwork::new(first, 0).unwrap_or_else(|_| first.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges<const COUNT: usize>(texts: [&str; COUNT]) -> Vec<IpNetwork> {
        texts.map(|it| it.parse().unwrap()).into()
    }

    #[test]
    fn pods_that_may_connect_are_told_apart_from_others() {
        let told = |local: &[&str], sources: &[&str]| {
            let local = Local::Ranges(local.iter().map(|it| it.parse().unwrap()).collect());
            let sources: Vec<_> = sources.iter().map(|it| it.parse().unwrap()).collect();
            let pods = pods(&local, Some(&sources), everybody(true)).into_iter();
            pods.map(|it| format!("{} as {}", it.words, it.client.address)).collect::<Vec<_>>()
        };
        let pods = ["10.1.0.0/16", "10.3.0.0/16", "fd00:1::/64"];
        assert_eq!(told(&pods, &["0.0.0.0/0"]), ["pods as 10.1.0.0"]);
        assert_eq!(told(&pods, &["10.0.0.0/8", "192.0.2.0/24"]), ["pods as 10.1.0.0"]);
        assert_eq!(told(&pods, &["192.0.2.100/32"]), ["pods as 10.1.0.0"]);
        assert_eq!(told(&pods, &[]), ["pods as 10.1.0.0"]);
        assert_eq!(
            told(&pods, &["10.1.0.0/17", "10.3.7.0/24", "10.3.7.1/32"]),
            [
                "pods in 10.1.0.0/17, 10.3.7.0/24 and 10.3.7.1/32 as 10.1.0.0",
                "other pods as 10.1.128.0"
            ]
        );
        // By interfaces, or of the other family: they may have any address.
        assert_eq!(
            told(&pods[2..], &["192.0.2.100/32"]),
            ["pods in 192.0.2.100/32 as 192.0.2.100", "other pods as 0.0.0.0"]
        );
    }

    #[test]
    fn a_stranger_is_found_wherever_he_is() {
        let found = |range: &str, others: Vec<IpNetwork>| {
            stranger_in(range.parse().unwrap(), &others).map(|it| it.to_string())
        };
        assert_eq!(
            found("10.0.0.0/30", ranges(["10.0.0.0/31", "10.0.0.3/32"])).as_deref(),
            Some("10.0.0.2")
        );
        assert_eq!(found("10.0.0.0/30", ranges(["10.0.0.0/31", "10.0.0.2/31"])), None);
        assert_eq!(found("10.0.0.1/32", ranges(["10.0.0.0/24"])), None);
        assert_eq!(found("10.0.0.1/32", ranges(["fd00::/8"])).as_deref(), Some("10.0.0.1"));
        assert_eq!(found("0.0.0.0/0", ranges(["0.0.0.0/1"])).as_deref(), Some("128.0.0.0"));
        assert_eq!(found("::/0", ranges(["::/1", "8000::/2"])).as_deref(), Some("c000::"));
    }
}
