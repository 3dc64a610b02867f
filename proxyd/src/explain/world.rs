//! What the question is about.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use cluster::Change;
use ipnetwork::IpNetwork;
use tokio::sync::mpsc::Receiver;

use super::ServiceReport;
use super::reasons::{kind, port_words, settings_of};
use crate::index::{Event, Index};
use crate::model::{LeftAlone, NamespacedName, Read, Service};
use crate::nftables::{Content, Local, Render, Settings};
use crate::plan::{At, Frontend, Node, Plan, PoolId, Scope};
use crate::sorted;
use crate::walk::{Client, Outcome, walk};

/// All objects, as a node sees them.
#[derive(Debug)]
pub struct World {
    index: Index,
    left_alone: BTreeMap<NamespacedName, LeftAlone>,
    settings: Settings,
    own: BTreeSet<IpAddr>,
}

/// What a source has told.
#[derive(Debug, Default)]
struct Told {
    services: bool,
    slices: bool,
    node: bool,
}

impl World {
    /// Waits until a source has told of all objects and of the node, which `node` gives the addresses that have node
    /// ports. `None`: the source has ended before.
    pub async fn gather(
        events: &mut Receiver<Event>,
        settings: Settings,
        node: impl Fn(Node) -> Node,
    ) -> Option<Self> {
        let (index, left_alone) = (Index::default(), BTreeMap::new());
        let mut world = Self { index, left_alone, settings, own: BTreeSet::new() };
        let mut told = Told::default();
        while !(told.services && told.slices && told.node) {
            world.hear(events.recv().await?, &node, &mut told);
        }
        world.index.take_changes();
        Some(world)
    }

    fn hear(&mut self, event: Event, node: &impl Fn(Node) -> Node, told: &mut Told) {
        match event {
            Event::Together(events) => events.into_iter().for_each(|it| self.hear(it, node, told)),
            Event::Node(it) => {
                told.node = true;
                if let Some(ranges) = &it.pod_ranges {
                    self.settings.local = Local::Ranges(ranges.clone());
                }
                self.own.extend(&it.addresses);
                let it = node(it);
                self.own.extend(&it.addresses);
                self.take(Event::Node(it));
            }
            event => {
                told.services |= matches!(event, Event::Services(Change::Listed(_)));
                told.slices |= matches!(event, Event::Slices(Change::Listed(_)));
                self.take(event);
            }
        }
    }

    fn take(&mut self, event: Event) {
        if let Event::Services(change) = &event {
            match change {
                Change::Listed(all) => {
                    self.left_alone.clear();
                    all.iter().for_each(|it| self.see(it));
                }
                Change::Applied(it) => self.see(it),
                Change::Removed(it) => _ = self.left_alone.remove(&it.name),
            }
        }
        self.index.apply(event);
    }

    fn see(&mut self, read: &Read<Service>) {
        match &read.object {
            Ok(_) => _ = self.left_alone.remove(&read.name),
            Err(why) => _ = self.left_alone.insert(read.name.clone(), why.clone()),
        }
    }

    /// The node has these addresses as well.
    pub fn know_own(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.own.extend(addresses);
    }

    /// The name of the node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.index.node().name
    }

    pub(super) const fn index(&self) -> &Index {
        &self.index
    }

    /// What the rules depend on.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) const fn left_alone(&self) -> &BTreeMap<NamespacedName, LeftAlone> {
        &self.left_alone
    }

    /// The addresses of the node, as far as they are known.
    pub(super) const fn own(&self) -> &BTreeSet<IpAddr> {
        &self.own
    }

    /// What of the plans is about a place.
    pub(crate) fn part(&self, at: &At) -> Part<'_> {
        let has = |it: &&Service| it.cluster_ips.contains(&at.address);
        let owner = self.index.claimants(at).next().map(|(name, _)| name);
        let of_address = || self.index.all_services().filter(has).map(|it| &it.name).min();
        let service = owner.or_else(of_address);
        let plan = service.and_then(|it| self.index.claimed_plan(it));
        let mut plan = plan.cloned().unwrap_or_default();
        // Another may have the place.
        plan.frontends.retain(|it, _| it == at && owner.is_some());
        plan.cluster_ips.retain(|it| *it == at.address);
        let frontends = plan.frontends.clone();
        plan.pools.retain(|id, _| {
            let leads = |scope| {
                let is_one =
                    |it: &Frontend| it.way.leads_to(scope) && *id == PoolId::of(at, it, scope);
                frontends.values().any(is_one)
            };
            leads(Scope::Cluster) || leads(Scope::Local)
        });
        let endpoints: BTreeSet<_> = plan.pools.values().flatten().map(SocketAddr::ip).collect();
        plan.local_addresses.retain(|it| endpoints.contains(it));
        Part { service, plan }
    }

    /// What becomes of a connection, by what a table has of the place.
    pub(crate) fn follow(&self, content: &Content, at: &At, client: &Client) -> Outcome {
        match walk(content, at, client) {
            Outcome::NotServed if self.is_nobodys(at.address) => Outcome::Dropped,
            outcome => outcome,
        }
    }

    /// Whether an address is one that only Services may have, and none has.
    fn is_nobodys(&self, address: IpAddr) -> bool {
        let is_left_alone = self.left_alone_at(address).next().is_some();
        self.range_of(address).is_some() && !is_left_alone && !self.own.contains(&address)
    }

    /// The range of Services' addresses that it is of.
    pub(super) fn range_of(&self, address: IpAddr) -> Option<&IpNetwork> {
        self.settings.service_ranges.iter().find(|it| it.contains(address))
    }
}

/// What of the plans is about a place.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    /// The Service that has it, or else the one whose address of the cluster it is.
    pub(crate) service: Option<&'a NamespacedName>,
    /// What of its plan is about it.
    pub(crate) plan: Plan,
}

impl Part<'_> {
    /// What happens there; `None`: the Service has no such port.
    pub(super) fn frontend(&self, at: &At) -> Option<&Frontend> {
        self.plan.frontends.get(at)
    }

    /// What that is in a table, with whatever numbers.
    pub(super) fn content(&self, settings: &Settings, at: &At) -> Content {
        let numbers = self.plan.pools.keys().copied().zip(0..).collect();
        self.numbered(settings, at, &numbers, |_| Vec::new())
    }

    /// What that is in a table, with these numbers, and endpoints in such places.
    pub(crate) fn numbered(
        &self,
        settings: &Settings,
        at: &At,
        numbers: &sorted::Map<PoolId, u32>,
        slots: impl Fn(u32) -> Vec<SocketAddr>,
    ) -> Content {
        let is_ipv4 = at.address.is_ipv4();
        Render { settings, is_ipv4, numbers }.content(&self.plan, slots)
    }

    pub(super) fn report(&self, world: &World, at: &At) -> Option<ServiceReport> {
        let service = world.index.service(self.service?)?;
        let frontend = self.frontend(at);
        Some(ServiceReport {
            service: service.name.to_string(),
            port: frontend.map(|it| port_words(service, at.protocol, it.port)),
            kind: kind(at, frontend),
            settings: frontend
                .map(|it| settings_of(service, it, world.settings().scheduler))
                .unwrap_or_default(),
        })
    }
}
