//! The endpoints of this node: which there are, whose an address is, and what was planned.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use super::pods::Pods;
use crate::attachment::Attachment;
use crate::plan::{Endpoint, HostInterface};

#[derive(Debug, Default)]
pub(super) struct Endpoints {
    facts: BTreeMap<String, Facts>,
    claims: HashMap<IpAddr, BTreeSet<String>>,
    planned: BTreeMap<String, Endpoint>,
    planned_addresses: HashMap<IpAddr, String>,
    dirty: BTreeSet<String>,
    /// Interfaces that no attachment tells of.
    found: BTreeMap<IpAddr, HostInterface>,
}

/// What is known of an endpoint, whatever the policies say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) label: String,
    pub(super) addresses: BTreeSet<IpAddr>,
    pub(super) interface: Option<HostInterface>,
    rank: Rank,
}

/// Of two endpoints that claim an address, that of the higher rank has it: one that was attached
/// with it, then one that is not being deleted, then the newer one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    is_attached: bool,
    is_staying: bool,
    created: i64,
}

impl Endpoints {
    /// Looks again at a pod. Its labels are none of the facts, but other policies may select it.
    pub(super) fn refresh_pod(&mut self, node: &str, pods: &Pods, uid: &str) {
        self.put(uid, facts_of_pod(node, pods, uid, &self.found));
        if self.facts.contains_key(uid) {
            self.dirty.insert(uid.to_owned());
        }
    }

    /// Looks again at the containers that are no pods.
    pub(super) fn refresh_containers(&mut self, pods: &Pods) {
        let plain: BTreeMap<_, _> =
            pods.plain_containers().map(|it| (container(&it.container_id), it)).collect();
        let gone = self.facts.keys().filter(|key| key.starts_with(CONTAINER));
        for key in gone.filter(|key| !plain.contains_key(*key)).cloned().collect::<Vec<_>>() {
            self.put(&key, None);
        }
        for (key, attachment) in plain {
            self.put(&key, Some(facts_of_container(attachment)));
        }
    }

    fn put(&mut self, key: &str, facts: Option<Facts>) {
        if self.facts.get(key) == facts.as_ref() {
            return;
        }
        let before = match facts.clone() {
            Some(facts) => self.facts.insert(key.to_owned(), facts),
            None => self.facts.remove(key),
        };
        for address in before.iter().flat_map(|it| &it.addresses) {
            self.mark_claimants(*address);
            if let Some(claims) = self.claims.get_mut(address) {
                claims.remove(key);
                if claims.is_empty() {
                    self.claims.remove(address);
                }
            }
        }
        for address in facts.iter().flat_map(|it| &it.addresses) {
            self.claims.entry(*address).or_default().insert(key.to_owned());
            self.mark_claimants(*address);
        }
        self.dirty.insert(key.to_owned());
    }

    /// Replaces what was found of interfaces, and tells whose may be another now.
    pub(super) fn find(&mut self, found: &BTreeMap<IpAddr, HostInterface>) -> BTreeSet<String> {
        let addresses = self.found.keys().chain(found.keys());
        let changed = addresses.filter(|address| self.found.get(address) != found.get(address));
        let claimants = changed.filter_map(|address| self.claims.get(address)).flatten();
        let claimants = claimants.filter(|key| !key.starts_with(CONTAINER)).cloned().collect();
        self.found.clone_from(found);
        claimants
    }

    fn mark_claimants(&mut self, address: IpAddr) {
        self.dirty.extend(self.claims.get(&address).into_iter().flatten().cloned());
    }

    /// Has the endpoints looked at again whose keys `which` tells.
    pub(super) fn mark_where(&mut self, which: impl Fn(&str) -> bool) {
        self.dirty.extend(self.facts.keys().filter(|key| which(key)).cloned());
    }

    pub(super) fn take_dirty(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.dirty)
    }

    pub(super) fn facts(&self, key: &str) -> Option<&Facts> {
        self.facts.get(key)
    }

    /// Its addresses, without those that a higher rank has.
    pub(super) fn owned(&self, key: &str) -> BTreeSet<IpAddr> {
        let addresses = self.facts.get(key).into_iter().flat_map(|facts| &facts.addresses);
        addresses.copied().filter(|address| self.owner(*address) == Some(key)).collect()
    }

    fn owner(&self, address: IpAddr) -> Option<&str> {
        let claimants = self.claims.get(&address)?.iter();
        let ranked = claimants.max_by_key(|key| (self.facts.get(*key).map(|it| &it.rank), *key));
        ranked.map(String::as_str)
    }

    pub(super) fn planned(&self) -> &BTreeMap<String, Endpoint> {
        &self.planned
    }

    pub(super) fn planned_at(&self, address: IpAddr) -> Option<&Endpoint> {
        self.planned.get(self.planned_addresses.get(&address)?)
    }

    pub(super) fn set_planned(&mut self, key: &str, endpoint: Option<Endpoint>) {
        let before = match endpoint.clone() {
            Some(endpoint) => self.planned.insert(key.to_owned(), endpoint),
            None => self.planned.remove(key),
        };
        for address in before.iter().flat_map(|it| &it.addresses) {
            // It may be another's by now.
            if self.planned_addresses.get(address).is_some_and(|owner| owner == key) {
                self.planned_addresses.remove(address);
            }
        }
        for address in endpoint.iter().flat_map(|it| &it.addresses) {
            self.planned_addresses.insert(*address, key.to_owned());
        }
    }
}

/// What the keys of containers that are no pods begin with; no uid does.
const CONTAINER: &str = "container/";

/// The key of a container that is no pod.
pub(super) fn container(id: &str) -> String {
    format!("{CONTAINER}{id}")
}

fn facts_of_container(attachment: &Attachment) -> Facts {
    Facts {
        label: container(&attachment.container_id),
        addresses: attachment.addresses.clone(),
        interface: attachment.interface.clone(),
        rank: Rank { is_attached: true, is_staying: true, created: 0 },
    }
}

fn facts_of_pod(
    node: &str,
    pods: &Pods,
    uid: &str,
    found: &BTreeMap<IpAddr, HostInterface>,
) -> Option<Facts> {
    let view = pods.view(uid, node).filter(|view| view.is_of_this_node)?;
    if view.addresses.is_empty() {
        return None;
    }
    let attachments = || pods.attachments_of(uid);
    let rank = Rank {
        is_attached: attachments().next().is_some(),
        is_staying: !view.pod.terminating,
        created: view.pod.created,
    };
    let told = attachments().find_map(|attachment| attachment.interface.clone());
    let found = || view.addresses.iter().find_map(|address| found.get(address)).cloned();
    Some(Facts {
        label: view.pod.name.to_string(),
        interface: told.or_else(found),
        addresses: view.addresses,
        rank,
    })
}
