//! What is read of the objects that there are many of: decoding them whole takes longer than all else
//! at a start.

use cluster::{Metadata, Part};
use k8s_openapi::api::core::v1;
use k8s_openapi::api::networking::v1 as networking;
use serde::Deserialize;

/// What [`Pod`](crate::model::Pod) is made of.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct PodPart {
    metadata: Metadata,
    spec: Option<PodSpec>,
    status: Option<PodStatus>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    node_name: Option<String>,
    host_network: Option<bool>,
    containers: Option<Vec<Container>>,
    init_containers: Option<Vec<Container>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    ports: Option<Vec<v1::ContainerPort>>,
    restart_policy: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStatus {
    phase: Option<String>,
    // As the API names it, and not as its naming rules have it.
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<v1::PodIP>>,
}

impl Part for PodPart {
    type Whole = v1::Pod;
}

impl From<PodPart> for v1::Pod {
    fn from(part: PodPart) -> Self {
        let spec = part.spec.map(|spec| v1::PodSpec {
            node_name: spec.node_name,
            host_network: spec.host_network,
            containers: containers(spec.containers.unwrap_or_default()),
            init_containers: spec.init_containers.map(containers),
            ..v1::PodSpec::default()
        });
        let status = part.status.map(|status| v1::PodStatus {
            phase: status.phase,
            pod_ip: status.pod_ip,
            pod_ips: status.pod_ips,
            ..v1::PodStatus::default()
        });
        Self { metadata: part.metadata.into(), spec, status }
    }
}

fn containers(parts: Vec<Container>) -> Vec<v1::Container> {
    let whole = |part: Container| v1::Container {
        ports: part.ports,
        restart_policy: part.restart_policy,
        ..v1::Container::default()
    };
    parts.into_iter().map(whole).collect()
}

/// What [`Policy`](crate::model::Policy) is made of.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct PolicyPart {
    metadata: Metadata,
    spec: Option<networking::NetworkPolicySpec>,
}

impl Part for PolicyPart {
    type Whole = networking::NetworkPolicy;
}

impl From<PolicyPart> for networking::NetworkPolicy {
    fn from(part: PolicyPart) -> Self {
        Self { metadata: part.metadata.into(), spec: part.spec }
    }
}

#[cfg(test)]
mod tests {
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
            let part: v1::Pod = from_value::<PodPart>(object.clone()).unwrap().into();
            let mut whole: v1::Pod = from_value(object).unwrap();
            assert_eq!(Pod::from(&part), Pod::from(&whole));
            assert_eq!(part.metadata.resource_version, whole.metadata.resource_version.take());
        }
    }

    #[test]
    fn all_that_the_model_needs_of_a_policy_is_read() {
        let object = json!({"metadata": metadata(), "spec": {
            "podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]},
            "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
                "ports": [{"port": "http"}, {"port": 1, "endPort": 2}]}]}});
        let part: networking::NetworkPolicy =
            from_value::<PolicyPart>(object.clone()).unwrap().into();
        let whole: networking::NetworkPolicy = from_value(object).unwrap();
        assert_eq!(Policy::from(&part), Policy::from(&whole));
    }
}
