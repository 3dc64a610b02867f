//! By which way the kernel is told.

use std::{fmt, fs};

use netlink::nftables::Client;
use ruleset::nft::Table;

use super::Error;
use crate::iptables::{CHAIN_PREFIX, Family, SET_PREFIX};
use crate::nftables::Layer;

/// By which of the two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The programs iptables and ipset.
    Iptables,
    /// Netlink to nf_tables.
    Nftables,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Iptables, Self::Nftables];

    /// That by which the node holds policyd's rules already; else nf_tables, where the kernel has it.
    ///
    /// # Errors
    /// [`Error`] when the kernel cannot be asked.
    pub fn of_node() -> Result<Self, Error> {
        let or_else = || Ok(if nf_tables()?.is_some() { Self::Nftables } else { Self::Iptables });
        Self::held()?.map_or_else(or_else, Ok)
    }

    /// That by which the node holds policyd's rules; `None`: it holds none.
    ///
    /// # Errors
    /// [`Error`] when the kernel cannot be asked.
    pub fn held() -> Result<Option<Self>, Error> {
        if let Some(mut client) = nf_tables()?
            && has_table(&mut client)?
        {
            return Ok(Some(Self::Nftables));
        }
        Ok(are_ours_in_iptables()?.then_some(Self::Iptables))
    }
}

/// `None` where the kernel has no nf_tables, or none that can be asked.
fn nf_tables() -> Result<Option<Client>, Error> {
    let Some(mut client) = Client::open()? else { return Ok(None) };
    Ok(client.generation()?.is_some().then_some(client))
}

/// Whether a table of that way is there: who goes over from iptables has both for a moment.
pub(super) fn has_table(client: &mut Client) -> Result<bool, Error> {
    for layer in Layer::ALL {
        if client.has_table(layer.table())? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What a kernel without nf_tables answers (`nfnetlink_rcv_msg`).
fn is_missing(error: &netlink::Error) -> bool {
    use nix::errno::Errno::{EINVAL, EOPNOTSUPP};
    matches!(error.errno(), Some(EINVAL | EOPNOTSUPP))
}

/// Whether chains or sets of ours are there by which iptables' programs tell the kernel. No program is run: those
/// of the older tables are known by the sets that their rules look into.
pub(super) fn are_ours_in_iptables() -> Result<bool, Error> {
    let has_set = has_sets()?;
    let Some(mut client) = Client::open()? else { return Ok(has_set || has_old_tables()) };
    let mut has_chain = false;
    for family in Family::ALL.map(Family::of_nf_tables) {
        for name in ["mangle", "raw"] {
            let chains = client.chains(Table { family, name })?.unwrap_or_default();
            has_chain |= chains.iter().any(|it| it.starts_with(CHAIN_PREFIX));
        }
    }
    Ok(has_set || has_chain)
}

/// Whether there are ipsets of ours: none where the kernel has no ipset.
pub(super) fn has_sets() -> Result<bool, Error> {
    let mut sets = netlink::ipset::Client::open()?;
    let sets = sets.as_mut().map(netlink::ipset::Client::sets).transpose();
    match sets {
        Err(error) if is_missing(&error) => Ok(false),
        sets => Ok(sets?.unwrap_or_default().iter().any(|it| it.name.starts_with(SET_PREFIX))),
    }
}

/// Where there is no nf_tables, old tables are all that there can be.
fn has_old_tables() -> bool {
    let tables = fs::read_to_string("/proc/thread-self/net/ip_tables_names");
    tables.is_ok_and(|it| it.lines().any(|it| it == "mangle"))
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Iptables => "iptables and ipset",
            Self::Nftables => "nf_tables",
        })
    }
}
