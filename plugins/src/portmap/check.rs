//! CHECK.

use cni::Call;
use ipnetwork::IpNetwork;
use runner::OsRunner;

use super::conf::{self, Conf};
use super::iptables::{OfSiblings, Programs, Rules};
use super::nftables::{self, Wanted};
use super::owner::Siblings;
use super::{SIGNS, identity_of, reference_nftables};
use crate::backend::Backend;
use crate::error::Error;
use crate::iptables::FAMILIES;
use crate::kernel_tables::KernelTables;
use crate::owner::Owner;

/// Whether the container's ports still are published as ADD left them.
pub(super) fn check(call: &Call) -> Result<(), Error> {
    let conf = Conf::parse(call)?;
    let result = call
        .conf
        .prev_result()?
        .ok_or_else(|| Error::Config("prevResult: missing, but CHECK needs it".into()))?;
    let addresses = conf::addresses(&result, &call.ifname);
    if conf.mappings.is_empty() || addresses == [None, None] {
        return Ok(());
    }
    let mut kernel = KernelTables::default();
    let backend = Backend::chosen(conf.backend, &mut kernel, SIGNS);
    let checked = by(backend, call, &conf, &addresses, &mut kernel);
    // What a node has may be told by another attachment's rules, where the choice is left to us.
    match checked {
        Err(Error::Changed(_)) if conf.backend.is_none() => {
            let other = match backend {
                Backend::Iptables => Backend::Nftables,
                Backend::Nftables => Backend::Iptables,
            };
            by(other, call, &conf, &addresses, &mut kernel).or(checked)
        }
        checked => checked,
    }
}

fn by(
    backend: Backend,
    call: &Call,
    conf: &Conf,
    addresses: &[Option<IpNetwork>; 2],
    kernel: &mut KernelTables,
) -> Result<(), Error> {
    match backend {
        Backend::Iptables => {
            // It changes nothing, and waits for nobody.
            let mut programs = Programs { runner: &mut OsRunner, lock: None };
            let siblings = Siblings::of(call, conf::bare(addresses));
            let of_siblings: OfSiblings<'_> = &|to| siblings.have(to);
            for (family, address) in FAMILIES.into_iter().zip(addresses) {
                let Some(address) = address else { continue };
                let rules = Rules::new(conf, identity_of(call), *address);
                programs.check(family, kernel, &rules, of_siblings)?;
            }
            Ok(())
        }
        Backend::Nftables => {
            let Some(client) = kernel.client()? else {
                return Err(Error::Changed("the kernel has no nf_tables".into()));
            };
            let owner = Owner::of(call);
            let wanted = Wanted::new(conf, owner.clone(), addresses, &[]);
            let checked = nftables::check(client, &wanted, &conf.mappings);
            if !matches!(checked, Err(Error::Changed(_))) {
                return checked;
            }
            if reference_nftables::check(client, conf, &call.container_id, addresses)? {
                return Ok(());
            }
            let siblings = Siblings::of(call, conf::bare(addresses));
            let of_siblings = nftables::of_siblings(client, &owner, &siblings)?;
            let wanted = Wanted::new(conf, owner, addresses, &of_siblings);
            nftables::check(client, &wanted, &conf.mappings)
        }
    }
}
