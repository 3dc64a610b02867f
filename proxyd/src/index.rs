//! What the objects mean for this node, change by change.

mod claims;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use cluster::Change;
use k8s_openapi::jiff::Timestamp;

use crate::model::{EndpointSlice, NamespacedName, Protocol, Read, Service};
use crate::plan::{At, Frontend, Node, Origin, Plan, Way};
use crate::sorted;
use claims::Claims;

/// Something about the objects changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Services.
    Services(Change<Read<Service>>),
    /// Slices of endpoints.
    Slices(Change<Read<EndpointSlice>>),
    /// This node, as it is now.
    Node(Node),
    /// What happened at once: nothing is between these.
    Together(Vec<Event>),
}

/// What changed since the last time.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The services that are otherwise, and those that are gone.
    pub plans: BTreeMap<NamespacedName, Option<Arc<Plan>>>,
    /// Places of UDP and SCTP at which something changed: what leads elsewhere than [`Index::serving`] tells is stale, and
    /// nothing ends it.
    pub datagrams: BTreeSet<At>,
}

/// What has come since the last time, whatever it means.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Arrivals {
    /// Services that are otherwise than before, or gone.
    pub services: usize,
    /// Slices that are.
    pub slices: usize,
    /// When what led to those slices happened, as far as they tell.
    pub triggers: Vec<Timestamp>,
}

/// Ports of services that have endpoints, but none of the node, where the policy says Local; each family counts.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct WithoutLocal {
    /// By `internalTrafficPolicy`.
    pub internal: usize,
    /// By `externalTrafficPolicy`.
    pub external: usize,
}

/// All objects, and what follows from them.
#[derive(Debug, Default)]
pub struct Index {
    node: Node,
    services: HashMap<NamespacedName, Service>,
    slices: HashMap<NamespacedName, EndpointSlice>,
    of_service: HashMap<NamespacedName, sorted::Set<NamespacedName>>,
    plans: HashMap<NamespacedName, Arc<Plan>>,
    claims: Claims,
    changed: BTreeSet<NamespacedName>,
    arrivals: Arrivals,
    without_local: WithoutLocal,
}

impl Index {
    /// Takes in what happened.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Services(change) => {
                for (name, service) in single(change, &self.services) {
                    match service {
                        Some(service) => self.put_service(name, service),
                        None => self.remove_service(name),
                    }
                }
            }
            Event::Slices(change) => {
                for (name, slice) in single(change, &self.slices) {
                    match slice {
                        Some(slice) => self.put_slice(name, slice),
                        None => self.remove_slice(&name),
                    }
                }
            }
            Event::Node(node) if node == self.node => {}
            Event::Node(node) => {
                self.node = node;
                self.changed.extend(self.services.keys().cloned());
            }
            Event::Together(events) => events.into_iter().for_each(|it| self.apply(it)),
        }
    }

    fn put_service(&mut self, name: NamespacedName, service: Service) {
        if self.services.get(&name) != Some(&service) {
            self.arrivals.services += 1;
            self.changed.insert(name.clone());
            self.services.insert(name, service);
        }
    }

    fn remove_service(&mut self, name: NamespacedName) {
        if self.services.remove(&name).is_some() {
            self.arrivals.services += 1;
            self.changed.insert(name);
        }
    }

    fn put_slice(&mut self, name: NamespacedName, slice: EndpointSlice) {
        if self.slices.get(&name) == Some(&slice) {
            return;
        }
        self.arrivals.slices += 1;
        self.arrivals.triggers.extend(slice.triggered);
        // Its label may have named another service before.
        self.take_out(&name);
        let service = service_of(&slice);
        self.of_service.entry(service.clone()).or_default().insert(name.clone());
        self.slices.insert(name, slice);
        self.changed.insert(service);
    }

    fn remove_slice(&mut self, name: &NamespacedName) {
        self.arrivals.slices += usize::from(self.take_out(name));
    }

    /// Whether there was such a slice.
    fn take_out(&mut self, name: &NamespacedName) -> bool {
        let Some(slice) = self.slices.remove(name) else { return false };
        let service = service_of(&slice);
        if let Some(slices) = self.of_service.get_mut(&service) {
            slices.remove(name);
            if slices.is_empty() {
                self.of_service.remove(&service);
            }
        }
        self.changed.insert(service);
        true
    }

    /// The plan for a service as it is now, for all that it claims.
    fn plan(&self, name: &NamespacedName) -> Option<Plan> {
        let service = self.services.get(name)?;
        Some(Plan::of(service, self.slices_of(name), &self.node))
    }

    /// What changed since this was asked last. Where services claim the same place, one has it.
    pub fn take_changes(&mut self) -> Changes {
        let (mut changed, mut datagrams) = (BTreeSet::new(), BTreeSet::new());
        for name in std::mem::take(&mut self.changed) {
            let plan = self.plan(&name);
            let known = self.plans.get(&name).map(AsRef::as_ref);
            if known == plan.as_ref() {
                continue;
            }
            self.without_local.change(known, plan.as_ref());
            let created = self.services.get(&name).map_or(0, |it| it.created);
            let before = known.map(|it| &it.frontends);
            let now = plan.as_ref().map(|it| &it.frontends);
            // Those that lose a place, or get one that this one no longer wants.
            changed.extend(self.claims.change(&name, created, before, now));
            datagrams.extend(datagrams_of(before));
            datagrams.extend(datagrams_of(now));
            match plan {
                Some(plan) => _ = self.plans.insert(name.clone(), Arc::new(plan)),
                None => _ = self.plans.remove(&name),
            }
            changed.insert(name);
        }
        let plans: BTreeMap<_, _> =
            changed.into_iter().map(|it| (it.clone(), self.own(&it))).collect();
        Changes { plans, datagrams }
    }

    /// What has come since [`Self::take_arrivals`].
    #[must_use]
    pub const fn arrivals(&self) -> &Arrivals {
        &self.arrivals
    }

    /// What has come since this was asked last.
    pub fn take_arrivals(&mut self) -> Arrivals {
        std::mem::take(&mut self.arrivals)
    }

    /// Of how many ports the node has no endpoint where it should be one of its own.
    #[must_use]
    pub const fn without_local(&self) -> WithoutLocal {
        self.without_local
    }

    /// The plans of all services, without what [`Self::take_changes`] has not told yet.
    #[must_use]
    pub fn plans(&self) -> BTreeMap<NamespacedName, Arc<Plan>> {
        self.plans.keys().filter_map(|it| Some((it.clone(), self.own(it)?))).collect()
    }

    /// A service's plan for those places that it has.
    fn own(&self, name: &NamespacedName) -> Option<Arc<Plan>> {
        let plan = self.plans.get(name)?;
        let has = |at: &At| self.claims.owner(at) == Some(name);
        if plan.frontends.keys().all(has) {
            return Some(Arc::clone(plan));
        }
        let mut plan = Plan::clone(plan);
        plan.frontends.retain(|at, _| has(at));
        Some(Arc::new(plan))
    }

    /// Where flows to these places may lead; nowhere, where nobody has a place.
    #[must_use]
    pub fn serving(
        &self,
        places: impl IntoIterator<Item = At>,
    ) -> BTreeMap<At, BTreeSet<SocketAddr>> {
        let leads_to = |at: &At| {
            let owner = self.claims.owner(at).and_then(|it| self.plans.get(it));
            owner.map(|it| it.serving(at)).unwrap_or_default()
        };
        places.into_iter().map(|at| (at, leads_to(&at))).collect()
    }

    /// Where every place of UDP and SCTP may lead, of all services.
    #[must_use]
    pub fn datagrams(&self) -> BTreeMap<At, BTreeSet<SocketAddr>> {
        let mut all = BTreeMap::new();
        for (name, plan) in &self.plans {
            let places = datagrams_of(Some(&plan.frontends));
            let own = places.filter(|it| self.claims.owner(it) == Some(name));
            all.extend(own.map(|at| (at, plan.serving(&at))));
        }
        all
    }

    /// This node.
    #[must_use]
    pub const fn node(&self) -> &Node {
        &self.node
    }

    /// A service.
    #[must_use]
    pub fn service(&self, name: &NamespacedName) -> Option<&Service> {
        self.services.get(name)
    }

    /// All services, in any order.
    pub fn all_services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// The slices of a service, also of one that is not served.
    pub fn slices_of(&self, name: &NamespacedName) -> impl Iterator<Item = &EndpointSlice> + Clone {
        let slices = self.of_service.get(name).into_iter().flatten();
        slices.filter_map(|it| self.slices.get(it))
    }

    /// All slices, in any order.
    pub fn all_slices(&self) -> impl Iterator<Item = &EndpointSlice> {
        self.slices.values()
    }

    /// The services that want a place, with what they want there. The first has it.
    pub fn claimants(&self, at: &At) -> impl Iterator<Item = (&NamespacedName, &Frontend)> {
        self.claims
            .all(at)
            .filter_map(|name| Some((name, self.plans.get(name)?.frontends.get(at)?)))
    }

    /// The plan for a service, for all that it claims, as of the last [`Self::take_changes`].
    #[must_use]
    pub fn claimed_plan(&self, name: &NamespacedName) -> Option<&Plan> {
        self.plans.get(name).map(AsRef::as_ref)
    }

    /// How many services there are.
    #[must_use]
    pub fn services(&self) -> usize {
        self.services.len()
    }
}

impl WithoutLocal {
    fn of(plan: Option<&Plan>) -> Self {
        let frontends = plan.into_iter().flat_map(|it| &it.frontends);
        let (mut internal, mut external) = (BTreeSet::new(), BTreeSet::new());
        for (at, frontend) in frontends {
            let port = (at.address.is_ipv4(), at.protocol, frontend.port);
            match (frontend.origin, frontend.way) {
                (Origin::ClusterIp, Way::Drop) => _ = internal.insert(port),
                (_, Way::Divided { has_local: false, .. }) => _ = external.insert(port),
                _ => {}
            }
        }
        Self { internal: internal.len(), external: external.len() }
    }

    /// A plan takes the place of another.
    fn change(&mut self, before: Option<&Plan>, now: Option<&Plan>) {
        let [before, now] = [before, now].map(Self::of);
        self.internal = self.internal + now.internal - before.internal;
        self.external = self.external + now.external - before.external;
    }
}

/// A change as objects that are there, and names of those that are not, `known` being there before.
fn single<T>(
    change: Change<Read<T>>,
    known: &HashMap<NamespacedName, T>,
) -> Vec<(NamespacedName, Option<T>)> {
    match change {
        Change::Applied(Read { name, object }) => vec![(name, object.ok())],
        Change::Removed(Read { name, .. }) => vec![(name, None)],
        Change::Listed(all) => {
            let there: BTreeSet<_> = all.iter().map(|it| &it.name).collect();
            let gone = known.keys().filter(|it| !there.contains(it));
            let mut single: Vec<_> = gone.map(|it| (it.clone(), None)).collect();
            single.extend(all.into_iter().map(|Read { name, object }| (name, object.ok())));
            single
        }
    }
}

fn service_of(slice: &EndpointSlice) -> NamespacedName {
    NamespacedName { namespace: slice.name.namespace.clone(), name: slice.service.clone() }
}

/// Places of UDP and SCTP.
fn datagrams_of(frontends: Option<&sorted::Map<At, Frontend>>) -> impl Iterator<Item = At> + '_ {
    let places = frontends.into_iter().flat_map(sorted::Map::keys);
    places.filter(|it| it.protocol != Protocol::Tcp).copied()
}
