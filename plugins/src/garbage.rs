//! GC for the plugins that delegate: the IPAM plugin's share, and the masquerading.

use cni::Call;
use runner::OsRunner;

use crate::delegated_ipam::DelegatedIpam;
use crate::error::Error;
use crate::masquerade;

/// Removes what belongs to no valid attachment of the call's network. Interfaces are not looked
/// for: those of a container that is gone went with its namespace.
pub(crate) fn collect(call: &Call, ip_masq: bool) -> Result<(), Error> {
    let valid = call.conf.valid_attachments()?;
    let mut errors = Vec::new();
    let ipam = DelegatedIpam::find(call).and_then(|ipam| ipam.map_or(Ok(()), |ipam| ipam.gc()));
    errors.extend(ipam.err());
    if ip_masq {
        // Attachments of one container share their rules, so one that is valid keeps them.
        let is_valid = |id: &str| valid.iter().any(|attachment| attachment.container_id == id);
        let collected = masquerade::collect_garbage(&mut OsRunner, &call.conf.name, is_valid);
        errors.extend(collected.err());
    }
    Error::of_teardown(errors)
}
