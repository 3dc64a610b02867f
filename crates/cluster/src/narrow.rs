//! Objects of which only a part is read. What the managers of fields have noted alone is longer than
//! all that most programs need of an object, and what is read has to be kept somewhere until it is
//! trimmed.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

/// The part of a kind of objects that is read.
pub trait Part: DeserializeOwned + Into<Self::Whole> {
    /// The kind.
    type Whole: Resource<DynamicType = ()>;
}

/// An object of which only the part `P` was read; the rest is absent.
#[derive(Debug, Clone)]
pub struct Narrow<P: Part>(pub P::Whole);

impl<'de, P: Part> Deserialize<'de> for Narrow<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        P::deserialize(deserializer).map(|part| Self(part.into()))
    }
}

impl<P: Part> Resource for Narrow<P> {
    type DynamicType = ();
    type Scope = <P::Whole as Resource>::Scope;

    fn kind(of: &()) -> Cow<'_, str> {
        P::Whole::kind(of)
    }

    fn group(of: &()) -> Cow<'_, str> {
        P::Whole::group(of)
    }

    fn version(of: &()) -> Cow<'_, str> {
        P::Whole::version(of)
    }

    fn plural(of: &()) -> Cow<'_, str> {
        P::Whole::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

/// The part of an object's metadata that says what it is and since when.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
}

impl From<Metadata> for ObjectMeta {
    fn from(part: Metadata) -> Self {
        let Metadata { name, namespace, uid, resource_version, labels, annotations, .. } = part;
        Self {
            name,
            namespace,
            uid,
            resource_version,
            labels,
            annotations,
            creation_timestamp: part.creation_timestamp,
            deletion_timestamp: part.deletion_timestamp,
            ..Self::default()
        }
    }
}
