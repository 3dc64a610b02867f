//! By netlink to nf_tables, in three transactions of both tables, of which most changes need one: sets grow; rules
//! change; sets shrink, and what nothing leads to any more goes. So nobody loses what he is allowed before and
//! after: a packet meets the rules of one side of a transaction, but what it looks for in a set may be of the
//! other. An address that changes hands is closed ahead of all, as flows of its former owner are forgotten before
//! the gate opens.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use ipnetwork::IpNetwork;
use netlink::nftables::{Change, Client, HeldChain};

use super::kind::has_table;
use super::written::Written;
use super::{Counts, Difference, Endpoints, Error, Owners, READ_LASTS, Ran};
use crate::iptables::{Family, Settings};
use crate::nftables::{Elements, Families, Layer, families};
use crate::plan::{Changes, Plan};

mod content;
pub(crate) mod held;
mod table;
#[cfg(test)]
mod tests;
mod transaction;

use super::owners::Coming;
use content::Content;
use held::{Held, addresses, take_out};
use table::Table;
use transaction::{Transaction, commit};

/// The rules and sets of this node.
#[derive(Debug)]
pub(super) struct Nftables {
    /// Kept open: closing it would wait until the kernel has freed what was deleted.
    client: Option<Client>,
    all_families: Vec<Family>,
    settings: Settings,
    written: Written,
    /// The families that endpoints have had addresses of since all was last written.
    families: Families,
    /// That of packets, and where an endpoint is a port of a bridge that of frames.
    tables: BTreeMap<Layer, Table>,
    /// What the kernel was found to hold, and when.
    held: Option<(Instant, BTreeMap<Layer, Held>)>,
    owners: Owners,
}

impl Nftables {
    pub(super) fn new(families: &[Family], settings: Settings) -> Self {
        Self {
            client: None,
            all_families: families.to_vec(),
            settings,
            written: Written::default(),
            families: Families::new(),
            tables: BTreeMap::new(),
            held: None,
            owners: Owners::default(),
        }
    }

    pub(super) const fn owners(&self) -> &Owners {
        &self.owners
    }

    pub(super) const fn endpoints(&self) -> &Endpoints {
        &self.written.endpoints
    }

    pub(super) fn take_cut(&mut self) -> usize {
        self.owners.take_cut()
    }

    pub(super) fn set_gated(&mut self, gated: Vec<IpNetwork>) {
        self.settings.gated = gated;
    }

    /// The port by which others are told that a change came from here. No program runs.
    pub(super) fn take_ran(&self) -> Ran {
        let port = self.client.as_ref().and_then(|it| it.port().ok());
        Ran { process_ids: port.into_iter().collect(), ..Ran::default() }
    }

    pub(super) fn table_names(&self) -> Vec<&'static str> {
        Layer::ALL.map(|it| it.table().name).into()
    }

    pub(super) fn counts(&self) -> Counts {
        self.tables.values().map(Table::counts).fold(Counts::default(), |sum, it| Counts {
            chains: sum.chains + it.chains,
            rules: sum.rules + it.rules,
            sets: sum.sets + it.sets,
            members: sum.members + it.members,
        })
    }

    pub(super) fn read(&mut self) -> Result<(), Error> {
        let client = open(&mut self.client)?;
        let held = Layer::ALL.map(|it| Ok((it, Held::read(client, it.table(), |_| true)?)));
        self.held = Some((Instant::now(), held.into_iter().collect::<Result<_, Error>>()?));
        Ok(())
    }

    pub(super) fn assume_nothing(&mut self) {
        self.held = Some((Instant::now(), BTreeMap::new()));
    }

    /// A family or a table that nothing needed so far has none of the sets whose members are known from before;
    /// and one that nothing needs any more goes with all that is for it.
    pub(super) fn needs_adoption(&self, changes: &Changes) -> bool {
        let staying = self.written.endpoints.iter();
        let staying = staying.filter(|it| !changes.endpoints.contains_key(it.0)).map(|it| it.1);
        let now = || staying.clone().chain(changes.endpoints.values().flatten());
        !changes.endpoints.is_empty()
            && (families(&self.all_families, now()) != self.families
                || now().any(|it| it.port().is_some()) != self.tables.contains_key(&Layer::Bridged))
    }

    pub(super) fn adopt(&mut self, plan: &Plan) -> Result<(), Error> {
        if self.held.as_ref().is_none_or(|(read, _)| read.elapsed() > READ_LASTS) {
            self.read()?;
        }
        let mut held = self.held.take().map(|(_, held)| held).unwrap_or_default();
        self.written = Written::new(plan);
        self.owners.lose_track();
        self.families = families(&self.all_families, plan.endpoints.values());
        let routed = held.entry(Layer::Routed).or_default();
        // Without it what runs on the node was open, and goes on until it was looked at.
        let had_gate = routed.is_awake;
        let knows_gate = !addresses(&routed.elements).is_empty();
        let place = (&self.owners, &self.written.endpoints, &self.settings);
        let coming = close(&mut self.client, place, &mut routed.elements, knows_gate)?;
        let mut transactions = Vec::new();
        self.tables.clear();
        let has_ports = plan.endpoints.values().any(|it| it.port().is_some());
        for layer in Layer::ALL {
            let held = held.remove(&layer).unwrap_or_default();
            if layer == Layer::Bridged && !has_ports {
                transactions.extend(held.exists.then(|| Transaction::removing(layer.table())));
                continue;
            }
            let mut table = Table::new(layer);
            transactions.push(table.adopt(held, plan, &self.families, &self.settings));
            self.tables.insert(layer, table);
        }
        if had_gate {
            self.end_left_over(&coming)?;
        }
        self.commit(transactions)?;
        self.owners.note(&self.written.endpoints, &self.settings);
        Ok(())
    }

    pub(super) fn apply(&mut self, changes: &Changes) -> Result<(), Error> {
        if changes.touch_rules() {
            self.written.change(changes);
        }
        // Most changes are of other nodes' pods, and let no address of this one pass.
        let has_endpoints = !changes.endpoints.is_empty();
        let Self { client, tables, written, families, settings, owners, .. } = self;
        let coming = match tables.get_mut(&Layer::Routed) {
            Some(table) if has_endpoints => {
                let place = (&*owners, &written.endpoints, &*settings);
                Some(close(client, place, &mut table.dispatch, true)?)
            }
            _ => None,
        };
        let tables = tables.values_mut();
        let transactions =
            tables.map(|it| it.apply(written, changes, families, settings)).collect();
        if let Some(coming) = &coming {
            self.end_left_over(coming)?;
        }
        self.commit(transactions)?;
        if has_endpoints {
            self.owners.note(&self.written.endpoints, &self.settings);
        }
        Ok(())
    }

    fn end_left_over(&mut self, coming: &Coming) -> Result<(), Error> {
        self.owners.end_left_over(coming, &self.written.endpoints, &self.settings)
    }

    /// Those of tables that stay come first.
    fn commit(&mut self, transactions: Vec<Transaction>) -> Result<(), Error> {
        let left = commit(open(&mut self.client)?, transactions)?;
        self.tables.values_mut().zip(left).for_each(|(table, left)| table.keep(left));
        Ok(())
    }

    /// Where the kernel is otherwise than it was left.
    pub(super) fn differences(&mut self) -> Result<Vec<Difference>, Error> {
        let client = open(&mut self.client)?;
        let mut differences = Vec::new();
        for layer in Layer::ALL {
            let held = Held::read(client, layer.table(), |_| true)?;
            match self.tables.get(&layer) {
                Some(table) => compare(table, &held, &mut differences),
                None if held.exists => {
                    let table = layer.table().to_string();
                    differences.push(Difference::Chain(table, "of nobody".to_owned()));
                }
                None => {}
            }
        }
        Ok(differences)
    }

    /// Whether the kernel has a table of ours; a kernel without nf_tables has none.
    pub(super) fn is_there(&mut self) -> Result<bool, Error> {
        let Some(mut client) = Client::open()? else { return Ok(false) };
        has_table(&mut client)
    }

    /// Removes everything of ours.
    pub(super) fn clean_up(&mut self) -> Result<(), Error> {
        // What the kernel cannot hold it does not.
        let Some(mut client) = Client::open()? else { return Ok(()) };
        for layer in Layer::ALL {
            let table = layer.table();
            let chains = client.table(table)?.into_iter().flat_map(|it| it.chains);
            let called: Vec<_> = chains.filter(HeldChain::is_called).map(|it| it.name).collect();
            // A packet on its way through the rules would find what they look into gone, and the gate drop it.
            let emptied: Vec<_> = called.iter().map(|it| Change::Empty(it)).collect();
            client.change(table, &emptied)?;
            client.remove(table)?;
        }
        self.tables.clear();
        Ok(())
    }
}

/// Closes the gate for addresses that change hands; those that it is about to let pass.
fn close(
    client: &mut Option<Client>,
    (owners, endpoints, settings): (&Owners, &Endpoints, &Settings),
    elements: &mut Elements,
    knows_gate: bool,
) -> Result<Coming, Error> {
    let held = addresses(elements);
    let moved = owners.moved(endpoints, settings);
    let taken = take_out(elements, &moved);
    if !taken.is_empty() {
        let changes: Vec<_> =
            taken.iter().map(|(set, gone)| Change::DeleteElements(set, gone)).collect();
        open(client)?.change(Layer::Routed.table(), &changes)?;
    }
    let all = endpoints.values().flat_map(|it| it.addresses.iter().copied());
    let let_pass = all.filter(|it| !held.contains(it) || moved.contains(it)).collect();
    Ok(owners.coming(let_pass, &moved, knows_gate, settings))
}

fn compare(table: &Table, held: &Held, differences: &mut Vec<Difference>) {
    let place = table.layer.table().to_string();
    let all: BTreeSet<_> = table.chains.keys().chain(held.chains.keys()).collect();
    let is_called = |name: &String| {
        let mut base = table.base.iter();
        base.find(|it| it.name == *name).is_none_or(|it| held.takes_chain(it))
    };
    let chains = all
        .into_iter()
        .filter(|it| table.chains.get(*it) != held.chains.get(*it) || !is_called(it))
        .map(|it| Difference::Chain(place.clone(), it.clone()));
    differences.extend(chains);
    let sets: BTreeSet<_> =
        table.dispatch.keys().chain(table.sets.keys()).chain(held.elements.keys()).collect();
    for set in sets {
        let now = held.elements.get(set);
        let is_same = match table.sets.get(set) {
            Some(content) => now.map(Content::of) == Some(*content),
            None => table.dispatch.get(set) == now,
        };
        if !is_same {
            differences.push(Difference::Set(format!("{set} ({place})")));
        }
    }
}

fn open(client: &mut Option<Client>) -> Result<&mut Client, Error> {
    match client {
        Some(client) => Ok(client),
        None => Ok(client.insert(Client::open()?.ok_or(Error::NoNftables)?)),
    }
}
