//! The API server as the source of objects.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::pin::pin;

use cluster::{Change, Client, NodePart, Watch, forward};
use futures_util::future::{join3, select};
use k8s_openapi::api::core::v1;
use tokio::sync::mpsc::Sender;

use crate::index::Event;
use crate::model::{EndpointSlicePart, NamespacedName, Problem, Read, ServicePart};
use crate::plan::Node;

/// The taint of a node that is to be deleted (`ToBeDeletedTaint`).
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";
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
    /// It has no ranges of pods.
    #[error(
        "node {0}: it has no ranges of pods yet (spec.podCIDRs), by which pods are to be known"
    )]
    NoPodRanges(String),
}

/// The API server, asked for Services and what belongs to them.
#[derive(Clone)]
pub struct ApiServer {
    client: Client,
    node: String,
    addresses: BTreeSet<IpAddr>,
    knows_pods_by_node: bool,
}

/// An object as it was read, with what is wrong with it.
type Told<T> = (Read<T>, Vec<Problem>);

impl ApiServer {
    /// The API server behind `client`. `node` is the name of the node that proxyd runs on, which has these addresses instead
    /// of those of their families that the cluster tells.
    #[must_use]
    pub fn new(client: Client, node: impl Into<String>, addresses: BTreeSet<IpAddr>) -> Self {
        Self { client, node: node.into(), addresses, knows_pods_by_node: false }
    }

    /// The same, where pods are known by the ranges of the node's own: it is told of only while it has some.
    #[must_use]
    pub fn knowing_pods_by_node(self) -> Self {
        Self { knows_pods_by_node: true, ..self }
    }

    /// Sends all objects and how they change, until nobody receives them any more. Failures are given to `report`; the
    /// pauses between those of one kind of objects grow to 30 s. `eligible` is told whether load balancers are to send
    /// new connections by the node: not by one that is on its end (KEP-3836).
    pub async fn run(
        &self,
        events: Sender<Event>,
        report: impl Fn(&Report),
        eligible: impl Fn(bool),
    ) {
        let (events, report) = (&events, &report);
        let failed = |error| report(&Report::Failed(error));
        let nodes =
            Watch::new(self.client.clone(), node).fields(format!("metadata.name={}", self.node));
        let mut known = BTreeSet::new();
        let nodes = forward(nodes, events, failed, |change| {
            let (told, is_listed) = match change {
                Change::Listed(nodes) => (nodes.into_iter().next(), true),
                Change::Applied(node) => (Some(node), false),
                Change::Removed(_) => (None, false),
            };
            eligible(told.as_ref().is_some_and(|(_, is_eligible)| *is_eligible));
            if told.is_none() && is_listed {
                report(&Report::NoNode(self.node.clone()));
            }
            let node = self.with_ranges(told?.0);
            if node.is_none() {
                report(&Report::NoPodRanges(self.node.clone()));
            }
            let node = keeping_addresses(node?, &mut known);
            Some(Event::Node(with_addresses(node, &self.addresses)))
        });
        let services = Watch::new(self.client.clone(), ServicePart::read);
        let services = forward(services, events, failed, |change| {
            Some(Event::Services(told("service", change, report)))
        });
        let slices = Watch::new(self.client.clone(), EndpointSlicePart::read);
        let slices = forward(slices, events, failed, |change| {
            Some(Event::Slices(told("endpoint slice", change, report)))
        });
        select(pin!(events.closed()), pin!(join3(nodes, services, slices))).await;
    }

    /// The node, with the ranges of its pods if they are wanted; `None`: they are, and it has none.
    fn with_ranges(&self, node: Node) -> Option<Node> {
        if !self.knows_pods_by_node {
            return Some(Node { pod_ranges: None, ..node });
        }
        node.pod_ranges.as_ref().is_some_and(|it| !it.is_empty()).then_some(node)
    }
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

/// The node, with its internal addresses: kube-proxy's `--nodeport-addresses primary`; and whether it stays.
fn node(part: NodePart) -> (Node, bool) {
    let object = v1::Node::from(part);
    let spec = object.spec.unwrap_or_default();
    let is_to_go = spec.taints.iter().flatten().any(|it| it.key == TO_BE_DELETED);
    let pod_ranges = spec.pod_cidrs.iter().flatten().filter_map(|it| it.parse().ok()).collect();
    let stays = object.metadata.deletion_timestamp.is_none() && !is_to_go;
    let addresses = object.status.unwrap_or_default().addresses.unwrap_or_default();
    let internal = addresses.iter().filter(|it| it.type_ == "InternalIP");
    let node = Node {
        name: object.metadata.name.unwrap_or_default(),
        zone: object.metadata.labels.unwrap_or_default().get(ZONE).cloned(),
        addresses: internal.filter_map(|it| it.address.parse().ok()).collect(),
        pod_ranges: Some(pod_ranges),
    };
    (node, stays)
}

/// The node, which keeps the addresses that were known while it is told of without any: its object is made anew, and gets them later.
fn keeping_addresses(mut node: Node, known: &mut BTreeSet<IpAddr>) -> Node {
    if node.addresses.is_empty() {
        node.addresses.clone_from(known);
    } else {
        known.clone_from(&node.addresses);
    }
    node
}

/// The node with these addresses, instead of those of their families.
fn with_addresses(node: Node, given: &BTreeSet<IpAddr>) -> Node {
    let is_given = |is_ipv4| given.iter().any(|it| it.is_ipv4() == is_ipv4);
    let told = node.addresses.into_iter().filter(|it| !is_given(it.is_ipv4()));
    Node { addresses: told.chain(given.iter().copied()).collect(), ..node }
}

#[cfg(test)]
mod tests {
    use ipnetwork::IpNetwork;
    use serde_json::{Value, json};

    use super::*;

    fn read(metadata: &Value, taints: &[&str]) -> (Node, bool) {
        let taints: Vec<_> = taints.iter().map(|it| json!({"key": it, "effect": "x"})).collect();
        let addresses = json!([
            {"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "a"},
            {"type": "ExternalIP", "address": "198.51.100.1"}, {"type": "InternalIP", "address": "2001:db8::1"},
        ]);
        let object = json!({
            "metadata": metadata, "spec": {"taints": taints}, "status": {"addresses": addresses},
        });
        node(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_node_has_a_zone_and_internal_addresses() {
        let wanted = Node {
            name: "a".to_owned(),
            zone: Some("z".to_owned()),
            addresses: ["192.0.2.1", "2001:db8::1"].map(|it| it.parse().unwrap()).into(),
            pod_ranges: Some(vec![]),
        };
        let metadata = json!({"name": "a", "labels": {"topology.kubernetes.io/zone": "z"}});
        assert_eq!(read(&metadata, &["other"]), (wanted, true));
    }

    #[test]
    fn a_node_without_addresses_keeps_those_that_were_known() {
        let mut known = BTreeSet::new();
        let mut told = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|it| it.parse().unwrap()).collect();
            let node = keeping_addresses(Node { addresses, ..Node::default() }, &mut known);
            node.addresses.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(told(&[]), [""; 0]);
        assert_eq!(told(&["192.0.2.1", "2001:db8::1"]), ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(told(&[]), ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(told(&["192.0.2.7"]), ["192.0.2.7"]);
        assert_eq!(told(&[]), ["192.0.2.7"]);
    }

    #[test]
    fn addresses_that_are_given_take_the_place_of_those_of_their_families() {
        let (node, _) = read(&json!({"name": "a"}), &[]);
        let with = |given: &[&str]| {
            let given = given.iter().map(|it| it.parse().unwrap()).collect();
            let addresses = with_addresses(node.clone(), &given).addresses;
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(with(&[]), ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(with(&["192.0.2.7", "192.0.2.8"]), ["192.0.2.7", "192.0.2.8", "2001:db8::1"]);
        assert_eq!(with(&["2001:db8::7"]), ["192.0.2.1", "2001:db8::7"]);
    }

    #[test]
    fn a_node_has_ranges_of_pods_once_it_was_given_some() {
        let object = json!({
            "metadata": {"name": "a"}, "spec": {"podCIDRs": ["10.1.0.0/24", "fd00:1::/64"]},
        });
        let ranges = node(serde_json::from_value(object).unwrap()).0.pod_ranges.unwrap();
        assert_eq!(
            ranges,
            ["10.1.0.0/24", "fd00:1::/64"].map(|it| it.parse::<IpNetwork>().unwrap())
        );
    }

    #[test]
    fn a_node_that_is_to_be_deleted_is_on_its_end() {
        let metadata = json!({"name": "a"});
        assert!(read(&metadata, &[]).1);
        assert!(!read(&metadata, &["other", TO_BE_DELETED]).1);
        let metadata = json!({"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert!(!read(&metadata, &[]).1);
    }
}
