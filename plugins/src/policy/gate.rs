//! The node's gate: the addresses that may pass, which policyd keeps and the kernel holds, in sets of ipset or in
//! a table of nf_tables; and closed interfaces, as a container may send from addresses that the gate does not know.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use attachment::{GATE_TABLE, gate_of_table, gate_set};
use netlink::nftables::{self, Change};
use netlink::{Error as KernelError, ipset};
use nix::errno::Errno;
use ruleset::nft::{Element, Encoded, Family, Key, Set, Table, Value};

use crate::error::Error;

const TABLE: Table<'_> = Table { family: Family::Inet, name: GATE_TABLE };

/// Whether the gate keeps back, for each family of these addresses, what is not let pass.
pub(super) fn stands_for(addresses: &BTreeSet<IpAddr>) -> Result<bool, Error> {
    Ok(is_so_of_all(addresses, set_stands)? || is_so_of_all(addresses, table_stands)?)
}

/// Whether there is a gate for any family.
pub(super) fn stands() -> Result<bool, Error> {
    let families = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    for address in families {
        if set_stands(&address)? || table_stands(&address)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Keeps these addresses back from now on.
pub(super) fn close<'a>(addresses: impl IntoIterator<Item = &'a IpAddr>) -> Result<(), Error> {
    let addresses: Vec<_> = addresses.into_iter().collect();
    with_sets((), |client| {
        addresses.iter().try_for_each(|it| client.delete(gate_set(it), **it).map(drop))
    })?;
    let Some(mut client) = nftables::Client::open()? else { return Ok(()) };
    for address in addresses {
        let element = element(*address);
        for map in gate_of_table(address).0 {
            let change = Change::DeleteElements(map, std::slice::from_ref(&element));
            match client.change(TABLE, &[change]) {
                // It was not let pass, or there is no such table.
                Err(error) if is_absence(&error) => {}
                done => done?,
            }
        }
    }
    Ok(())
}

/// Whether the gate lets all of these addresses pass: what stands twice, while policyd goes over from one to the
/// other, lets pass what both do.
pub(super) fn lets_pass(addresses: &BTreeSet<IpAddr>) -> Result<bool, Error> {
    is_so_of_all(addresses, |address| {
        let (by_set, by_table) = (set_stands(address)?, table_stands(address)?);
        Ok((by_set || by_table)
            && (!by_set || is_in_set(address)?)
            && (!by_table || is_in_table(address)?))
    })
}

/// Nothing comes by this interface of the host, or goes there, from now on.
pub(super) fn close_interface(interface: &str) -> Result<(), KernelError> {
    // Where the kernel can only keep back what comes by it, that is what it was closed for.
    nftables::close_interface(attachment::CLOSED_TABLE, interface).map(drop)
}

/// Opens an interface, whether it is closed or not.
pub(super) fn open_interface(interface: &str) -> Result<(), Error> {
    let Some(mut client) = nftables::Client::open()? else { return Ok(()) };
    client.closed(attachment::CLOSED_TABLE).open(|it| Ok(it == interface))?;
    Ok(())
}

fn is_so_of_all(
    addresses: &BTreeSet<IpAddr>,
    is_so: impl Fn(&IpAddr) -> Result<bool, Error>,
) -> Result<bool, Error> {
    for address in addresses {
        if !is_so(address)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A set that no rule looks into (the kernel counts them) is no gate.
fn set_stands(address: &IpAddr) -> Result<bool, Error> {
    with_sets(false, |client| client.is_referenced(gate_set(address)))
}

fn is_in_set(address: &IpAddr) -> Result<bool, Error> {
    with_sets(false, |client| Ok(client.contains(gate_set(address), *address)? == Some(true)))
}

fn table_stands(address: &IpAddr) -> Result<bool, Error> {
    let Some(mut client) = nftables::Client::open()? else { return Ok(false) };
    // A table that sleeps has none.
    let table = client.table(TABLE)?.filter(|it| it.is_awake);
    Ok(table.is_some_and(|it| it.chains.iter().any(|it| it.name == gate_of_table(address).1)))
}

fn is_in_table(address: &IpAddr) -> Result<bool, Error> {
    let Some(mut client) = nftables::Client::open()? else { return Ok(false) };
    for map in gate_of_table(address).0 {
        if client.element(TABLE, map, &element(*address))?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn element(address: IpAddr) -> Encoded {
    let key = if address.is_ipv4() { Key::Ipv4 } else { Key::Ipv6 };
    let element = Element::new([Value::Address(address)]);
    let encoded = Set::new("", [key]).encode(&element).into_iter().next();
    encoded.unwrap_or_default()
}

/// What nf_tables answers for an element, or a table, that is not there; or where it is not there itself.
fn is_absence(error: &KernelError) -> bool {
    matches!(error.errno(), Some(Errno::ENOENT | Errno::EINVAL | Errno::EOPNOTSUPP))
}

/// A kernel without sets has no gate of them.
fn with_sets<T>(
    without: T,
    work: impl FnOnce(&mut ipset::Client) -> Result<T, KernelError>,
) -> Result<T, Error> {
    let Some(mut client) = ipset::Client::open()? else { return Ok(without) };
    match work(&mut client) {
        // What nfnetlink answers for a part that is not there (`nfnetlink_rcv_msg`).
        Err(error) if error.errno() == Some(Errno::EINVAL) => Ok(without),
        result => Ok(result?),
    }
}
