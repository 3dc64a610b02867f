//! ADD.

use cni::{AddResult, Call};
use netlink::nftables::Called;
use runner::OsRunner;

use super::conf::{Conf, IngressPolicy};
use super::iptables::{Programs, Removal, Rules, record};
use super::plan::Plan;
use super::{Wanted, del, isolation, nftables};
use crate::error::Error;
use crate::iptables::{FILTER, InKernel, lock};
use crate::kernel_tables::KernelTables;
use crate::owner::Owner;
use crate::prev_result;
use crate::rollback::Rollback;

/// Has the container's packets pass; the result is that of the plugins before.
pub(super) fn add(call: &Call) -> Result<AddResult, Error> {
    let wanted = Wanted::new(Conf::parse(call)?, prev_result::required(call)?)?;
    // A version that cannot express the result is an error before it is too late.
    wanted.result.to_json(call.conf.version)?;
    if !wanted.addresses.is_empty() {
        let mut rollback = Rollback::default();
        set_up(call, &wanted, &mut rollback)?;
        rollback.commit();
    }
    Ok(wanted.result)
}

fn set_up<'a>(
    call: &'a Call,
    wanted: &'a Wanted,
    rollback: &mut Rollback<'a>,
) -> Result<(), Error> {
    let mut kernel = KernelTables::default();
    let mut plan = Plan::new(wanted, &mut kernel)?;
    // What attachments share is made by the first of them. Without the lock nothing was made yet.
    let lock = if plan.by_iptables.is_empty() { None } else { lock::take()? };
    rollback
        .push("close what was opened", || del::tear_down(call, &wanted.conf, &wanted.addresses));
    if let Some((client, bridge)) = plan.keeping(&mut kernel, wanted)? {
        let policy = wanted.conf.ingress_policy;
        isolation::set_up(client, bridge, policy, &call.conf.name)?;
    }
    if wanted.conf.ingress_policy == IngressPolicy::Open
        && let Some(client) = kernel.client()?
    {
        isolation::take_back(client, &call.conf.name)?;
    }
    isolation::isolate_port(call, wanted)?;
    let whose = (call.container_id.as_str(), call.ifname.as_str());
    let former = Removal::of_attachment(&call.conf.name, whose, &[]).of_container(call);
    let mut runner = OsRunner;
    let mut programs = Programs { runner: &mut runner, lock: lock.as_ref() };
    // An earlier ADD may have been for addresses of other families, or by another backend.
    let record = record(&call.conf.name, &call.container_id, &call.ifname);
    let mut others = plan.formerly_by_iptables.iter();
    if others.any(|it| kernel.places(*it, FILTER, &record).nftables) {
        programs.remove(&mut kernel, &former)?;
    }
    for family in &plan.by_iptables {
        let rules = Rules::new(call, wanted, plan.backend, *family);
        let in_kernel = InKernel::find(&mut kernel, *family, FILTER);
        if !in_kernel.is_some_and(|mut it| it.add(&rules.addition())) {
            programs.set_up(&mut kernel, *family, &rules, &former)?;
        }
    }
    if let Some(firewalld) = &mut plan.firewalld {
        for address in &wanted.addresses {
            firewalld.add_source(&wanted.conf.zone, *address)?;
        }
    }
    if let Some(client) = plan.opening(&mut kernel)? {
        let (found, owner) = (plan.dropping.clone(), Owner::of(call));
        let is_one = |it: &Called| plan.is_by_nftables(it);
        nftables::set_up(client, found, &owner, &wanted.addresses, is_one)?;
    }
    Ok(())
}
