//! DEL and GC: whatever the configuration says now, what is there of ours goes, by both backends.

use std::net::IpAddr;

use cni::Call;
use runner::OsRunner;

use super::conf::{self, Conf};
use super::flows::{self, Ended};
use super::identity::Identity;
use super::iptables::{self, OfSiblings, Programs};
use super::owner::Siblings;
use super::{identity_of, nftables, reference_nftables};
use crate::error::Error;
use crate::iptables::lock;
use crate::kernel_tables::KernelTables;
use crate::owner::Owner;

/// Publishes the container's ports no more.
pub(super) fn del(call: &Call) -> Result<(), Error> {
    let conf = Conf::parse_leniently(call);
    let (mut ended, removed) = tear_down(call, &conf);
    let leaves_flows = conf.mappings.iter().any(|it| it.protocol.leaves_flows());
    if leaves_flows {
        ended.addresses.extend(own_addresses(call));
    } else if !conf.mappings.is_empty() {
        // Not every layout tells by which protocols addresses were published.
        ended.addresses.clear();
    }
    if leaves_flows && ended.is_empty() {
        flows::cut_translated(&conf.mappings);
    } else {
        ended.cut();
    }
    removed
}

/// The addresses of the attachment, as far as its result tells.
fn own_addresses(call: &Call) -> Vec<IpAddr> {
    let result = call.conf.prev_result().ok().flatten();
    result.map(|it| conf::bare(&conf::addresses(&it, &call.ifname))).unwrap_or_default()
}

/// Removes what the call's attachment has published, whatever its configuration tells of that. Tells what that was, as
/// far as the layouts do.
pub(super) fn tear_down(call: &Call, conf: &Conf) -> (Ended, Result<(), Error>) {
    // Also for nf_tables: what attachments share goes with the last of them.
    let lock = match lock::take() {
        Ok(lock) => lock,
        Err(error) => return (Ended::default(), Err(error)),
    };
    let mut kernel = KernelTables::default();
    let mut programs = Programs { runner: &mut OsRunner, lock: lock.as_ref() };
    // By iptables other interfaces of the container share the chain.
    let siblings = Siblings::of(call, own_addresses(call));
    let of_siblings: OfSiblings<'_> = &|to| siblings.have(to);
    let (mut ended, by_iptables) =
        iptables::tear_down(&mut programs, &mut kernel, &identity_of(call), of_siblings);
    // The reference's rules of nf_tables do not tell whose of the container they are: who has published nothing leaves
    // those of who has.
    let kept = conf.mappings.is_empty().then_some(of_siblings);
    let by_nftables = by_nftables(call, conf, &mut kernel, kept, &mut ended);
    let errors = [by_iptables.err(), by_nftables.err()].into_iter().flatten().collect();
    (ended, Error::of_teardown(errors))
}

fn by_nftables(
    call: &Call,
    conf: &Conf,
    kernel: &mut KernelTables,
    kept: Option<OfSiblings<'_>>,
    ended: &mut Ended,
) -> Result<(), Error> {
    let Some(client) = kernel.client()? else { return Ok(()) };
    let removed = nftables::tear_down(client, &Owner::of(call), conf);
    let of_reference = reference_nftables::tear_down(client, &call.container_id, kept);
    let mut errors = Vec::new();
    for removed in [removed, of_reference] {
        match removed {
            Ok(held) => ended.extend_by(&held),
            Err(error) => errors.push(error),
        }
    }
    Error::of_teardown(errors)
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
        client.map_or(Ok(Vec::new()), |it| nftables::collect_garbage(it, network, &valid))
    });
    let mut programs = Programs { runner: &mut OsRunner, lock: lock.as_ref() };
    let (mut ended, by_iptables) =
        iptables::collect_garbage(&mut programs, &mut kernel, network, &identities);
    ended.extend_by(by_nftables.as_deref().unwrap_or_default());
    drop(lock);
    ended.cut();
    let errors = [by_nftables.err(), by_iptables.err()].into_iter().flatten().collect();
    Error::of_teardown(errors)
}
