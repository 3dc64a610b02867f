//! Pods.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1;

use super::error::{Defect, Problem};
use super::port::{Protocol, port_number};
use super::{Error, Labels, NamespacedName, created};

/// A port that a container of the pod gives a name to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedPort {
    /// Its name. Containers may share one, also for different numbers.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub number: u16,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub name: NamespacedName,
    /// `metadata.uid`: another for each pod created under one name.
    pub uid: String,
    /// `metadata.labels`.
    pub labels: Labels,
    /// The node it runs on: `spec.nodeName`.
    pub node: Option<String>,
    /// Whether it shares the node's network: `spec.hostNetwork`.
    pub host_network: bool,
    /// Whether all its containers have ended for good: phase `Succeeded` or `Failed`. The
    /// addresses in its status may be another pod's by then.
    pub finished: bool,
    /// Whether it is being deleted. Until it is finished it still has its network.
    pub terminating: bool,
    /// Whether it only shows a static pod, which the node knows by another uid: it has the annotation
    /// `kubernetes.io/config.mirror`.
    pub is_mirror: bool,
    /// When it was created, in seconds since the Unix epoch.
    pub created: i64,
    /// Its addresses of both families, from the status; none until it has a network.
    pub addresses: BTreeSet<IpAddr>,
    /// The named ports of its containers and sidecars.
    pub ports: Vec<NamedPort>,
    /// What is wrong with the object: addresses and ports that are not in the lists above.
    pub problems: Vec<Error>,
}

impl Pod {
    /// Whether policy knows it by its addresses, as a subject and as a peer: not when it is
    /// finished, nor when it has the node's addresses, which are not its own.
    #[must_use]
    pub const fn is_endpoint(&self) -> bool {
        !self.host_network && !self.finished
    }

    /// Whether one of its containers calls this port by this name.
    #[must_use]
    pub fn names_port(&self, name: &str, protocol: Protocol, number: u16) -> bool {
        self.ports
            .iter()
            .any(|port| port.name == name && port.protocol == protocol && port.number == number)
    }
}

impl From<&v1::Pod> for Pod {
    fn from(object: &v1::Pod) -> Self {
        let metadata = &object.metadata;
        let name = NamespacedName::from(metadata);
        let annotations = metadata.annotations.as_ref();
        let spec = object.spec.as_ref();
        let status = object.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        let mut defects = Vec::new();
        let addresses = status.map_or_else(BTreeSet::new, |status| addresses(status, &mut defects));
        let ports = spec.map_or_else(Vec::new, |spec| ports(spec, &mut defects));
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            labels: metadata.labels.clone().unwrap_or_default(),
            node: spec.and_then(|spec| spec.node_name.clone()),
            host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
            finished: matches!(phase, Some("Succeeded" | "Failed")),
            terminating: metadata.deletion_timestamp.is_some(),
            is_mirror: annotations.is_some_and(|it| it.contains_key("kubernetes.io/config.mirror")),
            created: created(metadata),
            addresses,
            ports,
            problems: defects.into_iter().map(|defect| defect.of("Pod", &name)).collect(),
            name,
        }
    }
}

fn addresses(status: &v1::PodStatus, defects: &mut Vec<Defect>) -> BTreeSet<IpAddr> {
    let single = status.pod_ip.iter().map(|text| ("status.podIP".to_owned(), text));
    let list = status.pod_ips.iter().flatten().enumerate();
    let list = list.map(|(index, ip)| (format!("status.podIPs[{index}].ip"), &ip.ip));
    let mut addresses = BTreeSet::new();
    for (path, text) in single.chain(list).filter(|(_, text)| !text.is_empty()) {
        match text.parse::<IpAddr>() {
            Ok(address) => _ = addresses.insert(address.to_canonical()),
            Err(_) => defects.push(Defect::new(path, Problem::Address(text.clone()))),
        }
    }
    addresses
}

/// Of containers and sidecars, that is init containers that go on running. Others have ended by
/// the time that the pod serves; the API server resolves the ports of Services in the same way.
fn ports(spec: &v1::PodSpec, defects: &mut Vec<Defect>) -> Vec<NamedPort> {
    let containers = spec.containers.iter().enumerate();
    let containers = containers.map(|(index, it)| (format!("spec.containers[{index}]"), it));
    let sidecars = spec.init_containers.iter().flatten().enumerate();
    let sidecars = sidecars
        .filter(|(_, container)| container.restart_policy.as_deref() == Some("Always"))
        .map(|(index, it)| (format!("spec.initContainers[{index}]"), it));
    let mut ports = Vec::new();
    for (path, container) in containers.chain(sidecars) {
        for (index, port) in container.ports.iter().flatten().enumerate() {
            let Some(name) = &port.name else { continue };
            match named_port(name, port) {
                Ok(port) => ports.push(port),
                Err(defect) => defects.push(defect.within(&format!("{path}.ports[{index}]"))),
            }
        }
    }
    ports
}

fn named_port(name: &str, port: &v1::ContainerPort) -> Result<NamedPort, Defect> {
    let number = port_number(port.container_port)
        .map_err(|problem| Defect::new("containerPort", problem))?;
    let protocol = Protocol::or_default(port.protocol.as_deref())
        .map_err(|problem| Defect::new("protocol", problem))?;
    Ok(NamedPort { name: name.to_owned(), protocol, number })
}
