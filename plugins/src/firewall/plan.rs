//! By what an attachment is served.

use netlink::nftables::{Called, Client};
use ruleset::nft;

use super::conf::Means;
use super::firewalld::Firewalld;
use super::{WHAT, Wanted, nftables};
use crate::backend::Backend;
use crate::error::Error;
use crate::iptables::{self, FAMILIES, FILTER, Family};
use crate::kernel_tables::{KernelTables, has_legacy_table};
use crate::nf_tables::missing;

/// By what an attachment is served.
pub(super) struct Plan {
    /// What has its packets pass; without it rules do.
    pub(super) firewalld: Option<Firewalld>,
    /// By what bridges are kept apart, and packets pass where firewalld does not see to that.
    pub(super) backend: Backend,
    /// The families that iptables serves.
    pub(super) by_iptables: Vec<Family>,
    /// The chains that drop what is forwarded, where nf_tables has packets pass.
    pub(super) dropping: Vec<Called>,
    /// The families that iptables does not serve, and in which it may have served an earlier ADD.
    pub(super) formerly_by_iptables: Vec<Family>,
    has_programs: bool,
}

impl Plan {
    /// As the configuration has it; or, where it leaves the choice to podwire, by firewalld if that runs, or what the
    /// node uses.
    pub(super) fn new(wanted: &Wanted, kernel: &mut KernelTables) -> Result<Self, Error> {
        let (firewalld, backend) = match wanted.conf.backend {
            Some(Means::Rules(backend)) => (None, backend),
            Some(Means::Firewalld) => (Some(Firewalld::connect()?), super::by_rules(kernel)),
            None => (Firewalld::find(), super::by_rules(kernel)),
        };
        Self::by(firewalld, backend, wanted, kernel)
    }

    /// By these.
    pub(super) fn by(
        firewalld: Option<Firewalld>,
        backend: Backend,
        wanted: &Wanted,
        kernel: &mut KernelTables,
    ) -> Result<Self, Error> {
        let has_programs = iptables::find().is_some();
        let mut called = Vec::new();
        if backend == Backend::Nftables
            && firewalld.is_none()
            && let Some(client) = kernel.client()?
        {
            called = nftables::others(client)?;
        }
        let has_tables = FAMILIES.map(|it| called.iter().any(|chain| is_of(chain, it)));
        let dropping: Vec<_> = called.into_iter().filter(|it| it.chain.drops_rest()).collect();
        let mut by_iptables = Vec::new();
        for family in FAMILIES {
            let has_addresses = wanted.addresses.iter().any(|it| it.is_ipv4() == family.is_ipv4);
            let is_needed = has_addresses
                && match (backend, firewalld.is_some()) {
                    (Backend::Iptables, false) => true,
                    (Backend::Iptables, true) => wanted.bridge.is_some(),
                    (Backend::Nftables, false) => has_programs && drops(&dropping, family),
                    (Backend::Nftables, true) => false,
                };
            if is_needed {
                by_iptables.push(family);
            }
        }
        let is_one_alone = by_iptables.len() == 1;
        let others = FAMILIES.into_iter().zip(has_tables).filter(|(family, has_tables)| {
            !by_iptables.contains(family) && (is_one_alone || *has_tables)
        });
        let formerly_by_iptables = others.map(|(family, _)| family).collect();
        Ok(Self { firewalld, backend, by_iptables, dropping, formerly_by_iptables, has_programs })
    }

    /// nf_tables, if it has packets pass.
    pub(super) fn opening<'a>(
        &self,
        kernel: &'a mut KernelTables,
    ) -> Result<Option<&'a mut Client>, Error> {
        let is_needed = self.backend == Backend::Nftables && self.firewalld.is_none();
        is_needed.then(|| client(kernel)).transpose()
    }

    /// nf_tables with the bridge that it keeps apart, if it does.
    pub(super) fn keeping<'a, 'b>(
        &self,
        kernel: &'a mut KernelTables,
        wanted: &'b Wanted,
    ) -> Result<Option<(&'a mut Client, &'b str)>, Error> {
        match &wanted.bridge {
            Some(bridge) if self.backend == Backend::Nftables => {
                Ok(Some((client(kernel)?, bridge.as_str())))
            }
            _ => Ok(None),
        }
    }

    /// Whether nf_tables has packets pass a chain: those of iptables are left to its programs where there are any.
    pub(super) fn is_by_nftables(&self, chain: &Called) -> bool {
        !(self.has_programs && nftables::is_of_iptables(chain))
    }
}

fn client(kernel: &mut KernelTables) -> Result<&mut Client, Error> {
    kernel.client()?.ok_or_else(|| missing(&format!("{WHAT} by nftables")))
}

/// Whether iptables drops what is forwarded, or may: what the tables of old hold only their programs tell.
fn drops(dropping: &[Called], family: Family) -> bool {
    has_legacy_table(family, FILTER) || dropping.iter().any(|it| is_of(it, family))
}

/// Whether it is the chain of a family's iptables.
fn is_of(chain: &Called, family: Family) -> bool {
    nftables::is_of_iptables(chain) && (chain.family == nft::Family::Ip) == family.is_ipv4
}
