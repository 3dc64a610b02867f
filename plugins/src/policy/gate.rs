//! The node's gate: a set of the addresses that may pass, which policyd keeps and the kernel holds;
//! and closed interfaces, as a container may send from addresses that the gate does not know.

use std::collections::BTreeSet;
use std::net::IpAddr;

use attachment::gate_set;
use netlink::ipset::Client;
use netlink::nftables;
use nix::errno::Errno;

use crate::error::Error;

/// Whether the gate keeps back, for each family of these addresses, what is not let pass.
pub(super) fn stands_for(addresses: &BTreeSet<IpAddr>) -> Result<bool, Error> {
    with_sets(false, |client| {
        for address in addresses {
            if !client.is_referenced(gate_set(address))? {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

/// Whether there is a gate for any family.
pub(super) fn stands() -> Result<bool, Error> {
    with_sets(false, |client| {
        let [ipv4, ipv6] = attachment::GATE_SETS;
        Ok(client.is_referenced(ipv4)? || client.is_referenced(ipv6)?)
    })
}

/// Keeps these addresses back from now on.
pub(super) fn close<'a>(addresses: impl IntoIterator<Item = &'a IpAddr>) -> Result<(), Error> {
    with_sets((), |client| {
        for address in addresses {
            client.delete(gate_set(address), *address)?;
        }
        Ok(())
    })
}

/// Whether the gate lets all of these addresses pass.
pub(super) fn lets_pass(addresses: &BTreeSet<IpAddr>) -> Result<bool, Error> {
    with_sets(false, |client| {
        for address in addresses {
            if client.contains(gate_set(address), *address)? != Some(true) {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

/// Nothing comes by this interface of the host, or goes there, from now on.
pub(super) fn close_interface(interface: &str) -> Result<(), netlink::Error> {
    // Where the kernel can only keep back what comes by it, that is what it was closed for.
    nftables::close_interface(attachment::CLOSED_TABLE, interface).map(drop)
}

/// Opens an interface, whether it is closed or not.
pub(super) fn open_interface(interface: &str) -> Result<(), Error> {
    let Some(mut client) = nftables::Client::open()? else { return Ok(()) };
    client.closed(attachment::CLOSED_TABLE).open(|it| Ok(it == interface))?;
    Ok(())
}

/// A kernel without sets has no gate.
fn with_sets<T>(
    without: T,
    work: impl FnOnce(&mut Client) -> Result<T, netlink::Error>,
) -> Result<T, Error> {
    let Some(mut client) = Client::open()? else { return Ok(without) };
    match work(&mut client) {
        // What nfnetlink answers for a part that is not there (`nfnetlink_rcv_msg`).
        Err(error) if error.errno() == Some(Errno::EINVAL) => Ok(without),
        result => Ok(result?),
    }
}
