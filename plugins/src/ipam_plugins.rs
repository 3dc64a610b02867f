//! The IPAM plugins under their own names, for other suites' plugins that delegate to them.

use cni::serve::Plugin;
use cni::{AddResult, Call, ErrorObject};

use crate::delegated_ipam::noting;
use crate::error::Error;

/// host-local: addresses of ranges, leased in files on this host.
pub(crate) struct HostLocal;

impl Plugin for HostLocal {
    fn name(&self) -> &'static str {
        "host-local"
    }

    fn add(&self, call: &Call) -> Result<AddResult, ErrorObject> {
        Ok(noting(|notes| ipam::host_local::add(call, notes))?)
    }

    fn del(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(noting(|notes| ipam::host_local::del(call, notes))?)
    }

    fn check(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(ipam::host_local::check(call).map_err(Error::from)?)
    }

    fn gc(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(noting(|notes| ipam::host_local::gc(call, notes))?)
    }

    fn status(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(ipam::host_local::status(call).map_err(Error::from)?)
    }
}

/// static: the addresses that the configuration or the runtime names.
pub(crate) struct Static;

impl Plugin for Static {
    fn name(&self) -> &'static str {
        "static"
    }

    fn add(&self, call: &Call) -> Result<AddResult, ErrorObject> {
        Ok(ipam::static_addresses::add(call).map_err(Error::from)?)
    }

    fn del(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(ipam::static_addresses::del(call).map_err(Error::from)?)
    }

    fn check(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(ipam::static_addresses::check(call).map_err(Error::from)?)
    }

    fn gc(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(ipam::static_addresses::gc(call).map_err(Error::from)?)
    }

    fn status(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(ipam::static_addresses::status(call).map_err(Error::from)?)
    }
}
