//! The pair of interfaces between host and container.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::path::Path;

use cni::{Call, Interface};
use ipnetwork::IpNetwork;
use netlink::{Address, Error as NetlinkError, HardwareAddress, Link, Request, Socket, VethSpec};
use netns::Netns;
use nix::errno::Errno;

use crate::error::{Error, warn};
use crate::sysctl;

/// So many random names are tried; a second is needed once in four billion over the links.
const NAME_ATTEMPTS: u32 = 10;

/// A pair that was created: the host's end is up, the container's is not yet.
#[derive(Debug, Clone)]
pub(crate) struct Veth {
    /// The host's end.
    pub(crate) host: Link,
    /// Index of the container's end, in the container's namespace.
    pub(crate) container_index: u32,
    /// Its hardware address.
    pub(crate) container_mac: HardwareAddress,
}

/// What to create.
pub(crate) struct Spec<'a> {
    /// Name of the container's end.
    pub(crate) ifname: &'a str,
    /// Its namespace.
    pub(crate) netns: &'a Netns,
    /// Its hardware address; a random one when there is none.
    pub(crate) mac: Option<HardwareAddress>,
    /// Bytes.
    pub(crate) mtu: Option<u32>,
    /// Index of the bridge for the host's end.
    pub(crate) bridge: Option<u32>,
}

/// Creates a pair whose host end has a name of its own.
pub(crate) fn create(host: &mut Socket, spec: &Spec<'_>) -> Result<Veth, Error> {
    let container_mac = spec.mac.unwrap_or_else(random_mac);
    for _ in 0..NAME_ATTEMPTS {
        let name = format!("veth{:08x}", random() & 0xffff_ffff);
        let request = Request::create_veth(&VethSpec {
            name: &name,
            mac: random_mac(),
            bridge: spec.bridge,
            peer_name: spec.ifname,
            peer_mac: container_mac,
            peer_netns: std::os::fd::AsFd::as_fd(spec.netns),
            mtu: spec.mtu,
        });
        match host.create_link(request, &name) {
            Ok(link) => {
                // Before the container's end goes up, so that no advertisement is ever heard.
                if link.accepts_advertisements == Some(true) {
                    sysctl::try_write(&format!("net/ipv6/conf/{name}/accept_ra"), "0");
                }
                let container_index = peer(&link);
                return Ok(Veth { host: link, container_index, container_mac });
            }
            Err(error) if error.errno() == Some(Errno::EEXIST) => {
                refuse_existing(spec, error)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::Conflict(format!("{NAME_ATTEMPTS} random names for a host interface were taken")))
}

/// Which of both names was taken, the kernel does not say.
fn refuse_existing(spec: &Spec<'_>, error: NetlinkError) -> Result<(), Error> {
    let _entered = spec.netns.enter()?;
    match Socket::open()?.link_by_name(spec.ifname)? {
        Some(_) => Err(Error::Conflict(format!(
            "container interface {:?} already exists in {} (was the container attached before?): {error}",
            spec.ifname,
            spec.netns.path().display()
        ))),
        None => Ok(()),
    }
}

/// Opens the namespace of an ADD or CHECK.
pub(crate) fn open_netns(call: &Call) -> Result<Netns, Error> {
    Ok(Netns::open(call.netns.as_deref().unwrap_or(Path::new("")))?)
}

/// The result's entry for the container's end.
pub(crate) fn container_entry(call: &Call, veth: &Veth) -> Interface {
    Interface {
        name: call.ifname.clone(),
        mac: veth.container_mac.to_string(),
        sandbox: call.netns.as_deref().map(|path| path.display().to_string()).unwrap_or_default(),
        ..Interface::default()
    }
}

/// The result's entry for a link of the host.
pub(crate) fn host_entry(link: &Link) -> Interface {
    Interface { name: link.name.clone(), mac: link.mac_text(), ..Interface::default() }
}

/// The host's end of the container's interface; `None` when that is no veth, or its peer is elsewhere. The
/// kernel is asked, not the result: that does not tell which of several interfaces is a bridge, and not every
/// plugin tells of them at all.
pub(crate) fn host_end(call: &Call, host: &mut Socket) -> Result<Option<Link>, Error> {
    let netns = open_netns(call)?;
    let inside = {
        let _entered = netns.enter()?;
        Socket::open()?.link_by_name(&call.ifname)?
    };
    let inside = inside.ok_or_else(|| {
        Error::Config(format!("prevResult: the container has no interface {:?}", call.ifname))
    })?;
    if inside.kind != "veth" {
        return Ok(None);
    }
    // Its peer may be in another namespace than ours, where the same index is another link's.
    let link = host.link_by_index(peer(&inside))?;
    Ok(link.filter(|link| link.kind == "veth" && peer(link) == inside.index))
}

/// The kernel leaves the peer's index out when both happen to be equal.
fn peer(link: &Link) -> u32 {
    link.peer.unwrap_or(link.index)
}

/// The namespace of a DEL; `None` when it is gone, or was never told.
pub(crate) fn remaining_netns(call: &Call) -> Result<Option<Netns>, Error> {
    let Some(path) = &call.netns else { return Ok(None) };
    match Netns::open(path) {
        // A path that a namespace was mounted on stays behind as a plain file.
        Err(netns::Error::Missing(_) | netns::Error::NotANamespace { .. }) => Ok(None),
        result => Ok(Some(result?)),
    }
}

/// Deletes the attachment of a DEL. A namespace that is gone took it along.
pub(crate) fn delete_of(call: &Call) -> Result<(), Error> {
    remaining_netns(call)?.map_or(Ok(()), |netns| delete(&netns, &call.ifname))
}

/// The addresses that other interfaces of a call's container have. Where no result tells which are its own,
/// `may_have_moved`.
pub(crate) fn addresses_of_others(
    call: &Call,
    may_have_moved: bool,
) -> Result<Vec<IpNetwork>, Error> {
    let Some(netns) = remaining_netns(call)? else { return Ok(Vec::new()) };
    let _entered = netns.enter()?;
    let mut socket = Socket::open()?;
    let links = socket.links()?;
    let own = links.iter().find(|link| link.name == call.ifname);
    let bridges = if may_have_moved { bridges_of(own, &links) } else { Vec::new() };
    let loopback: Vec<u32> = links.iter().filter(|it| it.is_loopback).map(|it| it.index).collect();
    let mut addresses = socket.all_addresses()?;
    addresses.retain(|address| !loopback.contains(&address.link));
    Ok(of_others(addresses, own.map(|it| it.index), &bridges))
}

/// The bridges to which a link's addresses may have moved: that which it is a port of, else those that have no ports.
fn bridges_of(link: Option<&Link>, links: &[Link]) -> Vec<u32> {
    let own = link.and_then(|it| it.controller);
    let is_one = |bridge: &Link| match own {
        Some(own) => bridge.index == own,
        None => !links.iter().any(|it| it.controller == Some(bridge.index)),
    };
    let bridges = links.iter().filter(|it| it.kind == "bridge" && is_one(it));
    bridges.map(|it| it.index).collect()
}

/// Those of addresses that are not `own`: neither of the link, wherever else they are, nor what it has no more and one of
/// the `bridges` has, where who runs machines in containers moves them.
fn of_others(addresses: Vec<Address>, own: Option<u32>, bridges: &[u32]) -> Vec<IpNetwork> {
    let (own_ones, mut others): (Vec<Address>, Vec<Address>) =
        addresses.into_iter().partition(|address| Some(address.link) == own);
    let has_one = |cidr: IpNetwork| {
        let is_one = |it: IpNetwork| it.is_ipv4() == cidr.is_ipv4() && !is_of_link(it.ip());
        own_ones.iter().any(|it| is_one(it.cidr))
    };
    others.retain(|it| {
        let has_moved = own.is_some() && bridges.contains(&it.link) && !has_one(it.cidr);
        !has_moved && !own_ones.iter().any(|own| own.cidr.ip() == it.cidr.ip())
    });
    others.into_iter().map(|it| it.cidr).collect()
}

/// Whether the kernel gives it to each link (RFC 4291).
fn is_of_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// Whether the interface of a DEL's container still is there and has an address, as far as that can be known.
pub(crate) fn has_address(call: &Call, address: IpAddr) -> bool {
    match own_addresses(call) {
        Ok(own) => own.iter().any(|it| it.cidr.ip() == address),
        Err(error) => {
            warn(&format!("whether the container still has {address} is not known: {error}"));
            false
        }
    }
}

fn own_addresses(call: &Call) -> Result<Vec<Address>, Error> {
    let Some(netns) = remaining_netns(call)? else { return Ok(Vec::new()) };
    let _entered = netns.enter()?;
    let mut socket = Socket::open()?;
    let Some(own) = socket.link_by_name(&call.ifname)? else { return Ok(Vec::new()) };
    Ok(socket.addresses(own.index, &own.name)?)
}

/// Deletes the container's end, and with it the host's; none is fine.
pub(crate) fn delete(netns: &Netns, ifname: &str) -> Result<(), Error> {
    let _entered = netns.enter()?;
    Socket::open()?.execute(&[Request::delete_link(ifname).or_gone()])?;
    Ok(())
}

/// A random number. The standard library seeds its hasher from the kernel for every process.
fn random() -> u64 {
    RandomState::new().hash_one(())
}

/// A random hardware address, locally administered and of one interface (as the kernel's
/// `eth_random_addr`).
pub(crate) fn random_mac() -> HardwareAddress {
    let [first, b, c, d, e, f, _, _] = random().to_ne_bytes();
    HardwareAddress([(first & 0xfe) | 0x02, b, c, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_moved_to_a_bridge_is_no_others() {
        let others = |has: &[(u32, &str)], own: Option<u32>| {
            let address = |(link, cidr): &(u32, &str)| Address {
                link: *link,
                cidr: cidr.parse().unwrap(),
                is_tentative: false,
                is_duplicate: false,
            };
            let others = of_others(has.iter().map(address).collect(), own, &[9]);
            others.iter().map(|it| it.ip().to_string()).collect::<Vec<_>>()
        };
        let sibling = (3, "10.1.0.3/16");
        assert_eq!(others(&[(2, "10.1.0.2/16"), sibling], Some(2)), ["10.1.0.3"]);
        assert_eq!(others(&[(9, "10.1.0.2/16"), sibling], Some(2)), ["10.1.0.3"]);
        assert_eq!(others(&[(2, "fe80::2/64"), (9, "fd00::2/64"), sibling], Some(2)), ["10.1.0.3"]);
        // What has its own address has not moved it, nor who has gone.
        let (own, on_bridge) = ((2, "10.1.0.2/16"), (9, "10.1.0.3/16"));
        assert_eq!(others(&[own, on_bridge], Some(2)), ["10.1.0.3"]);
        assert_eq!(others(&[on_bridge], None), ["10.1.0.3"]);
        assert_eq!(others(&[own, (4, "10.1.0.2/32")], Some(2)), [""; 0]);
    }

    #[test]
    fn random_addresses_are_local_unicast_and_differ() {
        let addresses: std::collections::HashSet<_> = (0..1000).map(|_| random_mac()).collect();
        assert_eq!(addresses.len(), 1000);
        assert!(addresses.iter().all(|HardwareAddress([first, ..])| first & 3 == 2));
    }
}
