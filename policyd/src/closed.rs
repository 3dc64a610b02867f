//! Interfaces that the CNI plugin closed as policyd did not answer: their pods may neither send nor be
//! sent to, from whatever address, until their rules are in the kernel.

use std::collections::BTreeSet;

use attachment::CLOSED_TABLE;
use netlink::Error;
use netlink::nftables::{Client, Sides, close_interface};

/// Opens those that `which` tells. When something was written, the netlink port from which the
/// kernel tells that it came.
///
/// # Errors
/// [`Error`], also those of `which`.
pub(crate) fn open(which: impl FnMut(&str) -> Result<bool, Error>) -> Result<Option<u32>, Error> {
    let Some(mut client) = Client::open()? else { return Ok(None) };
    let opened = client.closed(CLOSED_TABLE).open(which)?;
    if opened.is_empty() {
        return Ok(None);
    }
    let interfaces = Vec::from_iter(opened).join(", ");
    tracing::info!(%interfaces, "opened what the CNI plugin had closed without policyd");
    client.port().map(Some)
}

/// Those that are closed.
///
/// # Errors
/// [`Error`].
pub(crate) fn held() -> Result<BTreeSet<String>, Error> {
    let Some(mut client) = Client::open()? else { return Ok(BTreeSet::new()) };
    client.closed(CLOSED_TABLE).read()
}

/// Opens all.
///
/// # Errors
/// [`Error`].
pub fn remove() -> Result<(), Error> {
    let Some(mut client) = Client::open()? else { return Ok(()) };
    client.closed(CLOSED_TABLE).remove()
}

/// Closes an interface in the namespace of this thread, as the CNI plugin would; how much of it the
/// kernel can close.
///
/// # Errors
/// [`Error::NoInterfaceTables`] where it cannot.
pub fn try_out() -> Result<Sides, Error> {
    close_interface(CLOSED_TABLE, "lo")
}
