//! CHECK.

use cni::Call;
use netlink::Socket;

use super::conf::Conf;
use crate::delegated_ipam::DelegatedIpam;
use crate::error::Error;
use crate::{prev_result, veth};

/// Whether the attachment still is as ADD left it.
pub(super) fn check(call: &Call) -> Result<(), Error> {
    Conf::parse(call)?;
    let netns = veth::open_netns(call)?;
    DelegatedIpam::require(call)?.check()?;
    let attachment = prev_result::attachment(call)?;
    let _entered = netns.enter()?;
    let mut socket = Socket::open()?;
    let link = attachment.check_veth(&mut socket, true)?;
    attachment.check_addresses_and_routes(&mut socket, &link)
}
