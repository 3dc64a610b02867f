//! Policies.

use std::collections::BTreeMap;

use cluster::{Metadata, Part, or_default};
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use prost::Message;
use serde::{Deserialize, Deserializer};

use super::whole;

/// What [`Policy`](crate::model::Policy) is made of.
#[derive(Clone, PartialEq, Message, Deserialize)]
pub(in super::super) struct PolicyPart {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(message, optional, tag = "2")]
    spec: Option<PolicySpec>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PolicySpec {
    #[prost(message, optional, tag = "1")]
    pod_selector: Option<Selector>,
    #[prost(message, repeated, tag = "2")]
    #[serde(default, deserialize_with = "or_default")]
    ingress: Vec<IngressRule>,
    #[prost(message, repeated, tag = "3")]
    #[serde(default, deserialize_with = "or_default")]
    egress: Vec<EgressRule>,
    #[prost(string, repeated, tag = "4")]
    #[serde(default, deserialize_with = "or_default")]
    policy_types: Vec<String>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
struct IngressRule {
    #[prost(message, repeated, tag = "1")]
    #[serde(default, deserialize_with = "or_default")]
    ports: Vec<PolicyPort>,
    #[prost(message, repeated, tag = "2")]
    #[serde(default, deserialize_with = "or_default")]
    from: Vec<Peer>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
struct EgressRule {
    #[prost(message, repeated, tag = "1")]
    #[serde(default, deserialize_with = "or_default")]
    ports: Vec<PolicyPort>,
    #[prost(message, repeated, tag = "2")]
    #[serde(default, deserialize_with = "or_default")]
    to: Vec<Peer>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PolicyPort {
    #[prost(string, optional, tag = "1")]
    protocol: Option<String>,
    #[prost(message, optional, tag = "2")]
    port: Option<NumberOrName>,
    #[prost(int32, optional, tag = "3")]
    end_port: Option<i32>,
}

/// `k8s.io/apimachinery/pkg/util/intstr.IntOrString`.
#[derive(Clone, PartialEq, Message)]
struct NumberOrName {
    /// 0: a number; else a name.
    #[prost(int64, optional, tag = "1")]
    kind: Option<i64>,
    #[prost(int32, optional, tag = "2")]
    number: Option<i32>,
    #[prost(string, optional, tag = "3")]
    name: Option<String>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Peer {
    #[prost(message, optional, tag = "1")]
    pod_selector: Option<Selector>,
    #[prost(message, optional, tag = "2")]
    namespace_selector: Option<Selector>,
    #[prost(message, optional, tag = "3")]
    ip_block: Option<IpBlock>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
struct IpBlock {
    #[prost(string, optional, tag = "1")]
    cidr: Option<String>,
    #[prost(string, repeated, tag = "2")]
    #[serde(default, deserialize_with = "or_default")]
    except: Vec<String>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Selector {
    #[prost(btree_map = "string, string", tag = "1")]
    #[serde(default, deserialize_with = "or_default")]
    match_labels: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "2")]
    #[serde(default, deserialize_with = "or_default")]
    match_expressions: Vec<Requirement>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
struct Requirement {
    #[prost(string, optional, tag = "1")]
    key: Option<String>,
    #[prost(string, optional, tag = "2")]
    operator: Option<String>,
    #[prost(string, repeated, tag = "3")]
    #[serde(default, deserialize_with = "or_default")]
    values: Vec<String>,
}

impl Part for PolicyPart {
    type Whole = networking::NetworkPolicy;

    fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }
}

impl From<PolicyPart> for networking::NetworkPolicy {
    fn from(part: PolicyPart) -> Self {
        let metadata = part.metadata.unwrap_or_default().into();
        Self { metadata, spec: part.spec.map(Into::into) }
    }
}

impl From<PolicySpec> for networking::NetworkPolicySpec {
    fn from(part: PolicySpec) -> Self {
        // Protobuf does not tell an empty list from none, and nor does the API.
        let types = Some(part.policy_types).filter(|types| !types.is_empty());
        Self {
            pod_selector: part.pod_selector.map(Into::into),
            ingress: Some(whole(part.ingress)),
            egress: Some(whole(part.egress)),
            policy_types: types,
        }
    }
}

impl From<IngressRule> for networking::NetworkPolicyIngressRule {
    fn from(part: IngressRule) -> Self {
        Self { from: Some(whole(part.from)), ports: Some(whole(part.ports)) }
    }
}

impl From<EgressRule> for networking::NetworkPolicyEgressRule {
    fn from(part: EgressRule) -> Self {
        Self { to: Some(whole(part.to)), ports: Some(whole(part.ports)) }
    }
}

impl From<PolicyPort> for networking::NetworkPolicyPort {
    fn from(part: PolicyPort) -> Self {
        let port = part.port.map(IntOrString::from);
        Self { protocol: part.protocol, port, end_port: part.end_port }
    }
}

impl From<NumberOrName> for IntOrString {
    fn from(part: NumberOrName) -> Self {
        match part.kind {
            None | Some(0) => Self::Int(part.number.unwrap_or_default()),
            Some(_) => Self::String(part.name.unwrap_or_default()),
        }
    }
}

impl<'de> Deserialize<'de> for NumberOrName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match IntOrString::deserialize(deserializer)? {
            IntOrString::Int(number) => Self { number: Some(number), ..Self::default() },
            IntOrString::String(name) => {
                Self { kind: Some(1), name: Some(name), ..Self::default() }
            }
        })
    }
}

impl From<Peer> for networking::NetworkPolicyPeer {
    fn from(part: Peer) -> Self {
        Self {
            pod_selector: part.pod_selector.map(Into::into),
            namespace_selector: part.namespace_selector.map(Into::into),
            ip_block: part.ip_block.map(Into::into),
        }
    }
}

impl From<IpBlock> for networking::IPBlock {
    fn from(part: IpBlock) -> Self {
        Self { cidr: part.cidr.unwrap_or_default(), except: Some(part.except) }
    }
}

impl From<Selector> for meta::LabelSelector {
    fn from(part: Selector) -> Self {
        Self {
            match_labels: Some(part.match_labels),
            match_expressions: Some(whole(part.match_expressions)),
        }
    }
}

impl From<Requirement> for meta::LabelSelectorRequirement {
    fn from(part: Requirement) -> Self {
        let [key, operator] = [part.key, part.operator].map(Option::unwrap_or_default);
        Self { key, operator, values: Some(part.values) }
    }
}
