//! DEL and GC: whatever the configuration says now, what is there of ours goes, by all backends. What keeps bridges
//! apart stays with them.

use std::net::IpAddr;

use cni::Call;
use netlink::nftables::Client;
use runner::OsRunner;

use super::conf::{Conf, Means};
use super::firewalld::Firewalld;
use super::iptables::{Programs, Removal};
use super::{isolation, nftables};
use crate::error::Error;
use crate::iptables::lock;
use crate::kernel_tables::KernelTables;
use crate::lease::Lease;
use crate::owner::{Owner, Stale};
use crate::veth;

/// Has the container's packets pass no more.
pub(super) fn del(call: &Call) -> Result<(), Error> {
    let conf = Conf::parse_leniently(call);
    let result = call.conf.prev_result().ok().flatten();
    let addresses = result.map(|it| super::addresses(&it)).unwrap_or_default();
    tear_down(call, &conf, &addresses)
}

/// Removes what the call's attachment has. `addresses` are those that are known of it.
pub(super) fn tear_down(call: &Call, conf: &Conf, addresses: &[IpAddr]) -> Result<(), Error> {
    let mut kernel = KernelTables::default();
    let mut errors = Vec::new();
    let whose = (call.container_id.as_str(), call.ifname.as_str());
    let removal = Removal::of_attachment(&call.conf.name, whose, addresses).of_container(call);
    errors.extend(by_iptables(&mut kernel, &removal).err());
    errors.extend(by_nftables(&mut kernel, |it| nftables::tear_down(it, &Owner::of(call))).err());
    errors.extend(by_firewalld(call, conf, addresses).err());
    Error::of_teardown(errors)
}

fn by_iptables(kernel: &mut KernelTables, removal: &Removal<'_>) -> Result<(), Error> {
    let lock = lock::take()?;
    Programs { runner: &mut OsRunner, lock: lock.as_ref() }.remove(kernel, removal)
}

fn by_nftables(
    kernel: &mut KernelTables,
    remove: impl FnOnce(&mut Client) -> Result<(), Error>,
) -> Result<(), Error> {
    kernel.client()?.map_or(Ok(()), remove)
}

fn by_firewalld(call: &Call, conf: &Conf, addresses: &[IpAddr]) -> Result<(), Error> {
    if addresses.is_empty() {
        return Ok(());
    }
    // One that does not run has nothing either.
    let found = match conf.backend {
        Some(Means::Rules(_)) => None,
        Some(Means::Firewalld) => Firewalld::find_or_fail()?,
        None => Firewalld::find(),
    };
    let Some(mut firewalld) = found else { return Ok(()) };
    let gone = addresses.iter().filter(|it| !is_of_another(call, **it));
    let removed = gone.map(|it| firewalld.remove_source(&conf.zone, *it));
    Error::of_teardown(removed.filter_map(Result::err).collect())
}

/// Whether somebody else of the network has the address by now: a DEL may come late, and a source does not tell whose it
/// is. While the container has it, a lease that tells otherwise is of before.
fn is_of_another(call: &Call, address: IpAddr) -> bool {
    let lease = Lease::read(ipam::listing::default_data_dir(), &call.conf.name, address);
    let is_leased_away = lease.is_some_and(|it| {
        let is_same = it.ifname.is_none_or(|ifname| ifname == call.ifname);
        it.container_id != call.container_id || !is_same
    });
    is_leased_away && !veth::has_address(call, address)
}

/// Removes what no valid attachment of the call's network has. firewalld is not told whose an address is, and what it
/// was given stays until it is started anew.
pub(super) fn collect_garbage(call: &Call) -> Result<(), Error> {
    let valid = call.conf.valid_attachments()?;
    let network = &call.conf.name;
    let mut kernel = KernelTables::default();
    let mut errors = Vec::new();
    errors.extend(by_iptables(&mut kernel, &Removal::of_garbage(network, &valid)).err());
    let stale = Stale::new(network, &valid);
    errors.extend(by_nftables(&mut kernel, |it| nftables::collect_garbage(it, &stale)).err());
    if valid.is_empty() {
        let kept_apart = by_nftables(&mut kernel, |it| isolation::take_back(it, network));
        errors.extend(kept_apart.err());
    }
    Error::of_teardown(errors)
}
