//! The API server as the source of objects.

use std::pin::pin;

use cluster::{Change, Client, Metadata, Part, Watch, forward, or_default};
use futures_util::future::{join3, select};
use k8s_openapi::api::core::v1;
use prost::Message;
use serde::Deserialize;
use tokio::sync::mpsc::Sender;

use crate::index::{Event, Read};
use crate::model::{
    EndpointSlice, EndpointSlicePart, NamespacedName, Problem, Service, ServicePart,
};
use crate::plan::Node;

/// The label that tells a node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// What an administrator should know of a watch. It goes on by itself.
#[derive(Debug, thiserror::Error)]
pub enum Report {
    /// Something failed.
    #[error(transparent)]
    Failed(#[from] cluster::Error),
    /// Something is wrong with an object, and left out.
    #[error("{kind} {name}: {problem}; it is left out")]
    Problem {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: NamespacedName,
        /// What.
        problem: Problem,
    },
    /// This node is unknown.
    #[error("node {0}: there is no such node (is its name the one that the cluster knows it by?)")]
    NoNode(String),
}

/// The API server, asked for Services and what belongs to them.
#[derive(Clone)]
pub struct ApiServer {
    client: Client,
    node: String,
}

/// An object as it was read, with what is wrong with it.
type Told<T> = (Read<T>, Vec<Problem>);

impl ApiServer {
    /// The API server behind `client`. `node` is the name of the node that proxyd runs on.
    #[must_use]
    pub fn new(client: Client, node: impl Into<String>) -> Self {
        Self { client, node: node.into() }
    }

    /// Sends all objects and how they change, until nobody receives them any more. Failures are given to `report`; the
    /// pauses between those of one kind of objects grow to 30 s.
    pub async fn run(&self, events: Sender<Event>, report: impl Fn(&Report)) {
        let (events, report) = (&events, &report);
        let failed = |error| report(&Report::Failed(error));
        let nodes =
            Watch::new(self.client.clone(), node).fields(format!("metadata.name={}", self.node));
        let nodes = forward(nodes, events, failed, |change| match change {
            Change::Listed(nodes) => match nodes.into_iter().next() {
                Some(node) => Some(Event::Node(node)),
                None => {
                    report(&Report::NoNode(self.node.clone()));
                    None
                }
            },
            Change::Applied(node) => Some(Event::Node(node)),
            Change::Removed(_) => None,
        });
        let services = Watch::new(self.client.clone(), service);
        let services = forward(services, events, failed, |change| {
            Some(Event::Services(told("service", change, report)))
        });
        let slices = Watch::new(self.client.clone(), slice);
        let slices = forward(slices, events, failed, |change| {
            Some(Event::Slices(told("endpoint slice", change, report)))
        });
        select(pin!(events.closed()), pin!(join3(nodes, services, slices))).await;
    }
}

fn service(part: ServicePart) -> Told<Service> {
    let name = part.name();
    let (object, problems) = part.read();
    (Read { name, object }, problems)
}

fn slice(part: EndpointSlicePart) -> Told<EndpointSlice> {
    let name = part.name();
    let (object, problems) = part.read();
    (Read { name, object }, problems)
}

/// The objects without their problems, which are told.
fn told<T>(
    kind: &'static str,
    change: Change<Told<T>>,
    report: &impl Fn(&Report),
) -> Change<Read<T>> {
    let tell = |(read, problems): Told<T>| {
        for problem in problems {
            report(&Report::Problem { kind, name: read.name.clone(), problem });
        }
        read
    };
    match change {
        Change::Applied(it) => Change::Applied(tell(it)),
        Change::Removed((read, _)) => Change::Removed(read),
        Change::Listed(all) => Change::Listed(all.into_iter().map(tell).collect()),
    }
}

/// What a [`Node`] is made of. The numbers are those of `k8s.io/api/core/v1/generated.proto`.
#[derive(Clone, PartialEq, Message, Deserialize)]
struct NodePart {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(message, optional, tag = "3")]
    status: Option<NodeStatus>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
struct NodeStatus {
    #[prost(message, repeated, tag = "5")]
    #[serde(default, deserialize_with = "or_default")]
    addresses: Vec<NodeAddress>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
struct NodeAddress {
    #[prost(string, optional, tag = "1")]
    #[serde(rename = "type")]
    kind: Option<String>,
    #[prost(string, optional, tag = "2")]
    address: Option<String>,
}

impl Part for NodePart {
    type Whole = v1::Node;

    fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }
}

/// The node, with its internal addresses: kube-proxy's `--nodeport-addresses primary`.
fn node(part: NodePart) -> Node {
    let metadata = part.metadata.unwrap_or_default();
    let addresses = part.status.map(|it| it.addresses).unwrap_or_default();
    let internal = addresses.into_iter().filter(|it| it.kind.as_deref() == Some("InternalIP"));
    Node {
        name: metadata.name.unwrap_or_default(),
        zone: metadata.labels.get(ZONE).cloned(),
        addresses: internal.filter_map(|it| it.address?.parse().ok()).collect(),
    }
}
