//! DEL and GC.

use cni::Call;

use super::conf::Conf;
use crate::delegated_ipam::DelegatedIpam;
use crate::error::{Error, warn};
use crate::{garbage, masquerade, veth};

/// Detaches the container: link, then addresses (so that none is given away while it is in use),
/// then rules. Each is tried whatever becomes of the others.
pub(super) fn del(call: &Call) -> Result<(), Error> {
    let conf = Conf::parse_leniently(call);
    warn_of_leftovers(&conf);
    let mut errors = Vec::new();
    errors.extend(veth::delete_of(call).err());
    // A link that could not be deleted may still use its addresses.
    if errors.is_empty() {
        errors.extend(release(call).err());
    }
    if conf.ip_masq {
        errors.extend(masquerade::tear_down(call).err());
    }
    Error::of_teardown(errors)
}

fn release(call: &Call) -> Result<(), Error> {
    DelegatedIpam::find(call)?.map_or(Ok(()), |ipam| ipam.del())
}

/// What an ADD of the reference plugin may have made and podwire cannot remove yet.
fn warn_of_leftovers(conf: &Conf) {
    if conf.mac_spoof_check {
        warn("macspoofchk is not supported yet: leaving its rules, if there are any");
    }
    if conf.ip_masq && conf.ip_masq_backend == Some(masquerade::Backend::Nftables) {
        warn("ipMasqBackend nftables is not supported yet: leaving its rules, if there are any");
    }
}

/// Removes what belongs to no valid attachment.
pub(super) fn gc(call: &Call) -> Result<(), Error> {
    let conf = Conf::parse_leniently(call);
    garbage::collect(call, conf.ip_masq)
}
