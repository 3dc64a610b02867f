//! The objects of all files together, and what changes between two readings: pure.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::manifest::{Manifest, Object, uid};
use super::report::{Place, Report};
use crate::model::{Namespace, NamespacedName, Pod, Policy};
use crate::source::{Change, Event};

/// The objects of a folder, by their names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    namespaces: BTreeMap<String, Namespace>,
    pods: BTreeMap<NamespacedName, Pod>,
    policies: BTreeMap<NamespacedName, Policy>,
    /// Where they are.
    places: BTreeMap<Identity, Place>,
}

/// Kind and name.
type Identity = (&'static str, String);

impl Contents {
    /// The objects of these files. Of several of one name that one counts which did `before`: a copy
    /// that lies about must not take the place of what is in force. Else it is the first, in the
    /// order of the files.
    pub(super) fn of<'a>(
        files: impl IntoIterator<Item = (&'a Path, &'a Manifest)>,
        before: Option<&Self>,
    ) -> (Self, Vec<Report>) {
        let mut contents = Self::default();
        let mut reports = Vec::new();
        for (file, manifest) in files {
            for (document, object) in &manifest.objects {
                let place = Place { file: file.to_owned(), document: *document };
                let identity = identity(object);
                let held = before.and_then(|it| it.places.get(&identity));
                let (kind, name) = identity.clone();
                let (kept, ignored) = match contents.places.remove(&identity) {
                    None => (place, None),
                    Some(other)
                        if other.file != *file && held.is_some_and(|it| it.file == *file) =>
                    {
                        (place, Some(other))
                    }
                    Some(other) => (other, Some(place)),
                };
                if kept.file == *file && kept.document == *document {
                    contents.insert(object.clone());
                }
                if let Some(ignored) = ignored {
                    let kept = kept.clone();
                    reports.push(Report::Duplicate { kind, name, kept, ignored });
                }
                contents.places.insert(identity, kept);
            }
        }
        contents.add_named_namespaces();
        (contents, reports)
    }

    fn insert(&mut self, object: Object) {
        match object {
            Object::Pod(pod) => _ = self.pods.insert(pod.name.clone(), pod),
            Object::Namespace(it) => _ = self.namespaces.insert(it.name.clone(), it),
            Object::Policy(policy) => _ = self.policies.insert(policy.name.clone(), policy),
        }
    }

    /// A namespace that pods or policies name is there, whether a manifest has it or not, so that
    /// others can select it by its name.
    fn add_named_namespaces(&mut self) {
        let names = self.pods.keys().chain(self.policies.keys()).map(|name| &name.namespace);
        for name in names {
            if !self.namespaces.contains_key(name) {
                let metadata = ObjectMeta {
                    name: Some(name.clone()),
                    uid: Some(uid("Namespace", name)),
                    ..ObjectMeta::default()
                };
                let namespace = v1::Namespace { metadata, ..v1::Namespace::default() };
                self.namespaces.insert(name.clone(), Namespace::from(&namespace));
            }
        }
    }

    /// All of it, as the first list.
    pub(super) fn listed(&self) -> [Event; 3] {
        [
            Event::Namespaces(Change::Listed(self.namespaces.values().cloned().collect())),
            Event::Policies(Change::Listed(self.policies.values().cloned().collect())),
            Event::Pods(Change::Listed(self.pods.values().cloned().collect())),
        ]
    }

    /// What has changed since `before`. A new policy comes ahead of new pods and an old one goes
    /// after old pods, so that no pod is seen without its policies.
    pub(super) fn since(&self, before: &Self) -> Vec<Event> {
        let (namespaces, old_namespaces) = difference(&before.namespaces, &self.namespaces);
        let (policies, old_policies) = difference(&before.policies, &self.policies);
        let (pods, old_pods) = difference(&before.pods, &self.pods);
        let applied = namespaces.map(|it| Event::Namespaces(Change::Applied(it)));
        let applied = applied.chain(policies.map(|it| Event::Policies(Change::Applied(it))));
        let applied = applied.chain(pods.map(|it| Event::Pods(Change::Applied(it))));
        let removed = old_pods.map(|it| Event::Pods(Change::Removed(it)));
        let removed = removed.chain(old_policies.map(|it| Event::Policies(Change::Removed(it))));
        let removed =
            removed.chain(old_namespaces.map(|it| Event::Namespaces(Change::Removed(it))));
        applied.chain(removed).collect()
    }
}

fn identity(object: &Object) -> Identity {
    match object {
        Object::Pod(pod) => ("Pod", pod.name.to_string()),
        Object::Namespace(namespace) => ("Namespace", namespace.name.clone()),
        Object::Policy(policy) => ("NetworkPolicy", policy.name.to_string()),
    }
}

/// The objects that are new or otherwise, and those that are gone.
fn difference<K: Ord, T: Clone + PartialEq>(
    before: &BTreeMap<K, T>,
    now: &BTreeMap<K, T>,
) -> (impl Iterator<Item = T>, impl Iterator<Item = T>) {
    let applied = now.iter().filter(|(name, it)| before.get(name) != Some(it));
    let removed = before.iter().filter(|(name, _)| !now.contains_key(name));
    (applied.map(|(_, it)| it.clone()), removed.map(|(_, it)| it.clone()))
}
