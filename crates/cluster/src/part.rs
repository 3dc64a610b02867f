//! Objects of which only a part is read, in either encoding of the API. What the managers of fields
//! have noted alone is longer than all that most programs need of an object; and protobuf, in which
//! the API server has the kinds of its own, takes it a third of the work that JSON does.

mod node;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use prost::Message;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

pub use node::NodePart;

/// The part of a kind of objects that is read. The numbers of its fields are those of the kind's
/// `generated.proto`.
pub trait Part: DeserializeOwned + Message + Default + 'static {
    /// The kind.
    type Whole: Resource<DynamicType = ()>;

    /// What says which object it is.
    fn metadata(&self) -> Option<&Metadata>;
}

/// The part of an object's metadata that says what it is and since when.
#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Its name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// Its namespace.
    #[prost(string, optional, tag = "3")]
    pub namespace: Option<String>,
    /// What no other object has or will have.
    #[prost(string, optional, tag = "5")]
    pub uid: Option<String>,
    /// Its version.
    #[prost(string, optional, tag = "6")]
    pub resource_version: Option<String>,
    /// When it was created.
    #[prost(message, optional, tag = "8")]
    pub creation_timestamp: Option<Moment>,
    /// When it is to have gone.
    #[prost(message, optional, tag = "9")]
    pub deletion_timestamp: Option<Moment>,
    /// Its labels.
    #[prost(btree_map = "string, string", tag = "11")]
    #[serde(default, deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    #[prost(btree_map = "string, string", tag = "12")]
    #[serde(default, deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
}

/// A time, to the second.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Moment {
    /// Seconds since 1970.
    #[prost(int64, optional, tag = "1")]
    pub seconds: Option<i64>,
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Time::deserialize(deserializer).map(|time| Self { seconds: Some(time.0.as_second()) })
    }
}

impl Moment {
    fn time(self) -> Option<Time> {
        Timestamp::from_second(self.seconds.unwrap_or_default()).ok().map(Time)
    }
}

impl From<Metadata> for ObjectMeta {
    fn from(part: Metadata) -> Self {
        let Metadata { name, namespace, uid, resource_version, labels, annotations, .. } = part;
        Self {
            name,
            namespace,
            uid,
            resource_version,
            labels: Some(labels),
            annotations: Some(annotations),
            creation_timestamp: part.creation_timestamp.and_then(Moment::time),
            deletion_timestamp: part.deletion_timestamp.and_then(Moment::time),
            ..Self::default()
        }
    }
}

/// Reads a value, of which Go writes `null` where it is empty.
///
/// # Errors
/// It is something else.
pub fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}
