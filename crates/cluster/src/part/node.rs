//! Nodes, of which much is of no use to most: the images that they have alone is longer than the rest.

use k8s_openapi::api::core::v1;
use prost::Message;
use serde::Deserialize;

use super::{Metadata, Part, or_default};

/// The part of a [`v1::Node`] that says who it is, where its pods are, how it is reached, and what keeps others from it. The
/// numbers are those of `k8s.io/api/core/v1/generated.proto`.
#[derive(Clone, PartialEq, Message, Deserialize)]
pub struct NodePart {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(message, optional, tag = "2")]
    spec: Option<Spec>,
    #[prost(message, optional, tag = "3")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
struct Spec {
    #[prost(message, repeated, tag = "5")]
    #[serde(default, deserialize_with = "or_default")]
    taints: Vec<Taint>,
    #[prost(string, repeated, tag = "7")]
    #[serde(rename = "podCIDRs", default, deserialize_with = "or_default")]
    pod_cidrs: Vec<String>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
struct Taint {
    #[prost(string, optional, tag = "1")]
    key: Option<String>,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
    #[prost(string, optional, tag = "3")]
    effect: Option<String>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
struct Status {
    #[prost(message, repeated, tag = "5")]
    #[serde(default, deserialize_with = "or_default")]
    addresses: Vec<Address>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
struct Address {
    #[prost(string, optional, tag = "1")]
    #[serde(rename = "type")]
    kind: Option<String>,
    #[prost(string, optional, tag = "2")]
    address: Option<String>,
}

impl Part for NodePart {
    type Whole = v1::Node;

    fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }
}

impl From<NodePart> for v1::Node {
    fn from(part: NodePart) -> Self {
        let spec = part.spec.map(|spec| v1::NodeSpec {
            pod_cidrs: Some(spec.pod_cidrs),
            taints: Some(spec.taints.into_iter().map(v1::Taint::from).collect()),
            ..v1::NodeSpec::default()
        });
        let status = part.status.map(|status| v1::NodeStatus {
            addresses: Some(status.addresses.into_iter().map(v1::NodeAddress::from).collect()),
            ..v1::NodeStatus::default()
        });
        Self { metadata: part.metadata.unwrap_or_default().into(), spec, status }
    }
}

impl From<Taint> for v1::Taint {
    fn from(Taint { key, value, effect }: Taint) -> Self {
        let [key, effect] = [key, effect].map(Option::unwrap_or_default);
        Self { key, value, effect, time_added: None }
    }
}

impl From<Address> for v1::NodeAddress {
    fn from(part: Address) -> Self {
        let [type_, address] = [part.kind, part.address].map(Option::unwrap_or_default);
        Self { type_, address }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn what_is_read_is_the_same_in_either_encoding_and_of_the_whole() {
        let object = json!({
            "metadata": {"name": "n", "uid": "1", "resourceVersion": "7", "labels": {"a": "b"}},
            "spec": {
                "podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00::/64"],
                "taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}],
            },
            "status": {"images": [{"names": ["i"]}], "addresses": [
                {"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "n"},
            ]},
        });
        let part: NodePart = from_value(object.clone()).unwrap();
        assert_eq!(NodePart::decode(&*part.encode_to_vec()), Ok(part.clone()));
        let (part, whole): (v1::Node, v1::Node) = (part.into(), from_value(object).unwrap());
        let spec = |it: &v1::Node| {
            let spec = it.spec.clone().unwrap();
            (spec.pod_cidrs, spec.taints)
        };
        assert_eq!(spec(&part), spec(&whole));
        let addresses = |it: &v1::Node| it.status.clone().unwrap().addresses;
        assert_eq!(addresses(&part), addresses(&whole));
        assert_eq!(
            (part.metadata.name, part.metadata.labels),
            (whole.metadata.name, whole.metadata.labels)
        );
        let empty: v1::Node = from_value::<NodePart>(json!({"metadata": {}})).unwrap().into();
        assert_eq!((empty.spec, empty.status), (None, None));
    }
}
