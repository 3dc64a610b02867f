//! Who connects, as the tables see it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::{Error, Part, Query, Who, World};
use crate::nftables::Local;
use crate::walk::Client;

/// Somebody who connects.
#[derive(Debug)]
pub(crate) struct Asker {
    /// Who, in words.
    pub(crate) words: String,
    /// What the tables see of it.
    pub(crate) client: Client,
}

/// Those that the question is about. Where only some may connect to the place, one of those stands for all of whom no
/// address is told.
pub(crate) fn askers(world: &World, part: &Part<'_>, query: &Query) -> Result<Vec<Asker>, Error> {
    let is_ipv4 = query.to.address.is_ipv4();
    let sources = part.frontend(&query.to).and_then(|it| it.sources.as_deref());
    let any = sources.and_then(<[_]>::first).map_or_else(|| unspecified(is_ipv4), IpNetwork::ip);
    let asker = |words: &str, address, is_pod, is_node| Asker {
        words: words.to_owned(),
        client: Client { address, is_pod, is_node },
    };
    let node = || {
        let of_family = |it: &&IpAddr| it.is_ipv4() == is_ipv4;
        let own = world.own().iter().filter(of_family).copied();
        let may = |it: &IpAddr| sources.is_none_or(|all| all.iter().any(|some| some.contains(*it)));
        let address = own.clone().find(may).or_else(|| own.clone().next());
        asker("the node", address.unwrap_or_else(|| unspecified(is_ipv4)), false, true)
    };
    let knows_pods = world.settings().local != Local::Unknown;
    let pods = || asker("pods", any, knows_pods, false);
    let outside = |words| asker(words, any, false, false);
    Ok(match &query.from {
        Who::Anybody => {
            let stranger = stranger(sources.unwrap_or_default(), is_ipv4);
            let stranger = stranger.filter(|_| sources.is_some_and(|it| !it.is_empty()));
            let words = "whoever is in none of spec.loadBalancerSourceRanges";
            let stranger = stranger.map(|it| asker(words, it, false, false));
            [pods(), node(), outside("outside")].into_iter().chain(stranger).collect()
        }
        Who::Pod => vec![pods()],
        Who::Node => vec![node()],
        Who::Outside => vec![outside("outside")],
        Who::Address { address, .. } if address.is_ipv4() != is_ipv4 => {
            return Err(Error::Families { from: *address, to: query.to.address });
        }
        Who::Address { address, interface } => {
            let is_node = address.is_loopback() || world.own().contains(address);
            let is_pod = is_pod(&world.settings().local, *address, interface.as_deref(), is_node)?;
            vec![asker(&address.to_string(), *address, is_pod, is_node)]
        }
    })
}

/// An address that no range holds.
fn stranger(ranges: &[IpNetwork], is_ipv4: bool) -> Option<IpAddr> {
    let last: IpAddr =
        if is_ipv4 { Ipv4Addr::BROADCAST.into() } else { Ipv6Addr::from(u128::MAX).into() };
    let is_held = |it: &IpAddr| ranges.iter().any(|range| range.contains(*it));
    [unspecified(is_ipv4), last].into_iter().find(|it| !is_held(it))
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

const fn unspecified(is_ipv4: bool) -> IpAddr {
    if is_ipv4 { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) }
}
