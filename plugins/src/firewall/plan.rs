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
        let mut dropping = Vec::new();
        if backend == Backend::Nftables
            && firewalld.is_none()
            && let Some(client) = kernel.client()?
        {
            dropping = nftables::dropping(client)?;
        }
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
        Ok(Self { firewalld, backend, by_iptables, dropping, has_programs })
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
    let is_of_family = |it: &Called| (it.family == nft::Family::Ip) == family.is_ipv4;
    has_legacy_table(family, FILTER)
        || dropping.iter().any(|it| nftables::is_of_iptables(it) && is_of_family(it))
}
