//! The pods, their namespaces, and what containers of this node were attached for.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

use crate::attachment::{Attachment, PodReference};
use crate::model::{Labels, Namespace, NamespacedName, Pod};

/// So many attachments are kept in mind that ended before their pods were told of.
const MOST_LEFT_EARLY: usize = 1024;
/// And for so many minutes at least: of whoever is not told of by then nobody will tell. Without a uid the pod that has the
/// name next would be taken for it.
const LEFT_EARLY_LASTS: u32 = 60;

#[derive(Debug, Default)]
pub(super) struct Pods {
    pods: HashMap<String, Pod>,
    by_namespace: HashMap<String, BTreeSet<String>>,
    namespaces: HashMap<String, Vec<Namespace>>,
    attachments: BTreeMap<String, Attachment>,
    /// The containers, as they were told of: the last ones last.
    order: Vec<String>,
    /// The uids of the pods that attachments are for.
    bindings: BTreeMap<String, String>,
    /// By pod, the addresses that it was attached with and is no more. Its object may go on telling
    /// of them for a while, and they may be another's by then.
    left: HashMap<String, BTreeSet<IpAddr>>,
    /// The same of pods that were not told of yet, the last ones last.
    left_early: VecDeque<LeftEarly>,
    /// Whether all pods are told of: then a container that names one is no plain container, even where
    /// the runtime gives no uid, but a pod that is not known yet.
    pub(super) are_all_told: bool,
}

/// What an attachment left whose pod was not told of.
#[derive(Debug)]
struct LeftEarly {
    reference: PodReference,
    addresses: BTreeSet<IpAddr>,
    /// Minutes since then.
    age: u32,
}

/// A pod as rules see it.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) pod: &'a Pod,
    /// Those of its status, but for those that it left, and those that it is attached with.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// `None` while the namespace is not known: no selector of namespaces matches it.
    pub(super) namespace_labels: Option<&'a Labels>,
    pub(super) is_of_this_node: bool,
}

impl Pods {
    pub(super) fn get(&self, uid: &str) -> Option<&Pod> {
        self.pods.get(uid)
    }

    pub(super) fn uids(&self) -> impl Iterator<Item = String> + use<> {
        self.pods.keys().cloned().collect::<Vec<_>>().into_iter()
    }

    pub(super) fn put(&mut self, pod: Pod) {
        self.take_out(&pod.uid);
        self.recall_left(&pod);
        let of_namespace = self.by_namespace.entry(pod.name.namespace.clone()).or_default();
        of_namespace.insert(pod.uid.clone());
        self.pods.insert(pod.uid.clone(), pod);
    }

    /// The pod may have left addresses before it was told of.
    fn recall_left(&mut self, pod: &Pod) {
        self.left_early.retain(|it| {
            let is_its = is_for(&it.reference, pod);
            if is_its {
                self.left.entry(pod.uid.clone()).or_default().extend(&it.addresses);
            }
            !is_its
        });
    }

    /// A minute has passed.
    pub(super) fn grow_old(&mut self) {
        self.left_early.iter_mut().for_each(|it| it.age += 1);
        self.left_early.retain(|it| it.age <= LEFT_EARLY_LASTS);
    }

    pub(super) fn remove(&mut self, uid: &str) {
        self.left.remove(uid);
        self.take_out(uid);
    }

    fn take_out(&mut self, uid: &str) {
        let Some(pod) = self.pods.remove(uid) else { return };
        if let Some(of_namespace) = self.by_namespace.get_mut(&pod.name.namespace) {
            of_namespace.remove(uid);
            if of_namespace.is_empty() {
                self.by_namespace.remove(&pod.name.namespace);
            }
        }
    }

    pub(super) fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.namespaces.values().flatten()
    }

    pub(super) fn put_namespace(&mut self, namespace: Namespace) {
        let versions = self.namespaces.entry(namespace.name.clone()).or_default();
        versions.retain(|it| it.uid != namespace.uid);
        versions.push(namespace);
        // The newest counts.
        versions.sort_by(|one, two| (one.created, &one.uid).cmp(&(two.created, &two.uid)));
    }

    pub(super) fn remove_namespace(&mut self, namespace: &Namespace) {
        let Some(versions) = self.namespaces.get_mut(&namespace.name) else { return };
        versions.retain(|it| it.uid != namespace.uid);
        if versions.is_empty() {
            self.namespaces.remove(&namespace.name);
        }
    }

    pub(super) fn of_namespace(&self, name: &str) -> Vec<String> {
        self.by_namespace.get(name).into_iter().flatten().cloned().collect()
    }

    /// The names of namespaces that have pods.
    pub(super) fn populated(&self) -> impl Iterator<Item = &String> {
        self.by_namespace.keys()
    }

    pub(super) fn labels_of_namespace(&self, name: &str) -> Option<&Labels> {
        self.namespaces.get(name)?.last().map(|namespace| &namespace.labels)
    }

    /// Notes an attachment that is not there; [`Self::changed_bindings`] tells what pod it is for.
    pub(super) fn attach(&mut self, attachment: Attachment) {
        self.order.retain(|it| *it != attachment.container_id);
        self.order.push(attachment.container_id.clone());
        self.attachments.insert(attachment.container_id.clone(), attachment);
    }

    pub(super) fn detach(&mut self, container_id: &str) {
        self.order.retain(|it| it != container_id);
        let attachment = self.attachments.remove(container_id);
        let pod = self.bindings.remove(container_id).filter(|uid| self.pods.contains_key(uid));
        match (attachment, pod) {
            (Some(attachment), Some(uid)) => {
                self.left.entry(uid).or_default().extend(attachment.addresses);
            }
            (Some(Attachment { pod: Some(reference), addresses, .. }), None) => {
                self.left_early.push_back(LeftEarly { reference, addresses, age: 0 });
                if self.left_early.len() > MOST_LEFT_EARLY {
                    self.left_early.pop_front();
                }
            }
            _ => {}
        }
    }

    /// The pod that the attachment is for, as it was last bound.
    pub(super) fn binding(&self, container_id: &str) -> Option<&String> {
        self.bindings.get(container_id)
    }

    /// The addresses that attachments tell of the pods that they are bound to, by uid.
    pub(super) fn told_addresses(&self) -> impl Iterator<Item = (&str, &BTreeSet<IpAddr>)> {
        let bound = self.bindings.iter();
        bound.filter_map(|(id, uid)| Some((uid.as_str(), &self.attachments.get(id)?.addresses)))
    }

    /// The name of the pod that the attachment is for, when it is bound to none.
    pub(super) fn missing_pod(&self, container_id: &str) -> Option<&NamespacedName> {
        let attachment = self.attachments.get(container_id)?;
        let reference = attachment.pod.as_ref()?;
        self.binding(container_id).is_none().then_some(&reference.name)
    }

    pub(super) fn bind(&mut self, container_id: &str, pod: Option<String>) {
        match pod {
            Some(uid) => _ = self.bindings.insert(container_id.to_owned(), uid),
            None => _ = self.bindings.remove(container_id),
        }
    }

    /// The attachments that are for another pod than they are bound to.
    pub(super) fn changed_bindings(&self) -> Vec<(String, Option<String>)> {
        let wanted = self.attachments.values().map(|it| (&it.container_id, self.bound_to(it)));
        let changed = wanted.filter(|(id, pod)| self.bindings.get(*id) != pod.as_ref());
        changed.map(|(id, pod)| (id.clone(), pod)).collect()
    }

    /// The uid of the pod that the attachment is for, when the pod is known.
    fn bound_to(&self, attachment: &Attachment) -> Option<String> {
        let Some(reference) = &attachment.pod else { return self.having(attachment) };
        if let Some(uid) = reference.uid.as_ref().filter(|uid| self.pods.contains_key(*uid)) {
            return Some(uid.clone());
        }
        let named = self.by_namespace.get(&reference.name.namespace).into_iter().flatten();
        let named = named.filter_map(|uid| self.pods.get(uid));
        let named = named.filter(|pod| is_for(reference, pod));
        let newest = named.max_by_key(|pod| (pod.created, &pod.uid)).map(|pod| pod.uid.clone());
        let may_be_another = reference.uid.is_none() && !self.are_all_told;
        newest.or_else(|| may_be_another.then(|| self.having(attachment))?)
    }

    /// The pod whose manifest gives it one of the attachment's addresses.
    fn having(&self, attachment: &Attachment) -> Option<String> {
        self.newest(|pod| !pod.addresses.is_disjoint(&attachment.addresses))
            .map(|pod| pod.uid.clone())
    }

    /// The pod whose status gives it the address. This looks at all of them.
    pub(super) fn at(&self, address: IpAddr) -> Option<&Pod> {
        self.newest(|pod| pod.addresses.contains(&address))
    }

    fn newest(&self, which: impl Fn(&Pod) -> bool) -> Option<&Pod> {
        let pods = self.pods.values().filter(|pod| pod.is_endpoint() && which(pod));
        pods.max_by_key(|pod| (!pod.terminating, pod.created, &pod.uid))
    }

    /// The attachments of a pod, the last one first: a static pod may have a new sandbox, and of the old
    /// one nobody told that it has gone.
    pub(super) fn attachments_of(&self, uid: &str) -> impl Iterator<Item = &Attachment> {
        let is_bound = move |id: &&String| self.bindings.get(*id).is_some_and(|it| it == uid);
        self.order.iter().rev().filter(is_bound).filter_map(|id| self.attachments.get(id))
    }

    /// The interfaces that attachments tell of.
    pub(super) fn told_interfaces(&self) -> BTreeSet<String> {
        let interfaces = self.attachments.values().filter_map(|it| it.interface.as_ref());
        interfaces.map(|it| it.name.clone()).collect()
    }

    /// Attachments of containers that are no pods.
    pub(super) fn plain_containers(&self) -> impl Iterator<Item = &Attachment> {
        let is_plain = |pod: &PodReference| pod.uid.is_none() && !self.are_all_told;
        let unbound =
            self.attachments.values().filter(|it| self.binding(&it.container_id).is_none());
        unbound.filter(move |it| it.pod.as_ref().is_none_or(is_plain))
    }

    /// The pod as rules see it; `None` when they do not, see [`Pod::is_endpoint`].
    pub(super) fn view(&self, uid: &str, node: &str) -> Option<View<'_>> {
        let pod = self.pods.get(uid).filter(|pod| pod.is_endpoint())?;
        let is_of_this_node = pod.node.as_deref() == Some(node);
        let mut addresses = pod.addresses.clone();
        if is_of_this_node {
            addresses.retain(|it| self.left.get(uid).is_none_or(|left| !left.contains(it)));
            addresses.extend(self.attachments_of(uid).flat_map(|it| &it.addresses));
        }
        let namespace_labels = self.labels_of_namespace(&pod.name.namespace);
        Some(View { pod, addresses, namespace_labels, is_of_this_node })
    }
}

/// Whether an attachment that tells this is for the pod.
fn is_for(reference: &PodReference, pod: &Pod) -> bool {
    match &reference.uid {
        Some(uid) if *uid == pod.uid => true,
        // The mirror of a static pod, or any where the runtime gave no uid.
        uid => pod.name == reference.name && (uid.is_none() || pod.is_mirror),
    }
}
