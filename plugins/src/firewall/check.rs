//! CHECK.

use cni::Call;
use netlink::nftables::Called;
use runner::OsRunner;

use super::conf::{Conf, IngressPolicy};
use super::iptables::{ACCEPT, Programs, Rules};
use super::plan::Plan;
use super::{Wanted, isolation, may_have, nftables};
use crate::backend::Backend;
use crate::error::Error;
use crate::kernel_tables::KernelTables;
use crate::owner::Owner;
use crate::prev_result;

/// Whether the container's packets still pass as ADD had it.
pub(super) fn check(call: &Call) -> Result<(), Error> {
    let wanted = Wanted::new(Conf::parse(call)?, prev_result::required(call)?)?;
    if wanted.addresses.is_empty() {
        return Ok(());
    }
    let mut kernel = KernelTables::default();
    let plan = Plan::new(&wanted, &mut kernel)?;
    let (backend, is_free) = (plan.backend, wanted.conf.backend.is_none());
    let has_firewalld = plan.firewalld.is_some();
    let checked = by(plan, call, &wanted, &mut kernel);
    // Where the choice is left to podwire, the node may have begun to use iptables after ADD.
    match checked {
        Err(Error::Changed(_))
            if is_free
                && !has_firewalld
                && backend == Backend::Iptables
                && !may_have(&mut kernel, ACCEPT) =>
        {
            let plan = Plan::by(None, Backend::Nftables, &wanted, &mut kernel)?;
            by(plan, call, &wanted, &mut kernel)
        }
        checked => checked,
    }
}

fn by(
    mut plan: Plan,
    call: &Call,
    wanted: &Wanted,
    kernel: &mut KernelTables,
) -> Result<(), Error> {
    if let Some((client, bridge)) = plan.keeping(kernel, wanted)? {
        let policy = wanted.conf.ingress_policy;
        isolation::check(client, bridge, policy, &call.conf.name)?;
    }
    if wanted.conf.ingress_policy == IngressPolicy::Open
        && let Some(client) = kernel.client()?
    {
        isolation::check_open(client, &call.conf.name)?;
    }
    // It changes nothing, and waits for nobody.
    let mut programs = Programs { runner: &mut OsRunner, lock: None };
    let mut is_ours = plan.backend == Backend::Nftables;
    for family in &plan.by_iptables {
        let rules = Rules::new(call, wanted, plan.backend, *family);
        is_ours |= programs.check(kernel, *family, &rules)?;
    }
    if is_ours {
        isolation::check_port(call, wanted)?;
    }
    if let Some(firewalld) = &mut plan.firewalld {
        let zone = &wanted.conf.zone;
        for address in &wanted.addresses {
            if !firewalld.has_source(zone, *address)? {
                let text = format!("zone {zone:?} of firewalld has no source {address} any more");
                return Err(Error::Changed(text));
            }
        }
    }
    match plan.opening(kernel)? {
        Some(client) => {
            let (found, owner) = (&plan.dropping, Owner::of(call));
            let is_one = |it: &Called| plan.is_by_nftables(it);
            nftables::check(client, found, &owner, &wanted.addresses, is_one)
        }
        None => Ok(()),
    }
}
