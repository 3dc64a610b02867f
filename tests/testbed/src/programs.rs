//! What comes from outside of the cluster: programs, and manifests of what runs in it.

use std::path::Path;
use std::time::Duration;

use runner::{OsRunner, Program, Runner};
use serde_json::{Value, json};

use crate::bring_up::Parts;
use crate::error::{Error, Result};
use crate::settings::Settings;

/// Those that others made.
const PEERS: [&str; 11] = [
    "agnhost",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
];

/// Installing takes milliseconds; on a busy machine somewhat more.
const INSTALL: Duration = Duration::from_secs(30);

/// Whether all is there that a cluster needs.
///
/// # Errors
/// [`Error::Missing`].
pub(crate) fn check(parts: &Parts) -> Result<()> {
    let there = |path: &Path, remedy| match path.exists() {
        true => Ok(()),
        false => Err(Error::Missing { path: path.to_owned(), remedy }),
    };
    for peer in PEERS {
        there(&parts.peers.join(peer), "`make cluster-setup` builds it")?;
    }
    for image in ["agnhost", "coredns", "pause", "podwire"] {
        let file = parts.images.join(format!("{image}.tar"));
        there(&file, "`make cluster-setup` makes it")?;
    }
    there(&parts.podwire, "`make build` builds it")?;
    there(Path::new("/usr/sbin/runc"), "install the package runc")?;
    there(&parts.conf.join("kubernetes/policyd.yaml"), "it is a part of podwire's source")
}

/// Installs podwire's plugins into a folder, as its users do.
///
/// # Errors
/// podwire fails.
pub(crate) fn install(podwire: &Path, folder: &Path) -> Result<()> {
    let folder = folder.display().to_string();
    let args = ["install", "--bin-dir", &folder];
    let timeout = Some(INSTALL);
    let program = Program { file: podwire.to_owned(), args: &args, timeout, ..Program::default() };
    let output = OsRunner.run(&program)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Failed {
        program: format!("podwire {}", args.join(" ")),
        status: output.status.to_string(),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// The cluster's DNS: two of them, where there are two nodes.
#[must_use]
pub(crate) fn coredns(settings: &Settings) -> String {
    let corefile = ".:53 {\n errors\n health {\n lameduck 1s\n }\n ready\n \
        kubernetes cluster.local in-addr.arpa ip6.arpa {\n fallthrough in-addr.arpa ip6.arpa\n }\n \
        cache 5\n loadbalance\n}\n";
    let dns = settings.family.ranges().iter().map(|it| it.dns).collect::<Vec<_>>();
    let named = |kind: &str, version: &str| {
        json!({"apiVersion": version, "kind": kind,
            "metadata": {"name": "coredns", "namespace": "kube-system"}})
    };
    let with = |mut object: Value, name: &str, value: Value| {
        if let Some(map) = object.as_object_mut() {
            map.insert(name.to_owned(), value);
        }
        object
    };
    let group = "rbac.authorization.k8s.io";
    let rbac = format!("{group}/v1");
    let policy = if dns.len() == 1 { "SingleStack" } else { "RequireDualStack" };
    let items = [
        named("ServiceAccount", "v1"),
        with(named("ConfigMap", "v1"), "data", json!({"Corefile": corefile})),
        with(
            named("ClusterRole", &rbac),
            "rules",
            json!([
                {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
            ]),
        ),
        with(
            with(
                named("ClusterRoleBinding", &rbac),
                "roleRef",
                json!({"apiGroup": group, "kind": "ClusterRole", "name": "coredns"}),
            ),
            "subjects",
            json!([{"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}]),
        ),
        with(
            named("Service", "v1"),
            "spec",
            json!({
            "selector": {"app": "coredns"}, "clusterIP": dns.first(), "clusterIPs": dns,
            "ipFamilyPolicy": policy,
            "ports": [{"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]}),
        ),
        with(named("Deployment", "apps/v1"), "spec", coredns_deployment(settings.nodes.min(2))),
    ];
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

fn coredns_deployment(replicas: u8) -> Value {
    json!({
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "coredns"}},
        "template": {
            "metadata": {"labels": {"app": "coredns"}},
            "spec": {
                "serviceAccountName": "coredns", "dnsPolicy": "Default",
                "priorityClassName": "system-cluster-critical",
                "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": {"app": "coredns"}}}],
                "containers": [{
                    "name": "coredns", "image": "coredns:1.15.0", "args": ["-conf", "/conf/Corefile"],
                    "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 2},
                    "livenessProbe": {"httpGet": {"path": "/health", "port": 8080}},
                    "volumeMounts": [{"name": "conf", "mountPath": "/conf", "readOnly": true}],
                }],
                "volumes": [{"name": "conf", "configMap": {"name": "coredns"}}],
            },
        },
    })
}
