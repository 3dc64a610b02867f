//! The kinds that policy depends on.

use std::collections::BTreeSet;

use cluster::folder::{Kind, Objects, Wrong, typed};
use k8s_openapi::api::core::v1;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::model::{Namespace, Pod, Policy};

const NAMESPACE: &str = "Namespace";
const POD: &str = "Pod";
const POLICY: &str = "NetworkPolicy";

/// Pods, Namespaces and NetworkPolicies, of which `keep` makes what is kept.
#[derive(Debug)]
pub(crate) struct Kinds<T> {
    /// Pods whose manifest names no node are on this one.
    pub(crate) node: String,
    pub(crate) keep: fn(Written) -> T,
}

/// An object as it is written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Written {
    Pod(Box<v1::Pod>),
    Namespace(Box<v1::Namespace>),
    Policy(Box<NetworkPolicy>),
}

/// An object as policy needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Object {
    Pod(Pod),
    Namespace(Namespace),
    Policy(Policy),
}

impl From<Written> for Object {
    fn from(object: Written) -> Self {
        match object {
            Written::Pod(pod) => Self::Pod(Pod::from(&*pod)),
            Written::Namespace(namespace) => Self::Namespace(Namespace::from(&*namespace)),
            Written::Policy(policy) => Self::Policy(Policy::from(&*policy)),
        }
    }
}

impl<T: Clone + PartialEq + 'static> cluster::folder::Kinds for Kinds<T> {
    type Object = T;

    const READ: &'static [Kind<Self>] = &[
        Kind { version: "v1", kind: POD, is_namespaced: true, read: Self::pod },
        Kind { version: "v1", kind: NAMESPACE, is_namespaced: false, read: Self::namespace },
        Kind {
            version: "networking.k8s.io/v1",
            kind: POLICY,
            is_namespaced: true,
            read: Self::policy,
        },
    ];

    /// A namespace that pods or policies name is there, whether a manifest has it or not, so that
    /// others can select it by its name.
    fn complete(&self, objects: &mut Objects<T>) {
        let namespaced = objects.keys().filter(|(kind, _)| *kind != NAMESPACE);
        let named = namespaced.filter_map(|(_, name)| name.split_once('/'));
        let named: BTreeSet<_> = named.map(|(namespace, _)| namespace.to_owned()).collect();
        for name in named {
            objects.entry((NAMESPACE, name.clone())).or_insert_with(|| {
                let uid = Some(uid(NAMESPACE, &name));
                let metadata = ObjectMeta { name: Some(name), uid, ..ObjectMeta::default() };
                let namespace = v1::Namespace { metadata, ..v1::Namespace::default() };
                (self.keep)(Written::Namespace(Box::new(namespace)))
            });
        }
    }
}

impl<T> Kinds<T> {
    fn pod(&self, name: &str, value: Value) -> Result<T, Wrong> {
        let mut pod: v1::Pod = typed(value, None)?;
        identify(&mut pod.metadata, POD, name);
        let spec = pod.spec.get_or_insert_default();
        spec.node_name.get_or_insert_with(|| self.node.clone());
        Ok((self.keep)(Written::Pod(Box::new(pod))))
    }

    fn namespace(&self, name: &str, value: Value) -> Result<T, Wrong> {
        let mut namespace: v1::Namespace = typed(value, None)?;
        identify(&mut namespace.metadata, NAMESPACE, name);
        Ok((self.keep)(Written::Namespace(Box::new(namespace))))
    }

    /// A field that policies do not have is not passed over: a misspelt `ports` would allow every port.
    fn policy(&self, name: &str, value: Value) -> Result<T, Wrong> {
        let mut policy: NetworkPolicy = typed(value, Some("spec"))?;
        identify(&mut policy.metadata, POLICY, name);
        Ok((self.keep)(Written::Policy(Box::new(policy))))
    }
}

fn identify(metadata: &mut ObjectMeta, kind: &str, name: &str) {
    metadata.namespace.take_if(|namespace| namespace.is_empty());
    metadata.uid = Some(uid(kind, name));
}

/// The uid of an object of a folder: made of its name, by which manifests are told apart. One that
/// the manifest has may have been copied with it from another object.
fn uid(kind: &str, name: &str) -> String {
    format!("folder/{kind}/{name}")
}
