//! DEL and GC.

use cni::Call;

use super::conf::Conf;
use super::mac_spoof_check;
use crate::delegated_ipam::DelegatedIpam;
use crate::error::Error;
use crate::teardown;

/// Detaches the container.
pub(super) fn del(call: &Call) -> Result<(), Error> {
    let conf = Conf::parse_leniently(call);
    let detached = teardown::detach(call, conf.ip_masq, || {
        DelegatedIpam::find_for_del(call)?.map_or(Ok(()), |ipam| ipam.del())
    });
    // For as long as there was a port it was checked.
    let unchecked = if conf.mac_spoof_check { mac_spoof_check::tear_down(call) } else { Ok(()) };
    Error::of_teardown([detached.err(), unchecked.err()].into_iter().flatten().collect())
}

/// Removes what belongs to no valid attachment.
pub(super) fn gc(call: &Call) -> Result<(), Error> {
    let conf = Conf::parse_leniently(call);
    teardown::collect_garbage(call, conf.ip_masq)
}
