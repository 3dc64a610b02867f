//! The ptp plugin: a veth pair between the container and the host, which routes.

mod add;
mod check;
mod conf;

use cni::serve::Plugin;
use cni::{AddResult, Call, ErrorObject};

use crate::delegated_ipam::{self, DelegatedIpam};
use crate::error::{Error, warn};
use crate::masquerade::{self, Backend};
use crate::{garbage, veth};

use conf::Conf;
pub(crate) use conf::read as read_conf;

/// The ptp plugin.
pub(crate) struct Ptp;

impl Plugin for Ptp {
    fn name(&self) -> &'static str {
        "ptp"
    }

    fn add(&self, call: &Call) -> Result<AddResult, ErrorObject> {
        Ok(add::add(call)?)
    }

    fn del(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(del(call)?)
    }

    fn check(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(check::check(call)?)
    }

    fn gc(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(garbage::collect(call, Conf::parse_leniently(call).ip_masq)?)
    }

    fn status(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(status(call)?)
    }
}

/// Detaches the container: link, then addresses, then rules. Each is tried whatever becomes of
/// the others, but addresses that may still be in use are kept.
fn del(call: &Call) -> Result<(), Error> {
    let conf = Conf::parse_leniently(call);
    if conf.ip_masq && conf.ip_masq_backend == Some(Backend::Nftables) {
        warn("ipMasqBackend nftables is not supported yet: leaving its rules, if there are any");
    }
    let mut errors = Vec::new();
    errors.extend(veth::delete_of(call).err());
    if errors.is_empty() {
        let released = DelegatedIpam::require(call).and_then(|ipam| ipam.del());
        errors.extend(released.err());
    }
    if conf.ip_masq {
        errors.extend(masquerade::tear_down(call).err());
    }
    Error::of_teardown(errors)
}

/// Whether an ADD could succeed.
fn status(call: &Call) -> Result<(), Error> {
    let conf = Conf::parse(call)?;
    conf.ensure_supported()?;
    netlink::Socket::open().map_err(|error| Error::NotAvailable(error.to_string()))?;
    if conf.ip_masq {
        masquerade::available()?;
    }
    delegated_ipam::status(call, true)
}
