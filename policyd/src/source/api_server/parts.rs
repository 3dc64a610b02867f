//! What is read of the objects that there are many of: reading them whole takes longer than all else
//! at a start. Numbers of fields are those of `k8s.io/api/core/v1/generated.proto` and
//! `networking/v1/generated.proto`.

use cluster::{Metadata, Part, or_default};
use k8s_openapi::api::core::v1;
use prost::Message;
use serde::Deserialize;

mod policy;

pub(super) use policy::PolicyPart;

/// What [`Pod`](crate::model::Pod) is made of.
#[derive(Clone, PartialEq, Message, Deserialize)]
pub(super) struct PodPart {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(message, optional, tag = "2")]
    spec: Option<PodSpec>,
    #[prost(message, optional, tag = "3")]
    status: Option<PodStatus>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    #[prost(message, repeated, tag = "2")]
    #[serde(default, deserialize_with = "or_default")]
    containers: Vec<Container>,
    #[prost(string, optional, tag = "10")]
    node_name: Option<String>,
    #[prost(bool, optional, tag = "11")]
    host_network: Option<bool>,
    #[prost(message, repeated, tag = "20")]
    #[serde(default, deserialize_with = "or_default")]
    init_containers: Vec<Container>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    #[prost(message, repeated, tag = "6")]
    #[serde(default, deserialize_with = "or_default")]
    ports: Vec<ContainerPort>,
    #[prost(string, optional, tag = "24")]
    restart_policy: Option<String>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerPort {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(int32, optional, tag = "3")]
    container_port: Option<i32>,
    #[prost(string, optional, tag = "4")]
    protocol: Option<String>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
struct PodStatus {
    #[prost(string, optional, tag = "1")]
    phase: Option<String>,
    // As the API names it, and not as its naming rules have it.
    #[prost(string, optional, tag = "6")]
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[prost(message, repeated, tag = "12")]
    #[serde(rename = "podIPs", default, deserialize_with = "or_default")]
    pod_ips: Vec<PodIp>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
struct PodIp {
    #[prost(string, optional, tag = "1")]
    ip: Option<String>,
}

impl Part for PodPart {
    type Whole = v1::Pod;

    fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }
}

impl From<PodPart> for v1::Pod {
    fn from(part: PodPart) -> Self {
        let spec = part.spec.map(|spec| v1::PodSpec {
            node_name: filled(spec.node_name),
            host_network: spec.host_network,
            containers: whole(spec.containers),
            init_containers: Some(whole(spec.init_containers)),
            ..v1::PodSpec::default()
        });
        let status = part.status.map(|status| v1::PodStatus {
            phase: filled(status.phase),
            pod_ip: filled(status.pod_ip),
            pod_ips: Some(whole(status.pod_ips)),
            ..v1::PodStatus::default()
        });
        Self { metadata: part.metadata.unwrap_or_default().into(), spec, status }
    }
}

impl From<Container> for v1::Container {
    fn from(part: Container) -> Self {
        let restart_policy = filled(part.restart_policy);
        Self { ports: Some(whole(part.ports)), restart_policy, ..Self::default() }
    }
}

impl From<ContainerPort> for v1::ContainerPort {
    fn from(part: ContainerPort) -> Self {
        Self {
            name: filled(part.name),
            container_port: part.container_port.unwrap_or_default(),
            protocol: filled(part.protocol),
            ..Self::default()
        }
    }
}

impl From<PodIp> for v1::PodIP {
    fn from(part: PodIp) -> Self {
        Self { ip: part.ip.unwrap_or_default() }
    }
}

/// What [`Namespace`](crate::model::Namespace) is made of.
#[derive(Clone, PartialEq, Message, Deserialize)]
pub(super) struct NamespacePart {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
}

impl Part for NamespacePart {
    type Whole = v1::Namespace;

    fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }
}

impl From<NamespacePart> for v1::Namespace {
    fn from(part: NamespacePart) -> Self {
        Self { metadata: part.metadata.unwrap_or_default().into(), ..Self::default() }
    }
}

/// In protobuf Go tells an absent text as an empty one.
fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// Each of them as the whole that it is a part of.
fn whole<P, W: From<P>>(parts: Vec<P>) -> Vec<W> {
    parts.into_iter().map(W::from).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::networking::v1 as networking;
    use serde_json::{Value, from_value, json};

    use super::*;
    use crate::model::{Pod, Policy};

    fn metadata() -> Value {
        json!({"name": "a", "namespace": "x", "uid": "1", "resourceVersion": "7", "generation": 3,
            "creationTimestamp": "2026-11-01T00:00:00Z", "deletionTimestamp": "2026-11-01T00:00:09Z",
            "labels": {"app": "a"}, "annotations": {"kubernetes.io/config.mirror": "hash"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "2"}],
            "managedFields": [{"manager": "m", "operation": "Apply", "fieldsV1": {"f:spec": {}}}]})
    }

    #[test]
    fn all_that_the_model_needs_of_a_pod_is_read() {
        let container = |restarts: Value| {
            json!({"name": "c", "image": "i", "env": [{"name": "E"}],
            "restartPolicy": restarts, "volumeMounts": [],
            "ports": [{"name": "http", "containerPort": 80, "protocol": "UDP", "hostPort": 1},
                {"name": "bad", "containerPort": 0}]})
        };
        let whole = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata(),
            "spec": {"nodeName": "n", "hostNetwork": true, "containers": [container(Value::Null)],
                "initContainers": [container(json!("Always")), container(Value::Null)],
                "volumes": [{"name": "v", "emptyDir": {}}]},
            "status": {"phase": "Failed", "podIP": "10.0.0.1", "hostIP": "192.0.2.1",
                "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}, {"ip": "nowhere"}],
                "conditions": [{"type": "Ready", "status": "True"}]}});
        for object in
            [whole, json!({"metadata": metadata(), "spec": null}), json!({"metadata": {}})]
        {
            let part = from_value::<PodPart>(object.clone()).unwrap();
            assert_eq!(PodPart::decode(&*part.encode_to_vec()).unwrap(), part);
            let part: v1::Pod = part.into();
            let mut whole: v1::Pod = from_value(object).unwrap();
            assert_eq!(Pod::from(&part), Pod::from(&whole));
            assert_eq!(part.metadata.resource_version, whole.metadata.resource_version.take());
        }
    }

    #[test]
    fn all_that_the_model_needs_of_a_node_is_read() {
        let object = json!({"metadata": metadata(),
            "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00::/64"]},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"},
                {"type": "Hostname", "address": "n"}], "images": [{"names": ["i"]}]}});
        let part: v1::Node = from_value::<cluster::NodePart>(object.clone()).unwrap().into();
        let whole: v1::Node = from_value(object).unwrap();
        assert_eq!(crate::source::Node::from(&part), crate::source::Node::from(&whole));
        let member = crate::node_network::Member::from;
        assert_eq!(member(&part), member(&whole));
    }

    #[test]
    fn what_go_leaves_empty_is_absent() {
        let empty = || Some(String::new());
        let ports =
            vec![ContainerPort { name: empty(), container_port: Some(80), protocol: empty() }];
        let containers = vec![Container { ports, restart_policy: empty() }];
        let spec = PodSpec { containers, node_name: empty(), ..PodSpec::default() };
        let status = PodStatus { phase: empty(), pod_ip: empty(), pod_ips: Vec::new() };
        let part = PodPart { spec: Some(spec), status: Some(status), ..PodPart::default() };
        let pod = Pod::from(&v1::Pod::from(part));
        assert_eq!((pod.ports, pod.node, pod.addresses.len()), (vec![], None, 0));
        assert_eq!(pod.problems, []);
    }

    #[test]
    fn all_that_the_model_needs_of_a_policy_is_read() {
        let object = json!({"metadata": metadata(), "spec": {
            "podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]},
            "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
                "ports": [{"port": "http"}, {"port": 1, "endPort": 2}]}]}});
        let part = from_value::<PolicyPart>(object.clone()).unwrap();
        assert_eq!(PolicyPart::decode(&*part.encode_to_vec()).unwrap(), part);
        let part: networking::NetworkPolicy = part.into();
        let whole: networking::NetworkPolicy = from_value(object).unwrap();
        assert_eq!(Policy::from(&part), Policy::from(&whole));
    }
}
