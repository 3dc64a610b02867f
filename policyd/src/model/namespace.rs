//! Namespaces.

use k8s_openapi::api::core::v1;

use super::{Labels, created};

/// The label that the API server gives to every namespace: its name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`: another for each namespace created under one name.
    pub uid: String,
    /// `metadata.labels`, with `kubernetes.io/metadata.name`, which a manifest may lack.
    pub labels: Labels,
    /// When it was created, in seconds since the Unix epoch.
    pub created: i64,
}

impl From<&v1::Namespace> for Namespace {
    fn from(object: &v1::Namespace) -> Self {
        let metadata = &object.metadata;
        let name = metadata.name.clone().unwrap_or_default();
        let mut labels = metadata.labels.clone().unwrap_or_default();
        labels.insert(NAME_LABEL.to_owned(), name.clone());
        Self {
            name,
            uid: metadata.uid.clone().unwrap_or_default(),
            labels,
            created: created(metadata),
        }
    }
}
