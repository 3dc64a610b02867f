//! portmap: ports of the host that lead to a container, by iptables or by nf_tables.

mod add;
mod alive;
mod check;
mod conditions;
mod conf;
mod del;
mod flows;
mod identity;
mod iptables;
mod mapping;
mod nftables;
mod owner;
mod reference_nftables;

use cni::serve::Plugin;
use cni::{AddResult, Call, ErrorObject};

use crate::backend::Backend;
use crate::error::Error;
use crate::kernel_tables::Signs;

use conf::Conf;
pub(crate) use conf::read as read_conf;
use identity::Identity;

/// What errors call it.
const WHAT: &str = "portmap";

/// By what ports are published already.
const SIGNS: Signs<'_> = Signs {
    nftables: &[
        (nftables::class::TABLE, nftables::class::PREROUTING.name),
        reference_nftables::SIGNS[0],
        reference_nftables::SIGNS[1],
    ],
    iptables: &["CNI-HOSTPORT-", identity::CHAIN_PREFIX],
};

/// The portmap plugin.
pub(crate) struct Portmap;

impl Plugin for Portmap {
    fn name(&self) -> &'static str {
        "portmap"
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
        Ok(del::collect_garbage(call)?)
    }

    fn status(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(status(call)?)
    }
}

/// Whether an ADD could ever succeed.
fn status(call: &Call) -> Result<(), Error> {
    Backend::available(Conf::parse(call)?.backend, SIGNS, WHAT)
}

/// The call's attachment, as iptables' rules know it.
fn identity_of(call: &Call) -> Identity {
    Identity::new(&call.conf.name, &call.container_id)
}
