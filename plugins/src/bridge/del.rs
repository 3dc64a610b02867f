//! DEL and GC.

use cni::Call;

use super::conf::Conf;
use crate::delegated_ipam::DelegatedIpam;
use crate::error::{Error, warn};
use crate::{masquerade, teardown};

/// Detaches the container.
pub(super) fn del(call: &Call) -> Result<(), Error> {
    let conf = Conf::parse_leniently(call);
    warn_of_leftovers(&conf);
    teardown::detach(call, conf.ip_masq, || {
        DelegatedIpam::find_for_del(call)?.map_or(Ok(()), |ipam| ipam.del())
    })
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
    teardown::collect_garbage(call, conf.ip_masq)
}
