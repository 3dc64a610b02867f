//! The bridge plugin: a veth pair between the container and a bridge on the host.

mod add;
mod check;
mod conf;
mod del;
mod gateway;
mod host;
mod mac_spoof_check;

use cni::serve::Plugin;
use cni::{AddResult, Call, ErrorObject};

pub(crate) use conf::{read as read_conf, read_backend, read_mtu};

/// The bridge plugin.
pub(crate) struct Bridge;

impl Plugin for Bridge {
    fn name(&self) -> &'static str {
        "bridge"
    }

    fn add(&self, call: &Call) -> Result<AddResult, ErrorObject> {
        Ok(add::add(call)?)
    }

    fn del(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(del::del(call)?)
    }

    fn check(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(check::check(call)?)
    }

    fn gc(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(del::gc(call)?)
    }

    fn status(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(check::status(call)?)
    }
}
