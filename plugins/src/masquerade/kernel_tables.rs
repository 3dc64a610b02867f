//! The kernel's tables, without starting a program: also those that the iptables programs made in
//! nf_tables.

use std::fs;
use std::io;

use netlink::nftables::{Client, Jump};
use ruleset::nft::{self, Table};

use super::nftables::{self, Mark};
use super::{Backend, CHAIN_PREFIX, FAMILIES, Family, HOOK_CHAIN, Places, Which, iptables};
use crate::error::Error;

/// The kernel's tables that masquerade.
///
/// Dropping it waits for the kernel to free what was removed, and so does removing a link: at the
/// end of a DEL both have passed.
#[derive(Debug, Default)]
pub(crate) struct KernelTables {
    nftables: Option<Client>,
}

impl KernelTables {
    /// That by which attachments of this node are masqueraded already; else nf_tables, where the kernel has it and
    /// the node does not keep to the tables of old.
    pub(super) fn backend(&mut self) -> Result<Backend, netlink::Error> {
        let Some(client) = self.client()? else { return Ok(Backend::Iptables) };
        if client.has_chain(nftables::TABLE, nftables::CHECKS.name)? {
            return Ok(Backend::Nftables);
        }
        for family in FAMILIES {
            let chains = client.chains(nat(family))?.unwrap_or_default();
            let keeps_to_old = has_legacy_table(family) && iptables::find().is_some();
            if keeps_to_old || chains.iter().any(|it| it.starts_with(CHAIN_PREFIX)) {
                return Ok(Backend::Iptables);
            }
        }
        let is_there = client.generation()?.is_some();
        Ok(if is_there { Backend::Nftables } else { Backend::Iptables })
    }

    /// Removes an attachment's rules from nf_tables; where the programs must look for others.
    pub(super) fn remove(&mut self, family: Family, chain: &str, which: Which<'_>) -> Places {
        let is_refused = self.remove_from_nftables(family, chain, which).is_err();
        Places { nftables: is_refused, legacy: has_legacy_table(family) }
    }

    /// Where the kernel has a nat table with the hook chain; where it may not be asked, it may have.
    pub(super) fn places(&mut self, family: Family) -> Places {
        let has_hook = self.client().and_then(|client| {
            client.map_or(Ok(false), |client| client.has_chain(nat(family), HOOK_CHAIN))
        });
        Places { nftables: has_hook.unwrap_or(true), legacy: has_legacy_table(family) }
    }

    /// Removes the rules in the table of nf_tables that are an attachment's.
    pub(super) fn remove_marked(&mut self, mark: &Mark) -> Result<(), Error> {
        self.client()?.map_or(Ok(()), |client| nftables::tear_down(client, mark))
    }

    /// Removes those of a network that are of no valid attachment.
    pub(super) fn collect_garbage(&mut self, network: &str, valid: &[Mark]) -> Result<(), Error> {
        self.client()?.map_or(Ok(()), |client| nftables::collect_garbage(client, network, valid))
    }

    /// `None` when the kernel has no nf_tables.
    pub(super) fn client(&mut self) -> Result<Option<&mut Client>, netlink::Error> {
        if self.nftables.is_none() {
            self.nftables = Client::open()?;
        }
        Ok(self.nftables.as_mut())
    }

    fn remove_from_nftables(
        &mut self,
        family: Family,
        chain: &str,
        which: Which<'_>,
    ) -> Result<(), netlink::Error> {
        let table = nat(family);
        let Some(client) = self.client()? else { return Ok(()) };
        if !client.has_chain(table, chain)? {
            return Ok(());
        }
        let jumps = client.jumps(table, HOOK_CHAIN, chain)?;
        let (ours, others): (Vec<Jump>, Vec<Jump>) =
            jumps.into_iter().partition(|jump| which.includes(jump.source));
        let handles: Vec<u64> = ours.iter().map(|jump| jump.handle).collect();
        client.delete(table, (HOOK_CHAIN, &handles), others.is_empty().then_some(chain))
    }
}

fn nat(family: Family) -> Table<'static> {
    Table { family: if family.is_ipv4 { nft::Family::Ip } else { nft::Family::Ip6 }, name: "nat" }
}

/// Whether the kernel has the nat table that iptables used before nf_tables; what is not readable
/// may be there.
fn has_legacy_table(family: Family) -> bool {
    let names =
        if family.is_ipv4 { "/proc/net/ip_tables_names" } else { "/proc/net/ip6_tables_names" };
    match fs::read_to_string(names) {
        Ok(text) => text.lines().any(|line| line == "nat"),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}
