//! What bridge and ptp take away alike.

use std::cell::RefCell;

use cni::{AddResult, Call};
use netns::Netns;

use crate::delegated_ipam::DelegatedIpam;
use crate::error::Error;
use crate::kernel_tables::KernelTables;
use crate::masquerade;
use crate::veth;

/// DEL: rules, then link, then addresses (so that none is given away while it is in use). Each is
/// tried whatever becomes of the others, but addresses that may still be in use are kept.
pub(crate) fn detach(
    call: &Call,
    ip_masq: bool,
    release: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    let mut errors = Vec::new();
    let mut kernel = KernelTables::default();
    if ip_masq {
        errors.extend(masquerade::tear_down(call, &mut kernel).err());
    }
    // An address that may still be in use is not given away.
    errors.extend(veth::delete_of(call).and_then(|()| release()).err());
    Error::of_teardown(errors)
}

/// Undoes a failed ADD from the veth pair on, as DEL would: the addresses, if there are any yet,
/// are only released when the link is gone.
pub(crate) fn undo_attachment(
    call: &Call,
    netns: &Netns,
    ipam: Option<&DelegatedIpam<'_>>,
    leased: &RefCell<Option<AddResult>>,
) -> Result<(), Error> {
    veth::delete(netns, &call.ifname)?;
    match (ipam, leased.borrow().as_ref()) {
        (Some(ipam), Some(result)) => ipam.undo(result),
        _ => Ok(()),
    }
}

/// GC: what belongs to no valid attachment of the call's network. Interfaces are not looked for:
/// those of a container that is gone went with its namespace.
pub(crate) fn collect_garbage(call: &Call, ip_masq: bool) -> Result<(), Error> {
    let valid = call.conf.valid_attachments()?;
    let mut errors = Vec::new();
    let ipam = DelegatedIpam::find(call).and_then(|ipam| ipam.map_or(Ok(()), |ipam| ipam.gc()));
    errors.extend(ipam.err());
    if ip_masq {
        errors.extend(masquerade::collect_garbage(call, &valid).err());
    }
    Error::of_teardown(errors)
}
