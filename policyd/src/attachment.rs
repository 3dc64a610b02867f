//! A container's attachment to the node's network, as the CNI plugin tells it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::model::NamespacedName;
use crate::plan::HostInterface;

/// One interface of one container, on the pod's default network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The runtime's id of the container, or of the pod's sandbox.
    pub container_id: String,
    /// The pod, where the runtime tells of one.
    pub pod: Option<PodReference>,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// The host's end of its link; `None` where the plugins' result does not tell.
    pub interface: Option<HostInterface>,
}

/// How a runtime names a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodReference {
    /// Namespace and name.
    pub name: NamespacedName,
    /// `K8S_POD_UID`, where it is given. A static pod's is not that of the object that mirrors it.
    pub uid: Option<String>,
}
