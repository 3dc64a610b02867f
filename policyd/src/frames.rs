//! Frames that iptables is not shown, of pods that are ports of a bridge: those with a VLAN tag, of
//! which who receives one with the tag of VLAN 0 takes what is in it, and those of other protocols
//! than IP. None may pass but those of ARP. A table of nf_tables drops them, which stays when policyd
//! ends.

use std::collections::BTreeSet;

use netlink::Error;
use netlink::nftables::{Client, Held};

use crate::plan::Endpoint;

/// The name of the table, of the family `bridge`: there the program nft shows it to people, and by
/// it policyd recognises what is its own.
pub const TABLE: &str = "podwire";

/// The interfaces of these endpoints that are ports of bridges.
pub(crate) fn ports<'a>(endpoints: impl Iterator<Item = &'a Endpoint>) -> BTreeSet<String> {
    endpoints.filter_map(Endpoint::port).map(str::to_owned).collect()
}

/// Keeps such frames from these ports, and no longer from those that `is_gone` says it of.
/// Whatever else was done to the table is undone; none is made for no port. When something was
/// written, the netlink port from which the kernel tells that it came.
///
/// # Errors
/// [`Error`], of which [`Error::NoBridgeTables`] says that the kernel cannot.
pub(crate) fn keep_out(
    ports: &BTreeSet<String>,
    is_gone: impl Fn(&str) -> bool,
) -> Result<Option<u32>, Error> {
    let Some(mut client) = Client::open()? else {
        return if ports.is_empty() { Ok(None) } else { Err(no_tables()) };
    };
    let mut table = client.only_ip(TABLE);
    match table.read()? {
        Held::Nothing if ports.is_empty() => return Ok(None),
        Held::Nothing | Held::Other => table.write(ports)?,
        Held::Ports(held) => {
            let come = ports - &held;
            let gone = held.into_iter().filter(|it| !ports.contains(it) && is_gone(it)).collect();
            if come.is_empty() && BTreeSet::is_empty(&gone) {
                return Ok(None);
            }
            table.change(&come, &gone)?;
        }
    }
    client.port().map(Some)
}

/// What the kernel holds.
///
/// # Errors
/// [`Error`].
pub(crate) fn held() -> Result<Held, Error> {
    let Some(mut client) = Client::open()? else { return Ok(Held::Nothing) };
    client.only_ip(TABLE).read()
}

/// Removes the table.
///
/// # Errors
/// [`Error`].
pub fn remove() -> Result<(), Error> {
    let Some(mut client) = Client::open()? else { return Ok(()) };
    client.only_ip(TABLE).remove()
}

/// Makes the table in the namespace of this thread, as it would be for a pod on a bridge.
///
/// # Errors
/// [`Error::NoBridgeTables`] where the kernel cannot.
pub fn try_out() -> Result<(), Error> {
    keep_out(&BTreeSet::from(["preflight".to_owned()]), |_| false).map(drop)
}

fn no_tables() -> Error {
    Error::NoBridgeTables {
        what: format!("keep other frames than those of IP out by table {TABLE:?}"),
    }
}
