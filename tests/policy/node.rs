//! A node without pods: only what the kernel holds is looked at.

use std::net::IpAddr;

use lab::{Node, by_nftables};
use policyd::attachment::{Attachment, PodReference};
use policyd::dataplane::{Dataplane, Kind, Programs};
use policyd::index::Index;
use policyd::iptables::{Family, Settings};
use policyd::model::NamespacedName;
use policyd::plan::HostInterface;
use runner::OsRunner;
use serde_json::Value;

use crate::objects::{event, uid};

/// Something that happens.
#[derive(Debug, Clone)]
pub(crate) enum Happening {
    /// An object is there, or otherwise than before.
    There(Value),
    /// It is gone.
    Gone(Value),
    /// A pod's container has a network.
    Attached(Attachment),
}

/// A node with rules, and what they are made from.
pub(crate) struct BareNode {
    pub(crate) node: Node,
    pub(crate) index: Index,
    pub(crate) dataplane: Dataplane<OsRunner>,
}

impl BareNode {
    pub(crate) fn new(settings: &Settings) -> Self {
        let node = Node::quick();
        Self { node, index: Index::new("node-1"), dataplane: dataplane(settings) }
    }

    pub(crate) fn happens(&mut self, happening: &Happening) {
        match happening {
            Happening::There(object) => self.index.apply(event(object, true)),
            Happening::Gone(object) => self.index.apply(event(object, false)),
            Happening::Attached(attachment) => self.index.attach(attachment.clone()),
        }
    }

    pub(crate) fn adopt(&mut self) {
        self.index.take_changes();
        let (plan, dataplane) = (self.index.plan(), &mut self.dataplane);
        self.node.enter(|| dataplane.adopt(&plan)).expect("the kernel takes it");
    }

    pub(crate) fn apply(&mut self) {
        let changes = self.index.take_changes();
        if self.dataplane.needs_adoption(&changes) {
            return self.adopt();
        }
        let dataplane = &mut self.dataplane;
        self.node.enter(|| dataplane.apply(&changes)).expect("the kernel takes it");
    }

    pub(crate) fn clean_up(&mut self) {
        let dataplane = &mut self.dataplane;
        self.node.enter(|| dataplane.clean_up()).expect("everything can be removed");
    }

    pub(crate) fn saved(&self) -> String {
        crate::saved::all(&self.node)
    }
}

pub(crate) fn dataplane(settings: &Settings) -> Dataplane<OsRunner> {
    Dataplane::new(kind(), Programs::new(OsRunner, ""), &Family::ALL, settings.clone())
}

/// The backend that is tested.
pub(crate) fn kind() -> Kind {
    if by_nftables() { Kind::Nftables } else { Kind::Iptables }
}

/// The attachment of a pod that has these addresses, by an interface named after it.
pub(crate) fn attachment(pod: &Value, addresses: &[IpAddr], bridge: Option<&str>) -> Attachment {
    let name = |key: &str| pod["metadata"][key].as_str().unwrap().to_owned();
    Attachment {
        container_id: format!("of-{}", uid(pod)),
        pod: Some(PodReference {
            name: NamespacedName { namespace: name("namespace"), name: name("name") },
            uid: Some(uid(pod)),
        }),
        addresses: addresses.iter().copied().collect(),
        interface: Some(HostInterface {
            name: format!("veth-{}-{}", name("namespace"), name("name")),
            bridge: bridge.map(str::to_owned),
        }),
    }
}
