//! The cluster's DNS, as objects: pure.

use serde_json::{Value, json};

use crate::settings::Settings;

/// What it answers: names of the cluster, and no others, as nothing leaves the machine.
const COREFILE: &str = "\
.:53 {
    errors
    health {
        lameduck 1s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        fallthrough in-addr.arpa ip6.arpa
    }
    cache 5
    loadbalance
}
";

const RBAC: &str = "rbac.authorization.k8s.io";

/// All objects of it, as one list; two pods, where there are two nodes.
#[must_use]
pub(crate) fn manifest(settings: &Settings) -> String {
    let items = [account(), role(), binding(), config(), service(settings), deployment(settings)];
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

fn metadata() -> Value {
    json!({"name": "coredns", "namespace": "kube-system"})
}

fn account() -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata()})
}

fn role() -> Value {
    let verbs = ["list", "watch"];
    json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRole", "metadata": {"name": "coredns"},
        "rules": [
            {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": verbs},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": verbs},
        ],
    })
}

fn binding() -> Value {
    json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRoleBinding",
        "metadata": {"name": "coredns"},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "coredns"},
        "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}],
    })
}

fn config() -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(),
        "data": {"Corefile": COREFILE}})
}

fn service(settings: &Settings) -> Value {
    let addresses: Vec<_> = settings.family.ranges().iter().map(|it| it.dns).collect();
    let families = if addresses.len() == 1 { "SingleStack" } else { "RequireDualStack" };
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata(),
        "spec": {
            "selector": {"app": "coredns"}, "ipFamilyPolicy": families,
            "clusterIP": addresses.first(), "clusterIPs": addresses,
            "ports": [{"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP"}],
        },
    })
}

fn deployment(settings: &Settings) -> Value {
    let labels = json!({"app": "coredns"});
    let selector = json!({"matchLabels": labels});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(),
        "spec": {
            "replicas": settings.nodes.min(2), "selector": selector,
            "template": {"metadata": {"labels": labels}, "spec": {
                "serviceAccountName": "coredns", "dnsPolicy": "Default",
                "priorityClassName": "system-cluster-critical",
                "topologySpreadConstraints": [{"maxSkew": 1, "labelSelector": selector,
                    "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}],
                "containers": [container()],
                "volumes": [{"name": "conf", "configMap": {"name": "coredns"}}],
            }},
        },
    })
}

fn container() -> Value {
    json!({
        "name": "coredns", "image": "coredns:1.15.0", "args": ["-conf", "/conf/Corefile"],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 2},
        "livenessProbe": {"httpGet": {"path": "/health", "port": 8080}},
        "volumeMounts": [{"name": "conf", "mountPath": "/conf", "readOnly": true}],
    })
}
