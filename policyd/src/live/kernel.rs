//! What the kernel holds.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use netlink::nftables::{Client, Held};
use netlink::{BridgeFiltering, Socket};
use runner::Runner;

use super::Needed;
use super::iptables::Printed;
use crate::dataplane::flows::own_addresses;
use crate::dataplane::{self, Error, Kind, Programs};
use crate::iptables::{Family, Hook};
use crate::nftables::Layer;
use crate::{closed, frames, ingress};

/// The rules and sets of ours that the kernel holds.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Families that it knows.
    pub(super) families: Vec<Family>,
    pub(super) rules: Rules,
    /// The table that keeps all but IP and ARP from ports of bridges.
    pub(super) frames: Held,
    /// The bridges whose frames are not shown to what judges packets.
    pub(super) unseen_bridges: BTreeSet<String>,
    /// The table that keeps others' addresses from coming by interfaces.
    pub(super) sources: Option<ingress::Held>,
    /// The names of the node's links.
    pub(super) links: BTreeSet<String>,
    /// The interfaces that the CNI plugin closed.
    pub(super) closed: BTreeSet<String>,
    /// The node's own addresses.
    pub(super) own_addresses: HashSet<IpAddr>,
}

/// What policies are enforced by.
#[derive(Debug, Clone)]
pub(super) enum Rules {
    Iptables(Printed),
    Nftables(BTreeMap<Layer, dataplane::Held>),
}

impl Kernel {
    /// Reads what the kernel holds by these programs, by which it is told: of these families, and what these hooks
    /// lead to. Nothing is changed and no lock is taken.
    ///
    /// # Errors
    /// [`Error`] when a program fails, as without the rights of root.
    pub fn printed<R: Runner>(
        programs: &mut Programs<R>,
        families: &[Family],
        hooks: &[Hook],
    ) -> Result<Self, Error> {
        Self::around(Rules::Iptables(Printed::read(programs, families, hooks)?), families)
    }

    /// The same where it is told by netlink to nf_tables: the rules of the tables that are needed, and the elements
    /// of the sets that are. No program is run.
    ///
    /// # Errors
    /// [`Error`] when the kernel cannot be asked, as without the rights of root.
    pub fn tables(families: &[Family], needed: &Needed) -> Result<Self, Error> {
        let mut tables = BTreeMap::new();
        // A kernel without nf_tables holds none.
        if let Some(mut client) = Client::open()? {
            for (layer, sets) in &needed.0 {
                let is_needed = |set: &str| sets.contains(set);
                let held = dataplane::Held::read(&mut client, layer.table(), is_needed)?;
                tables.insert(*layer, held);
            }
        }
        Self::around(Rules::Nftables(tables), families)
    }

    fn around(rules: Rules, families: &[Family]) -> Result<Self, Error> {
        // The chain of a link may go with it: it is looked for ahead of the link.
        let sources = ingress::held()?;
        let links = Socket::open()?.links()?;
        let bridges = links.iter().filter(|it| it.kind == "bridge");
        let unseen_bridges = bridges
            .filter(|it| it.filtering != Some(BridgeFiltering::BOTH))
            .map(|it| it.name.clone())
            .collect();
        Ok(Self {
            families: families.to_vec(),
            rules,
            frames: frames::held()?,
            unseen_bridges,
            sources,
            links: links.into_iter().map(|it| it.name).collect(),
            closed: closed::held()?,
            own_addresses: own_addresses()?,
        })
    }

    /// By which way it is told.
    pub(super) const fn kind(&self) -> Kind {
        match self.rules {
            Rules::Iptables(_) => Kind::Iptables,
            Rules::Nftables(_) => Kind::Nftables,
        }
    }
}
