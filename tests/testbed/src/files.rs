//! The configurations of a cluster's programs: pure.

use serde_json::json;

use crate::mounts::SHARED;
use crate::settings::{Settings, node_name};

/// Where containerd tells on its node what it did.
pub const METRICS: &str = "127.0.0.1:1338";

/// The users that the API server knows, by their tokens, which are their names.
#[must_use]
pub(crate) fn tokens(settings: &Settings) -> String {
    let user = |name: &str, groups: &str| format!("{name},{name},{name},\"{groups}\"\n");
    let mut text = user("admin", "system:masters");
    for name in ["system:kube-controller-manager", "system:kube-scheduler", "system:kube-proxy"] {
        text += &user(name, "");
    }
    for number in settings.numbers() {
        text += &user(&format!("system:node:{}", node_name(number)), "system:nodes");
    }
    text
}

/// How one of them reaches the API server.
#[must_use]
pub(crate) fn kubeconfig(settings: &Settings, user: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "testbed",
        "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": user}}],
        "users": [{"name": user, "user": {"token": user}}],
        "clusters": [{"name": "testbed", "cluster": {
            "server": settings.api_server(),
            "certificate-authority": format!("{SHARED}/certs/apiserver.crt"),
        }}],
    })
    .to_string()
}

/// A kubelet's configuration.
#[must_use]
pub(crate) fn kubelet(settings: &Settings) -> String {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        // The API server has no certificate that it could show, and only the cluster is near.
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs", "failCgroupV1": false, "failSwapOn": false,
        // The node's own group has no limits to share out.
        "cgroupsPerQOS": false, "enforceNodeAllocatable": [],
        "clusterDomain": "cluster.local",
        "clusterDNS": [settings.family.first(|it| it.dns.to_owned())],
        "resolvConf": "/etc/resolv.conf",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        // The machine's disk may be as full as it likes.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%",
            "nodefs.inodesFree": "0%", "imagefs.available": "0%", "imagefs.inodesFree": "0%"},
    })
    .to_string()
}

/// kube-proxy's configuration for a node.
#[must_use]
pub(crate) fn kube_proxy(settings: &Settings, number: u8) -> String {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": format!("{SHARED}/kubeconfigs/system:kube-proxy")},
        "hostnameOverride": node_name(number),
        "mode": settings.proxy.to_string(),
        "clusterCIDR": settings.family.list(|it| it.pods.to_owned()),
        // The size of the table of connections is the whole machine's.
        "conntrack": {"maxPerCore": 0, "min": 0},
    })
    .to_string()
}

/// containerd's configuration.
#[must_use]
pub(crate) fn containerd(sandbox_image: &str) -> String {
    format!(
        "version = 3\n\
         [grpc]\n\
         address = '/run/containerd/containerd.sock'\n\
         [metrics]\n\
         address = '{METRICS}'\n\
         [plugins.'io.containerd.cri.v1.images']\n\
         snapshotter = 'overlayfs'\n\
         [plugins.'io.containerd.cri.v1.images'.pinned_images]\n\
         sandbox = '{sandbox_image}'\n\
         [plugins.'io.containerd.cri.v1.runtime']\n\
         disable_apparmor = true\n\
         restrict_oom_score_adj = true\n\
         [plugins.'io.containerd.cri.v1.runtime'.cni]\n\
         bin_dirs = ['/opt/cni/bin']\n\
         conf_dir = '/etc/cni/net.d'\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\n\
         runtime_type = 'io.containerd.runc.v2'\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\n\
         SystemdCgroup = false\n"
    )
}

/// What a node has in `/etc` of its own.
#[must_use]
pub(crate) fn etc(settings: &Settings, number: u8) -> Vec<(&'static str, String)> {
    let name = node_name(number);
    let hosts = format!(
        "127.0.0.1 localhost\n::1 localhost\n{} {name}\n",
        settings.family.first(|it| it.node(number))
    );
    vec![
        ("hosts", hosts),
        ("hostname", format!("{name}\n")),
        // Nobody answers there: what the cluster's own DNS does not know, is not known.
        ("resolv.conf", format!("nameserver {}\n", settings.family.first(|it| it.gateway()))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Backend, Family, Proxy};

    #[test]
    fn every_node_has_a_token_of_its_own() {
        let settings = Settings {
            nodes: 2,
            family: Family::Ipv4,
            proxy: Proxy::Iptables,
            backend: Backend::Auto,
        };
        let node = "system:node:node-2";
        let line = format!("{node},{node},{node},\"system:nodes\"\n");
        assert!(tokens(&settings).ends_with(&line));
        assert!(kubeconfig(&settings, node).contains(r#""token":"system:node:node-2""#));
    }
}
