//! The sets that rules look into, and who is in them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::pods::{Pods, View};
use crate::model::{Direction, Requirement, Selector};
use crate::plan::{Member, NamespaceScope, PeerMatch, PolicyChain, PortMatch, SetChange, SetKey};

#[derive(Debug, Default)]
pub(super) struct Sets {
    sets: BTreeMap<SetKey, Set>,
    /// Under which terms a set is found: a pod is looked for under all of its own.
    by_term: HashMap<Term, BTreeSet<SetKey>>,
    dirty: BTreeSet<SetKey>,
}

#[derive(Debug, Default)]
struct Set {
    /// How many rules look into it.
    users: usize,
    /// How many pods make a member one: two may have one address while it passes on.
    members: BTreeMap<Member, usize>,
    is_told: bool,
    /// What came and went since it was last told.
    pending: BTreeMap<Member, bool>,
}

/// Something that a pod must have to be in a set: the narrowest that the set's key has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Term {
    LabelInNamespace(String, String, String),
    Label(String, String),
    Namespace(String),
    NamespaceLabel(String, String),
    PortName(String),
    Anything,
}

impl Sets {
    /// Adds the pod to the sets it belongs to.
    pub(super) fn contribute(&mut self, pod: &View<'_>) {
        self.count(pod, |set, member| set.add(member));
    }

    /// Takes the pod out of the sets it belongs to; it must be as it was when it was added.
    pub(super) fn withdraw(&mut self, pod: &View<'_>) {
        self.count(pod, |set, member| set.remove(&member));
    }

    fn count(&mut self, pod: &View<'_>, count: impl Fn(&mut Set, Member)) {
        for term in terms_of_pod(pod) {
            for key in self.by_term.get(&term).into_iter().flatten() {
                let members = members(key, pod);
                let Some(set) = self.sets.get_mut(key).filter(|_| !members.is_empty()) else {
                    continue;
                };
                members.into_iter().for_each(|member| count(set, member));
                self.dirty.insert(key.clone());
            }
        }
    }

    /// Takes note that rules of `chain` look into their sets.
    pub(super) fn acquire(&mut self, chain: &PolicyChain, pods: &Pods, node: &str) {
        for key in keys(chain) {
            if let Some(set) = self.sets.get_mut(key) {
                set.users += 1;
                continue;
            }
            let mut set = Set { users: 1, ..Set::default() };
            fill(&mut set, key, pods, node);
            for term in terms_of_set(key) {
                self.by_term.entry(term).or_default().insert(key.clone());
            }
            self.sets.insert(key.clone(), set);
            self.dirty.insert(key.clone());
        }
    }

    /// Takes note that rules of `chain` look into their sets no more.
    pub(super) fn release(&mut self, chain: &PolicyChain) {
        for key in keys(chain) {
            let Some(set) = self.sets.get_mut(key) else { continue };
            set.users = set.users.saturating_sub(1);
            self.dirty.insert(key.clone());
        }
    }

    /// What became of the sets since this was last asked. Sets that no rule looks into go.
    pub(super) fn take_changes(&mut self) -> BTreeMap<SetKey, SetChange> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty.into_iter().filter_map(|key| Some((key.clone(), self.take_change(&key)?))).collect()
    }

    fn take_change(&mut self, key: &SetKey) -> Option<SetChange> {
        let set = self.sets.get_mut(key)?;
        if set.users == 0 {
            let is_told = set.is_told;
            self.forget(key);
            return is_told.then_some(SetChange::Removed);
        }
        let pending = std::mem::take(&mut set.pending);
        if !set.is_told {
            set.is_told = true;
            return Some(SetChange::Created(set.members.keys().cloned().collect()));
        }
        (!pending.is_empty()).then_some(SetChange::Members(pending))
    }

    fn forget(&mut self, key: &SetKey) {
        self.sets.remove(key);
        for term in terms_of_set(key) {
            if let Some(keys) = self.by_term.get_mut(&term) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_term.remove(&term);
                }
            }
        }
    }

    pub(super) fn has_member(&self, key: &SetKey, member: &Member) -> bool {
        self.sets.get(key).is_some_and(|set| set.members.contains_key(member))
    }

    /// All sets with their members.
    pub(super) fn all(&self) -> BTreeMap<SetKey, BTreeSet<Member>> {
        let members = |set: &Set| set.members.keys().cloned().collect();
        self.sets.iter().map(|(key, set)| (key.clone(), members(set))).collect()
    }
}

impl Set {
    fn add(&mut self, member: Member) {
        let count = self.members.entry(member.clone()).or_default();
        *count += 1;
        if *count == 1 {
            self.note(member, true);
        }
    }

    fn remove(&mut self, member: &Member) {
        let Some(count) = self.members.get_mut(member) else { return };
        *count -= 1;
        if *count == 0 {
            self.members.remove(member);
            self.note(member.clone(), false);
        }
    }

    /// A member that came and went again did neither.
    fn note(&mut self, member: Member, came: bool) {
        if self.is_told && self.pending.remove(&member).is_none() {
            self.pending.insert(member, came);
        }
    }
}

fn keys(chain: &PolicyChain) -> impl Iterator<Item = &SetKey> {
    chain.rules.iter().flat_map(|rule| {
        let peer = match &rule.peer {
            PeerMatch::Set(key) => Some(key),
            PeerMatch::Any | PeerMatch::Network(_) => None,
        };
        let port = match &rule.port {
            PortMatch::Named(key) => Some(key),
            PortMatch::Any | PortMatch::Protocol(_) | PortMatch::Ports(..) => None,
        };
        peer.into_iter().chain(port)
    })
}

fn fill(set: &mut Set, key: &SetKey, pods: &Pods, node: &str) {
    if let SetKey::Networks(networks) = key {
        networks.iter().for_each(|network| set.add(Member::Network(*network)));
        return;
    }
    let uids: Vec<String> = match key {
        SetKey::Pods { namespaces: NamespaceScope::Named(name), .. } => pods.of_namespace(name),
        SetKey::Pods { namespaces: NamespaceScope::Selected(selector), .. } => {
            let is_selected = |name: &&String| {
                pods.labels_of_namespace(name).is_some_and(|labels| selector.matches(labels))
            };
            let names = pods.populated().filter(is_selected);
            names.flat_map(|name| pods.of_namespace(name)).collect()
        }
        SetKey::NamedPort { .. } | SetKey::Networks(_) => pods.uids().collect(),
    };
    for uid in uids {
        let members = pods.view(&uid, node).map(|pod| members(key, &pod));
        members.into_iter().flatten().for_each(|member| set.add(member));
    }
}

/// What the pod adds to the set.
fn members(key: &SetKey, view: &View<'_>) -> Vec<Member> {
    let addresses = view.addresses.iter().copied();
    match key {
        SetKey::Networks(_) => Vec::new(),
        SetKey::Pods { namespaces, pods } => {
            let is_in_namespace = match namespaces {
                NamespaceScope::Named(name) => *name == view.pod.name.namespace,
                NamespaceScope::Selected(selector) => {
                    view.namespace_labels.is_some_and(|labels| selector.matches(labels))
                }
            };
            if is_in_namespace && pods.matches(&view.pod.labels) {
                addresses.map(Member::Address).collect()
            } else {
                Vec::new()
            }
        }
        SetKey::NamedPort { name, protocol, direction } => {
            if *direction == Direction::Ingress && !view.is_of_this_node {
                return Vec::new();
            }
            let ports = view.pod.ports.iter();
            let ports = ports.filter(|port| port.name == *name && port.protocol == *protocol);
            let numbers: BTreeSet<_> = ports.map(|port| port.number).collect();
            let of_address = |address| {
                numbers.iter().map(move |number| Member::AddressPort(address, *protocol, *number))
            };
            addresses.flat_map(of_address).collect()
        }
    }
}

fn terms_of_set(key: &SetKey) -> Vec<Term> {
    let (namespaces, pods) = match key {
        SetKey::Networks(_) => return Vec::new(),
        SetKey::NamedPort { name, .. } => return vec![Term::PortName(name.clone())],
        SetKey::Pods { namespaces, pods } => (namespaces, pods),
    };
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let of_pods = narrowest(pods).map(|it| it.into_iter().map(owned));
    match (namespaces, of_pods) {
        (NamespaceScope::Named(name), Some(labels)) => {
            labels.map(|(key, value)| Term::LabelInNamespace(name.clone(), key, value)).collect()
        }
        (NamespaceScope::Named(name), None) => vec![Term::Namespace(name.clone())],
        (NamespaceScope::Selected(_), Some(labels)) => {
            labels.map(|(key, value)| Term::Label(key, value)).collect()
        }
        (NamespaceScope::Selected(selector), None) => match narrowest(selector) {
            Some(labels) => labels
                .into_iter()
                .map(owned)
                .map(|(key, value)| Term::NamespaceLabel(key, value))
                .collect(),
            None => vec![Term::Anything],
        },
    }
}

/// Labels of which whatever is selected has exactly one: those of the requirement with the fewest
/// values. `None` when a selector only says what labels must be there or not.
fn narrowest(selector: &Selector) -> Option<Vec<(&str, &str)>> {
    let required = selector.requirements().filter_map(|requirement| match requirement {
        Requirement::In { key, values } => Some((key, values)),
        Requirement::NotIn { .. }
        | Requirement::Exists { .. }
        | Requirement::DoesNotExist { .. } => None,
    });
    let (key, values) = required.min_by_key(|(_, values)| values.len())?;
    Some(values.iter().map(|value| (key.as_str(), value.as_str())).collect())
}

/// A pod is under each set's terms at most once: of a label it has one value.
fn terms_of_pod(view: &View<'_>) -> Vec<Term> {
    let namespace = &view.pod.name.namespace;
    let mut terms = vec![Term::Anything, Term::Namespace(namespace.clone())];
    for (key, value) in &view.pod.labels {
        terms.push(Term::LabelInNamespace(namespace.clone(), key.clone(), value.clone()));
        terms.push(Term::Label(key.clone(), value.clone()));
    }
    for (key, value) in view.namespace_labels.into_iter().flatten() {
        terms.push(Term::NamespaceLabel(key.clone(), value.clone()));
    }
    let names: BTreeSet<_> = view.pod.ports.iter().map(|port| &port.name).collect();
    terms.extend(names.into_iter().cloned().map(Term::PortName));
    terms
}
