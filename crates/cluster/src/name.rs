//! Names of objects.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::Metadata;

/// The namespace of what names none, as in a manifest.
const DEFAULT: &str = "default";

/// The name of a namespaced object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespacedName {
    /// `metadata.namespace`; `default` where it is absent, as in a manifest.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl NamespacedName {
    fn of(namespace: Option<&String>, name: Option<&String>) -> Self {
        let namespace = namespace.map_or(DEFAULT, String::as_str).to_owned();
        Self { namespace, name: name.cloned().unwrap_or_default() }
    }
}

impl From<&ObjectMeta> for NamespacedName {
    fn from(metadata: &ObjectMeta) -> Self {
        Self::of(metadata.namespace.as_ref(), metadata.name.as_ref())
    }
}

impl From<&Metadata> for NamespacedName {
    fn from(metadata: &Metadata) -> Self {
        // protobuf has empty texts for what is absent.
        let namespace = metadata.namespace.as_ref().filter(|it| !it.is_empty());
        Self::of(namespace, metadata.name.as_ref())
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}
