//! DEL and GC: whatever the configuration says now, what is there of ours goes, by both backends.

use std::net::IpAddr;

use cni::Call;
use runner::OsRunner;

use super::conf::{self, Conf};
use super::identity::Identity;
use super::iptables::{self, Kept, Programs};
use super::mapping::{Held, Mapping};
use super::owner::Siblings;
use super::{flows, identity_of, nftables, reference_nftables};
use crate::error::Error;
use crate::iptables::lock;
use crate::kernel_tables::KernelTables;
use crate::owner::Owner;

/// Publishes the container's ports no more.
pub(super) fn del(call: &Call) -> Result<(), Error> {
    let conf = Conf::parse_leniently(call);
    let removed = tear_down(call, &conf);
    let mut mappings = conf.mappings;
    let mut addresses = own_addresses(call);
    let held = removed.as_ref().map_or(&[][..], Vec::as_slice);
    addresses.extend(held.iter().map(|it| it.to));
    mappings.extend(held.iter().map(of_held));
    flows::cut_ended(&mappings, &addresses);
    removed.map(drop)
}

/// The addresses of the attachment, as far as its result tells.
fn own_addresses(call: &Call) -> Vec<IpAddr> {
    let result = call.conf.prev_result().ok().flatten();
    result.map(|it| conf::bare(&conf::addresses(&it, &call.ifname))).unwrap_or_default()
}

/// Whether all of these addresses are of other interfaces of the container.
fn is_of_siblings(call: &Call, addresses: &[IpAddr]) -> bool {
    let (own, siblings) = (own_addresses(call), Siblings::of(call));
    !addresses.is_empty() && addresses.iter().all(|it| !own.contains(it) && siblings.have(*it))
}

/// What was published, as far as flows are concerned.
fn of_held(held: &Held) -> Mapping {
    let all = if held.to.is_ipv4() { IpAddr::from([0_u8; 4]) } else { IpAddr::from([0_u8; 16]) };
    Mapping {
        protocol: held.key.protocol,
        host_port: held.key.port,
        container_port: held.key.port,
        host_ip: Some(held.key.address.unwrap_or(all)),
    }
}

/// Removes what the call's attachment has published, whatever its configuration tells of that. Tells what that was, as
/// far as the layouts do.
pub(super) fn tear_down(call: &Call, conf: &Conf) -> Result<Vec<Held>, Error> {
    // Also for nf_tables: what attachments share goes with the last of them.
    let lock = lock::take()?;
    let mut kernel = KernelTables::default();
    let mut programs = Programs { runner: &mut OsRunner, lock: lock.as_ref() };
    // Who has published nothing may share the chain with an interface of the container that has.
    let kept: Kept<'_> = &|to| is_of_siblings(call, to);
    let asked = conf.mappings.is_empty().then_some(kept);
    let by_iptables = iptables::tear_down(&mut programs, &mut kernel, &identity_of(call), asked);
    let by_nftables = by_nftables(call, conf, &mut kernel, asked);
    match (by_iptables, by_nftables) {
        (Ok(()), removed) => removed,
        (Err(error), removed) => {
            let errors = [Some(error), removed.err()].into_iter().flatten().collect();
            Error::of_teardown(errors).map(|()| Vec::new())
        }
    }
}

fn by_nftables(
    call: &Call,
    conf: &Conf,
    kernel: &mut KernelTables,
    asked: Option<Kept<'_>>,
) -> Result<Vec<Held>, Error> {
    let Some(client) = kernel.client()? else { return Ok(Vec::new()) };
    let removed = nftables::tear_down(client, &Owner::of(call), conf);
    let of_reference = reference_nftables::tear_down(client, &call.container_id, asked);
    removed.and_then(|removed| of_reference.map(|()| removed))
}

/// Publishes no more what no valid attachment of the call's network has. What the reference has made by nf_tables does
/// not tell its network, and stays.
pub(super) fn collect_garbage(call: &Call) -> Result<(), Error> {
    let valid = call.conf.valid_attachments()?;
    let network = &call.conf.name;
    let identities: Vec<Identity> =
        valid.iter().map(|it| Identity::new(network, &it.container_id)).collect();
    let lock = lock::take()?;
    let mut kernel = KernelTables::default();
    let by_nftables = kernel.client().map_err(Error::from).and_then(|client| {
        client.map_or(Ok(()), |it| nftables::collect_garbage(it, network, &valid))
    });
    let mut programs = Programs { runner: &mut OsRunner, lock: lock.as_ref() };
    let by_iptables = iptables::collect_garbage(&mut programs, &mut kernel, network, &identities);
    let errors = [by_nftables.err(), by_iptables.err()].into_iter().flatten().collect();
    Error::of_teardown(errors)
}
