//! The ptp plugin: a veth pair between the container and the host, which routes.

mod add;
mod check;
mod conf;

use cni::serve::Plugin;
use cni::{AddResult, Call, ErrorObject};

use crate::delegated_ipam::{self, DelegatedIpam};
use crate::error::Error;
use crate::{masquerade, teardown};

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
        Ok(teardown::collect_garbage(call, Conf::parse_leniently(call).ip_masq)?)
    }

    fn status(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(status(call)?)
    }
}

/// Detaches the container.
fn del(call: &Call) -> Result<(), Error> {
    let conf = Conf::parse_leniently(call);
    teardown::detach(call, conf.ip_masq, || match DelegatedIpam::find_for_del(call)? {
        Some(ipam) => ipam.del(),
        None if call.conf.ipam_type().is_some() => Ok(()),
        None => DelegatedIpam::require(call).map(|_| ()),
    })
}

/// Whether an ADD could succeed.
fn status(call: &Call) -> Result<(), Error> {
    let conf = Conf::parse(call)?;
    netlink::Socket::open().map_err(|error| Error::NotAvailable(error.to_string()))?;
    if conf.ip_masq {
        masquerade::available(conf.ip_masq_backend)?;
    }
    delegated_ipam::status(call, true)
}
