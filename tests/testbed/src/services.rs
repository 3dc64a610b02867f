//! Which programs a node runs, and with which arguments: pure.

use std::path::{Path, PathBuf};

use crate::arguments;
use crate::mounts::SHARED;
use crate::settings::{API_SERVER, Family, Proxy, Settings, node_name};

/// A program that runs for as long as its node does: one that ends is started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    /// Its name, which is that of its file as well.
    pub(crate) name: &'static str,
    /// Its arguments.
    pub(crate) arguments: Vec<String>,
    /// It is started once this file is there.
    pub(crate) after: Option<PathBuf>,
}

/// The programs of a node, by its number.
#[must_use]
pub(crate) fn of_node(settings: &Settings, number: u8) -> Vec<Service> {
    let mut services = if number == 1 { control_plane(settings) } else { Vec::new() };
    services.extend([containerd(), kubelet(settings, number)]);
    // proxyd is a pod.
    services.extend((settings.proxy != Proxy::Proxyd).then(|| kube_proxy(number)));
    services
}

fn control_plane(settings: &Settings) -> Vec<Service> {
    let etcd = arguments::etcd(Path::new("/var/lib/etcd"));
    vec![
        Service { name: "etcd", arguments: etcd, after: None },
        api_server(settings),
        controller_manager(settings),
        with_kubeconfig(
            "kube-scheduler",
            "system:kube-scheduler",
            vec!["--leader-elect=false".to_owned()],
        ),
    ]
}

fn api_server(settings: &Settings) -> Service {
    let family = settings.family;
    let mut arguments = arguments::api_server(Path::new(SHARED), API_SERVER);
    arguments.extend([
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--advertise-address={}", family.first(|it| it.node(1))),
        format!("--service-cluster-ip-range={}", family.list(|it| it.services.to_owned())),
    ]);
    Service { name: "kube-apiserver", arguments, after: None }
}

fn controller_manager(settings: &Settings) -> Service {
    let family = settings.family;
    let mut arguments = vec![
        "--leader-elect=false".to_owned(),
        "--use-service-account-credentials=true".to_owned(),
        format!("--service-account-private-key-file={SHARED}/certs/apiserver.key"),
        format!("--root-ca-file={SHARED}/certs/apiserver.crt"),
        "--allocate-node-cidrs=true".to_owned(),
        format!("--cluster-cidr={}", family.list(|it| it.pods.to_owned())),
        format!("--service-cluster-ip-range={}", family.list(|it| it.services.to_owned())),
    ];
    match family {
        Family::Dual => arguments.extend(family.ranges().iter().map(|it| {
            let which = if it.pods.contains(':') { "ipv6" } else { "ipv4" };
            format!("--node-cidr-mask-size-{which}={}", it.node_mask)
        })),
        Family::Ipv4 | Family::Ipv6 => {
            arguments.push(family.first(|it| format!("--node-cidr-mask-size={}", it.node_mask)));
        }
    }
    let user = "system:kube-controller-manager";
    with_kubeconfig("kube-controller-manager", user, arguments)
}

fn containerd() -> Service {
    let arguments = vec!["--config".to_owned(), format!("{SHARED}/containerd.toml")];
    Service { name: "containerd", arguments, after: None }
}

fn kubelet(settings: &Settings, number: u8) -> Service {
    let name = node_name(number);
    let arguments = vec![
        format!("--config={SHARED}/kubelet.json"),
        format!("--hostname-override={name}"),
        format!("--node-ip={}", settings.family.list(|it| it.node(number))),
    ];
    with_kubeconfig("kubelet", &format!("system:node:{name}"), arguments)
}

fn kube_proxy(number: u8) -> Service {
    let arguments = vec![format!("--config={SHARED}/kube-proxy-{}.json", node_name(number))];
    Service { name: "kube-proxy", arguments, after: Some(certificate()) }
}

/// One that asks the API server, and so can start once that has its certificate.
fn with_kubeconfig(name: &'static str, user: &str, mut arguments: Vec<String>) -> Service {
    arguments.push(format!("--kubeconfig={SHARED}/kubeconfigs/{user}"));
    Service { name, arguments, after: Some(certificate()) }
}

fn certificate() -> PathBuf {
    Path::new(SHARED).join("certs/apiserver.crt")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Backend;

    fn settings(family: Family) -> Settings {
        Settings { nodes: 2, family, proxy: Proxy::Iptables, backend: Backend::Auto }
    }

    #[test]
    fn the_first_node_has_the_control_plane_as_well() {
        let names = |number| -> Vec<_> {
            of_node(&settings(Family::Ipv4), number).iter().map(|it| it.name).collect()
        };
        let every = ["containerd", "kubelet", "kube-proxy"];
        assert_eq!(names(2), every);
        assert_eq!(names(1).get(4..), Some(every.as_slice()));
        let by_proxyd = Settings { proxy: Proxy::Proxyd, ..settings(Family::Ipv4) };
        assert!(of_node(&by_proxyd, 1).iter().all(|it| it.name != "kube-proxy"));
    }

    #[test]
    fn nodes_get_a_range_of_each_family() {
        let of = |family| controller_manager(&settings(family)).arguments.join(" ");
        assert!(of(Family::Ipv6).contains("--node-cidr-mask-size=64"));
        let both = "--node-cidr-mask-size-ipv4=24 --node-cidr-mask-size-ipv6=64";
        assert!(of(Family::Dual).contains(both));
    }
}
