//! What the objects mean for this node, kept up to date change by change.
//!
//! An event costs what it touches: the sets that select the pod, the policies of its namespace, the
//! pods of this node that a policy selects. Nothing is tracked for policies that select no pod of
//! this node. [`Index::take_changes`] tells what became of the plan since it was last asked;
//! [`Index::plan`] tells the whole.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use crate::attachment::Attachment;
use crate::model::{Direction, Namespace, NamespacedName, Pod, Policy};
use crate::plan::{
    self, ChainKey, Changes, Endpoint, HostInterface, Lookup, Member, Plan, PolicyChain, SetKey,
};
use crate::source::{Change, Event};

mod endpoints;
mod pods;
mod sets;

use endpoints::Endpoints;
use pods::Pods;
use sets::Sets;

/// The objects, and what they mean for one node.
#[derive(Debug)]
pub struct Index {
    node: String,
    pods: Pods,
    policies: HashMap<String, Policy>,
    policies_by_namespace: HashMap<String, BTreeSet<String>>,
    endpoints: Endpoints,
    chains: BTreeMap<ChainKey, Chain>,
    sets: Sets,
    dirty_policies: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Chain {
    /// How many endpoints lead to it.
    users: usize,
    /// Whether [`Index::take_changes`] has told of it.
    is_told: bool,
    content: PolicyChain,
}

impl Index {
    /// The index of the node of that name, without objects.
    #[must_use]
    pub fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            pods: Pods::default(),
            policies: HashMap::new(),
            policies_by_namespace: HashMap::new(),
            endpoints: Endpoints::default(),
            chains: BTreeMap::new(),
            sets: Sets::default(),
            dirty_policies: BTreeSet::new(),
        }
    }

    /// The same; `of_cluster`: the source tells of every pod sooner or later, as an API server does.
    /// A container that names a pod which is not known has no rules then until it is.
    #[must_use]
    pub fn of(node: &str, of_cluster: bool) -> Self {
        let mut index = Self::new(node);
        index.pods.are_all_told = of_cluster;
        index
    }

    /// The name of its node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Takes in what a source tells.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Pods(Change::Applied(pod)) => self.put_pod(pod),
            Event::Pods(Change::Removed(pod)) => self.remove_pod(&pod.uid),
            Event::Pods(Change::Listed(pods)) => {
                let listed: BTreeSet<_> = pods.iter().map(|pod| pod.uid.clone()).collect();
                for uid in self.pods.uids().filter(|uid| !listed.contains(uid)).collect::<Vec<_>>()
                {
                    self.remove_pod(&uid);
                }
                pods.into_iter().for_each(|pod| self.put_pod(pod));
            }
            Event::Namespaces(Change::Applied(namespace)) => self.put_namespace(namespace),
            Event::Namespaces(Change::Removed(namespace)) => self.remove_namespace(&namespace),
            Event::Namespaces(Change::Listed(namespaces)) => {
                let listed: BTreeSet<_> = namespaces.iter().map(|it| it.uid.clone()).collect();
                let gone = self.pods.namespaces().filter(|it| !listed.contains(&it.uid));
                for namespace in gone.cloned().collect::<Vec<_>>() {
                    self.remove_namespace(&namespace);
                }
                namespaces.into_iter().for_each(|it| self.put_namespace(it));
            }
            Event::Policies(Change::Applied(policy)) => self.put_policy(policy),
            Event::Policies(Change::Removed(policy)) => self.remove_policy(&policy.uid),
            Event::Policies(Change::Listed(policies)) => {
                let listed: BTreeSet<_> = policies.iter().map(|it| it.uid.clone()).collect();
                let gone = self.policies.keys().filter(|uid| !listed.contains(*uid));
                for uid in gone.cloned().collect::<Vec<_>>() {
                    self.remove_policy(&uid);
                }
                policies.into_iter().for_each(|policy| self.put_policy(policy));
            }
            // What the watch has told counts, and what it will tell.
            Event::Answer(pod) => {
                if self.pods.get(&pod.uid).is_none() {
                    self.put_pod(pod);
                }
            }
            // The node's ranges are the gate's, not a policy's.
            Event::Node(_) => {}
        }
    }

    /// Takes in that a container of this node has a network, or has it in another way.
    pub fn attach(&mut self, attachment: Attachment) {
        self.detach(&attachment.container_id.clone());
        self.pods.attach(attachment);
        self.rebind();
    }

    /// Takes in that a container of this node has no network any more.
    pub fn detach(&mut self, container_id: &str) {
        let pod = self.pods.binding(container_id).cloned();
        self.around(pod.as_deref(), |pods| pods.detach(container_id));
    }

    /// A minute has passed: what nobody told of for long is forgotten.
    pub fn grow_old(&mut self) {
        self.pods.grow_old();
    }

    /// The addresses that attachments tell of the pods that they are for, by uid.
    pub fn told_addresses(&self) -> impl Iterator<Item = (&str, &BTreeSet<IpAddr>)> {
        self.pods.told_addresses()
    }

    /// The addresses of endpoints of whose interface no attachment tells, and the interfaces that
    /// attachments do tell of.
    #[must_use]
    pub fn interfaces(&self) -> (BTreeSet<IpAddr>, BTreeSet<String>) {
        let told = self.pods.told_interfaces();
        let endpoints = self.endpoints.planned().values();
        let is_told =
            |it: &Endpoint| it.interface.as_ref().is_some_and(|it| told.contains(&it.name));
        let sought =
            endpoints.filter(|it| !is_told(it)).flat_map(|it| it.addresses.iter().copied());
        (sought.collect(), told)
    }

    /// Takes in behind which interfaces these addresses are, and that of no other that is known.
    /// What an attachment tells counts more.
    pub fn find(&mut self, found: &BTreeMap<IpAddr, HostInterface>) {
        for uid in self.endpoints.find(found) {
            self.endpoints.refresh_pod(&self.node, &self.pods, &uid);
        }
    }

    /// What became of the plan since this was last asked.
    pub fn take_changes(&mut self) -> Changes {
        let mut changes = Changes::default();
        self.settle_endpoints(&mut changes);
        self.settle_chains(&mut changes);
        changes.sets = self.sets.take_changes();
        changes
    }

    /// The whole plan. What [`Self::take_changes`] has not told yet is not in it.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let chains = self.chains.iter().map(|(key, it)| (key.clone(), it.content.clone()));
        Plan {
            endpoints: self.endpoints.planned().clone(),
            chains: chains.collect(),
            sets: self.sets.all(),
        }
    }

    /// The endpoints as they are planned.
    pub fn endpoints(&self) -> impl Iterator<Item = (&String, &Endpoint)> {
        self.endpoints.planned().iter()
    }

    /// Whether there is a pod of that uid.
    #[must_use]
    pub fn has_pod(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some()
    }

    /// The pod that an attached container is for, when that is not known; then nobody has told of
    /// the pod yet.
    #[must_use]
    pub fn missing_pod(&self, container_id: &str) -> Option<&NamespacedName> {
        self.pods.missing_pod(container_id)
    }

    /// What people call the pod of the cluster, or the container of this node, that has this address,
    /// as far as there is one.
    #[must_use]
    pub fn name_of(&self, address: IpAddr) -> Option<String> {
        let endpoint = self.endpoints.planned_at(address).map(|it| it.label.clone());
        endpoint.or_else(|| self.pods.at(address).map(|pod| pod.name.to_string()))
    }

    /// What the policies allow that endpoints lead to.
    pub fn chains(&self) -> impl Iterator<Item = (&ChainKey, &PolicyChain)> {
        self.chains.iter().map(|(key, chain)| (key, &chain.content))
    }

    /// Whether the pod has an address that was not known to be its.
    #[must_use]
    pub fn gains_address(&self, pod: &Pod) -> bool {
        let held = self.pods.get(&pod.uid).map(|it| &it.addresses);
        pod.is_endpoint()
            && pod.addresses.iter().any(|it| held.is_none_or(|held| !held.contains(it)))
    }

    /// Whether a container is, or belongs to, an endpoint that is planned.
    #[must_use]
    pub fn has_endpoint(&self, container_id: &str) -> bool {
        let planned = self.endpoints.planned();
        match self.pods.binding(container_id) {
            Some(pod) => planned.contains_key(pod),
            None => planned.contains_key(&endpoints::container(container_id)),
        }
    }

    fn put_pod(&mut self, pod: Pod) {
        if self.pods.get(&pod.uid) == Some(&pod) {
            return;
        }
        let uid = pod.uid.clone();
        self.around(Some(&uid), |pods| pods.put(pod));
    }

    fn remove_pod(&mut self, uid: &str) {
        self.around(Some(uid), |pods| pods.remove(uid));
    }

    /// Has `change` change one pod: what it was is withdrawn from the sets, what it then is is
    /// added to them.
    fn around(&mut self, uid: Option<&str>, change: impl FnOnce(&mut Pods)) {
        self.around_pods(uid, change);
        self.rebind();
    }

    fn around_pods<'a>(
        &mut self,
        uids: impl IntoIterator<Item = &'a str>,
        change: impl FnOnce(&mut Pods),
    ) {
        let uids: BTreeSet<_> = uids.into_iter().collect();
        for pod in uids.iter().filter_map(|uid| self.pods.view(uid, &self.node)) {
            self.sets.withdraw(&pod);
        }
        change(&mut self.pods);
        for pod in uids.iter().filter_map(|uid| self.pods.view(uid, &self.node)) {
            self.sets.contribute(&pod);
        }
        for uid in uids {
            self.endpoints.refresh_pod(&self.node, &self.pods, uid);
        }
    }

    /// Looks again which pods the attachments are for.
    fn rebind(&mut self) {
        for (container_id, pod) in self.pods.changed_bindings() {
            let before = self.pods.binding(&container_id).cloned();
            let both = [before.as_deref(), pod.as_deref()].into_iter().flatten();
            self.around_pods(both, |pods| pods.bind(&container_id, pod.clone()));
        }
        self.endpoints.refresh_containers(&self.pods);
    }

    fn put_namespace(&mut self, namespace: Namespace) {
        if self.pods.namespaces().any(|it| *it == namespace) {
            return;
        }
        self.around_namespace(&namespace.name.clone(), |pods| pods.put_namespace(namespace));
    }

    fn remove_namespace(&mut self, namespace: &Namespace) {
        self.around_namespace(&namespace.name, |pods| pods.remove_namespace(namespace));
    }

    /// Has `change` change the labels of a namespace: its pods may be other sets' then. Which
    /// policies select them does not change.
    fn around_namespace(&mut self, name: &str, change: impl FnOnce(&mut Pods)) {
        let uids = self.pods.of_namespace(name);
        self.around_pods(uids.iter().map(String::as_str), change);
    }

    fn put_policy(&mut self, policy: Policy) {
        if self.policies.get(&policy.uid) == Some(&policy) {
            return;
        }
        self.remove_policy(&policy.uid);
        self.mark_selected_by(&policy);
        self.dirty_policies.insert(policy.uid.clone());
        let of_namespace = self.policies_by_namespace.entry(policy.name.namespace.clone());
        of_namespace.or_default().insert(policy.uid.clone());
        self.policies.insert(policy.uid.clone(), policy);
    }

    fn remove_policy(&mut self, uid: &str) {
        let Some(policy) = self.policies.remove(uid) else { return };
        self.mark_selected_by(&policy);
        self.dirty_policies.insert(policy.uid.clone());
        let namespace = &policy.name.namespace;
        if let Some(of_namespace) = self.policies_by_namespace.get_mut(namespace) {
            of_namespace.remove(uid);
            if of_namespace.is_empty() {
                self.policies_by_namespace.remove(namespace);
            }
        }
    }

    fn mark_selected_by(&mut self, policy: &Policy) {
        let pods = &self.pods;
        self.endpoints.mark_where(|uid| pods.get(uid).is_some_and(|pod| policy.selects(pod)));
    }

    fn settle_endpoints(&mut self, changes: &mut Changes) {
        for key in self.endpoints.take_dirty() {
            let endpoint = self.endpoints.facts(&key).map(|facts| {
                let pod = self.pods.get(&key);
                Endpoint {
                    label: facts.label.clone(),
                    addresses: self.endpoints.owned(&key),
                    interface: facts.interface.clone(),
                    ingress: pod.and_then(|pod| self.isolating(pod, Direction::Ingress)),
                    egress: pod.and_then(|pod| self.isolating(pod, Direction::Egress)),
                }
            });
            let before = self.endpoints.planned().get(&key);
            if before == endpoint.as_ref() {
                continue;
            }
            let chains = |it: Option<&Endpoint>| -> Vec<ChainKey> {
                let both = it.into_iter().flat_map(|it| [&it.ingress, &it.egress]);
                both.flatten().flatten().cloned().collect()
            };
            let (gone, come) = (chains(before), chains(endpoint.as_ref()));
            come.into_iter().for_each(|key| self.chains.entry(key).or_default().users += 1);
            for key in gone {
                if let Some(chain) = self.chains.get_mut(&key) {
                    chain.users = chain.users.saturating_sub(1);
                }
                self.dirty_policies.insert(key.uid.clone());
            }
            if let Some(endpoint) = &endpoint {
                let chains = [&endpoint.ingress, &endpoint.egress].into_iter().flatten().flatten();
                self.dirty_policies.extend(chains.map(|key| key.uid.clone()));
            }
            self.endpoints.set_planned(&key, endpoint.clone());
            changes.endpoints.insert(key, endpoint);
        }
    }

    fn isolating(&self, pod: &Pod, direction: Direction) -> Option<BTreeSet<ChainKey>> {
        let uids = self.policies_by_namespace.get(&pod.name.namespace).into_iter().flatten();
        let policies = uids.filter_map(|uid| self.policies.get(uid));
        let isolating =
            policies.filter(|policy| policy.rules(direction).is_some() && policy.selects(pod));
        let keys: BTreeSet<_> = isolating.map(|policy| chain_key(policy, direction)).collect();
        Some(keys).filter(|keys| !keys.is_empty())
    }

    fn settle_chains(&mut self, changes: &mut Changes) {
        let dirty = std::mem::take(&mut self.dirty_policies);
        let keys: Vec<_> =
            self.chains.keys().filter(|key| dirty.contains(&key.uid)).cloned().collect();
        for key in keys {
            let Some(chain) = self.chains.get_mut(&key) else { continue };
            if chain.users == 0 {
                let chain = self.chains.remove(&key).unwrap_or_default();
                self.sets.release(&chain.content);
                if chain.is_told {
                    changes.chains.insert(key, None);
                }
                continue;
            }
            let policy = self.policies.get(&key.uid);
            let content = policy.and_then(|policy| plan::compile(policy, key.direction));
            let content = content.unwrap_or_default();
            if content == chain.content && chain.is_told {
                continue;
            }
            self.sets.acquire(&content, &self.pods, &self.node);
            self.sets.release(&chain.content);
            chain.content = content.clone();
            chain.is_told = true;
            changes.chains.insert(key, Some(content));
        }
    }
}

impl Lookup for Index {
    fn endpoint_at(&self, address: IpAddr) -> Option<&Endpoint> {
        self.endpoints.planned_at(address)
    }

    fn chain(&self, key: &ChainKey) -> Option<&PolicyChain> {
        self.chains.get(key).map(|chain| &chain.content)
    }

    fn has_member(&self, set: &SetKey, member: &Member) -> bool {
        self.sets.has_member(set, member)
    }
}

fn chain_key(policy: &Policy, direction: Direction) -> ChainKey {
    ChainKey { policy: policy.name.clone(), uid: policy.uid.clone(), direction }
}
