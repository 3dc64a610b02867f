//! The API server as the source of objects.

use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use cluster::{Client, NodePart, Watch, forward};
use futures_util::StreamExt;
use futures_util::future::{join4, select};
use futures_util::stream::unfold;
use k8s_openapi::api::core::v1;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::timeout;

use super::{Change, Event, Node};
use crate::chain;
use crate::model::{Namespace, NamespacedName, Pod, Policy};

mod parts;

use parts::{NamespacePart, PodPart, PolicyPart};

/// As many pods are asked for at once.
const MOST_ASKED_AT_ONCE: usize = 16;
/// Who asks does not wait longer.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// The API server, asked for what the policies of one node depend on.
#[derive(Clone)]
pub struct ApiServer {
    client: Client,
    node: String,
}

/// What an administrator should know of a watch. It goes on by itself.
#[derive(Debug, thiserror::Error)]
pub enum Report {
    /// Something failed.
    #[error(transparent)]
    Failed(#[from] cluster::Error),
    /// This node is unknown.
    #[error("node {0}: there is no such node (is its name the one that the cluster knows it by?)")]
    NoNode(String),
}

impl ApiServer {
    /// The API server behind `client`. `node` is the name of the node that policyd runs on.
    #[must_use]
    pub fn new(client: Client, node: impl Into<String>) -> Self {
        Self { client, node: node.into() }
    }

    /// Sends all objects and how they change, until nobody receives them any more. Failures are
    /// given to `report`; the pauses between those of one kind of objects grow to 30 s.
    pub async fn run(&self, events: Sender<Event>, report: impl Fn(&Report)) {
        let (events, report) = (&events, &report);
        let failed = |error| report(&Report::Failed(error));
        let client = || self.client.clone();
        let node = Watch::new(client(), |it: NodePart| Node::from(&v1::Node::from(it)))
            .fields(format!("metadata.name={}", self.node));
        let node = forward(node, events, failed, |change| match change {
            Change::Listed(nodes) => match nodes.into_iter().next() {
                Some(node) => Some(Event::Node(node)),
                None => {
                    report(&Report::NoNode(self.node.clone()));
                    None
                }
            },
            Change::Applied(node) => Some(Event::Node(node)),
            // Its pods, and the policies for them, are there all the same.
            Change::Removed(_) => None,
        });
        let namespaces = Watch::new(client(), |it: NamespacePart| Namespace::from(&it.into()));
        let namespaces =
            forward(namespaces, events, failed, |change| Some(Event::Namespaces(change)));
        let policies = Watch::new(client(), |it: PolicyPart| Policy::from(&it.into()));
        let policies = forward(policies, events, failed, |change| Some(Event::Policies(change)));
        let pods = Watch::new(client(), |it: PodPart| Pod::from(&it.into()));
        let pods = forward(pods, events, failed, |change| Some(Event::Pods(change)));
        select(pin!(events.closed()), pin!(join4(node, namespaces, policies, pods))).await;
    }

    /// Looks up the pods of these names, and sends those that there are, until nobody asks any more.
    /// One that the API server does not tell of in time is left to the watch.
    pub async fn answer(&self, asks: Receiver<NamespacedName>, events: &Sender<Event>) {
        let asks = unfold(asks, async |mut asks| asks.recv().await.map(|name| (name, asks)));
        asks.for_each_concurrent(MOST_ASKED_AT_ONCE, async |name| {
            match timeout(ANSWER_TIME, self.pod(&name)).await {
                // Who does not listen any more has ended.
                Ok(Ok(Some(pod))) => _ = events.send(Event::Answer(pod)).await,
                Ok(Err(error)) => {
                    tracing::warn!(
                        error = chain(&error),
                        "pod {name} cannot be asked for, and is waited for"
                    );
                }
                Ok(Ok(None)) | Err(_) => {}
            }
        })
        .await;
    }

    /// A pod as it is now; `None`: there is none of that name.
    ///
    /// # Errors
    /// When the API server refuses, or does not answer within a minute.
    pub async fn pod(&self, name: &NamespacedName) -> Result<Option<Pod>, cluster::Error> {
        let pod = cluster::get::<v1::Pod>(&self.client, &name.namespace, &name.name).await?;
        Ok(pod.as_ref().map(Pod::from))
    }
}

impl From<&v1::Node> for Node {
    fn from(object: &v1::Node) -> Self {
        let spec = object.spec.as_ref();
        let ranges = spec.into_iter().flat_map(|spec| spec.pod_cidrs.iter().flatten());
        let addresses = object.status.iter().flat_map(|status| status.addresses.iter().flatten());
        // Host names are among them.
        let addresses = addresses.filter_map(|it| it.address.parse::<IpAddr>().ok());
        Self {
            name: object.metadata.name.clone().unwrap_or_default(),
            pod_ranges: ranges.filter_map(|range| range.parse().ok()).collect(),
            addresses: addresses.map(|address| address.to_canonical()).collect(),
        }
    }
}
