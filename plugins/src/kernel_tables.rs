//! The kernel's tables, without starting a program: also those that the iptables programs made in
//! nf_tables.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;

use netlink::nftables::{Client, Jump};
use ruleset::nft::{self, Table};

use crate::backend::Backend;
use crate::iptables::{FAMILIES, Family, NAT, Places};

/// What shows by which backend attachments of this node are served already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signs<'a> {
    /// Chains of nf_tables that are only made for it.
    pub(crate) nftables: &'a [(Table<'a>, &'a str)],
    /// What names of chains in iptables' table nat begin with that are only made for it.
    pub(crate) iptables: &'a [&'a str],
}

/// The kernel's tables. Dropping it does not wait for the kernel to free what was removed.
#[derive(Debug, Default)]
pub(crate) struct KernelTables {
    nftables: Option<Client>,
}

impl Drop for KernelTables {
    fn drop(&mut self) {
        self.nftables.take().into_iter().for_each(Client::leave);
    }
}

impl KernelTables {
    /// That by which attachments of this node are served already; else nf_tables, where the kernel has it and
    /// the node does not keep to the tables of old.
    pub(crate) fn backend(&mut self, signs: Signs<'_>) -> Result<Backend, netlink::Error> {
        let Some(client) = self.client()? else { return Ok(Backend::Iptables) };
        for (table, chain) in signs.nftables {
            if client.has_chain(*table, chain)? {
                return Ok(Backend::Nftables);
            }
        }
        for family in FAMILIES {
            let chains = client.chains(table(family, NAT))?.unwrap_or_default();
            let keeps_to_old = has_legacy_table(family, NAT) && family.programs.find().is_some();
            let is_sign = |chain: &String| signs.iptables.iter().any(|it| chain.starts_with(it));
            if keeps_to_old || chains.iter().any(is_sign) {
                return Ok(Backend::Iptables);
            }
        }
        Ok(if self.has_nftables()? { Backend::Nftables } else { Backend::Iptables })
    }

    /// Whether the kernel has nf_tables: a socket there is for all of netfilter.
    pub(crate) fn has_nftables(&mut self) -> Result<bool, netlink::Error> {
        let Some(client) = self.client()? else { return Ok(false) };
        Ok(client.generation()?.is_some())
    }

    /// Removes the jumps of `hook` to a chain that are `ours` from nf_tables, and the chain when no others need it;
    /// where the programs must look for others.
    pub(crate) fn remove(
        &mut self,
        family: Family,
        hook: &str,
        chain: &str,
        ours: impl Fn(&Jump) -> bool,
    ) -> Places {
        let is_refused = self.remove_from_nftables(family, hook, chain, ours).is_err();
        Places { nftables: is_refused, legacy: has_legacy_table(family, NAT) }
    }

    /// Where the kernel has such a table of iptables with such a chain; where it may not be asked, it may have.
    pub(crate) fn places(&mut self, family: Family, name: &str, chain: &str) -> Places {
        let has_chain = self.client().and_then(|client| {
            client.map_or(Ok(false), |client| client.has_chain(table(family, name), chain))
        });
        Places { nftables: has_chain.unwrap_or(true), legacy: has_legacy_table(family, name) }
    }

    /// Whether nf_tables has such a table of iptables.
    pub(crate) fn has_table(&mut self, family: Family, name: &str) -> Result<bool, netlink::Error> {
        self.client()?.map_or(Ok(false), |client| client.has_table(table(family, name)))
    }

    /// Whether it is certain, without a program, that nothing but the tables of nf_tables has to be looked at; that table
    /// nat has no chain `own`; and that no rule of `chain` is for one of these ports.
    pub(crate) fn is_free(
        &mut self,
        family: Family,
        (chain, own): (&str, &str),
        ports: &BTreeSet<u16>,
    ) -> Result<bool, netlink::Error> {
        let table = table(family, NAT);
        let Some(client) = self.client()? else { return Ok(false) };
        if has_legacy_table(family, NAT) || client.has_chain(table, own)? {
            return Ok(false);
        }
        let is_other = |of_rule: Option<Vec<u16>>| {
            of_rule.is_some_and(|it| !it.iter().any(|port| ports.contains(port)))
        };
        Ok(client.ports(table, chain)?.into_iter().all(is_other))
    }

    /// Removes a chain of table nat and the jumps of `hook` to it from nf_tables: all of it, or nothing if one of the
    /// addresses to which its rules lead by target DNAT `is_kept`, or not all rules tell. The addresses, and where the
    /// programs must look for what is left.
    pub(crate) fn remove_leading(
        &mut self,
        family: Family,
        hook: &str,
        chain: &str,
        is_kept: impl Fn(IpAddr) -> bool,
    ) -> (Vec<IpAddr>, Places) {
        let removed = self.remove_leading_from_nftables(family, hook, chain, is_kept);
        let legacy = has_legacy_table(family, NAT);
        let nftables = !matches!(removed, Ok(Some(_)));
        (removed.ok().flatten().unwrap_or_default(), Places { nftables, legacy })
    }

    /// `None` when the kernel has no nf_tables.
    pub(crate) fn client(&mut self) -> Result<Option<&mut Client>, netlink::Error> {
        if self.nftables.is_none() {
            self.nftables = Client::open()?;
        }
        Ok(self.nftables.as_mut())
    }

    fn remove_from_nftables(
        &mut self,
        family: Family,
        hook: &str,
        chain: &str,
        ours: impl Fn(&Jump) -> bool,
    ) -> Result<(), netlink::Error> {
        let Some(client) = self.client()? else { return Ok(()) };
        if !client.has_chain(table(family, NAT), chain)? {
            return Ok(());
        }
        delete(client, family, (hook, chain), ours)
    }

    /// Where what was removed led; `None` when nothing was.
    fn remove_leading_from_nftables(
        &mut self,
        family: Family,
        hook: &str,
        chain: &str,
        is_kept: impl Fn(IpAddr) -> bool,
    ) -> Result<Option<Vec<IpAddr>>, netlink::Error> {
        let table = table(family, NAT);
        let Some(client) = self.client()? else { return Ok(Some(Vec::new())) };
        if !client.has_chain(table, chain)? {
            return Ok(Some(Vec::new()));
        }
        let to: Option<Vec<IpAddr>> = client.destinations(table, chain)?.into_iter().collect();
        let Some(to) = to.filter(|it| !it.iter().any(|address| is_kept(*address))) else {
            return Ok(None);
        };
        delete(client, family, (hook, chain), |_| true)?;
        Ok(Some(to))
    }
}

/// Deletes the jumps of `hook` to a chain of table nat that are `ours`, and the chain when no others need it.
fn delete(
    client: &mut Client,
    family: Family,
    (hook, chain): (&str, &str),
    ours: impl Fn(&Jump) -> bool,
) -> Result<(), netlink::Error> {
    let table = table(family, NAT);
    let jumps = client.jumps(table, hook, chain)?;
    let (ours, others): (Vec<Jump>, Vec<Jump>) = jumps.into_iter().partition(ours);
    let handles: Vec<u64> = ours.iter().map(|jump| jump.handle).collect();
    client.delete(table, (hook, &handles), others.is_empty().then_some(chain))
}

/// A table of iptables, as nf_tables has it.
pub(crate) fn table(family: Family, name: &str) -> Table<'_> {
    Table { family: if family.is_ipv4 { nft::Family::Ip } else { nft::Family::Ip6 }, name }
}

/// Whether the kernel has a table of this name that iptables used before nf_tables; what is not readable
/// may be there.
pub(crate) fn has_legacy_table(family: Family, name: &str) -> bool {
    let names =
        if family.is_ipv4 { "/proc/net/ip_tables_names" } else { "/proc/net/ip6_tables_names" };
    match fs::read_to_string(names) {
        Ok(text) => text.lines().any(|line| line == name),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}
