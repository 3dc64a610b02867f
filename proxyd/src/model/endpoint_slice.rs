//! EndpointSlices: where a service's connections may go.

use std::net::IpAddr;

use cluster::{Metadata, Part, or_default};
use k8s_openapi::api::discovery::v1;
use k8s_openapi::jiff::Timestamp;
use prost::Message;
use serde::Deserialize;

use super::{LeftAlone, NamespacedName, Problem, Problems, Protocol, Read, filled};

/// The service that a slice is of.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// When that happened which changed a slice (`EndpointsLastChangeTriggerTime`).
const TRIGGERED: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Some endpoints of a service, of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Its name.
    pub name: NamespacedName,
    /// The name of its service, in the same namespace.
    pub service: String,
    /// Which ports they have.
    pub ports: Vec<EndpointPort>,
    /// They.
    pub endpoints: Vec<Endpoint>,
    /// When what last changed it happened, such as that a pod got ready; where that is told.
    pub triggered: Option<Timestamp>,
}

/// A port that all endpoints of a slice have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointPort {
    /// The name of the service's port that leads there; empty where that has none.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// Whether it is to get connections.
    pub is_ready: bool,
    /// Whether it could serve them, though it is on its end.
    pub is_serving: bool,
    /// Whether it is on its end.
    pub is_terminating: bool,
    /// The node that it is on.
    pub node: Option<String>,
    /// `hints.forZones`: it is for clients of these zones.
    pub for_zones: Vec<String>,
    /// `hints.forNodes`: it is for clients of these nodes.
    pub for_nodes: Vec<String>,
}

/// What an [`EndpointSlice`] is made of. The numbers are those of `k8s.io/api/discovery/v1/generated.proto`.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlicePart {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(message, repeated, tag = "2")]
    #[serde(default, deserialize_with = "or_default")]
    endpoints: Vec<EndpointPart>,
    #[prost(message, repeated, tag = "3")]
    #[serde(default, deserialize_with = "or_default")]
    ports: Vec<PortPart>,
    #[prost(string, optional, tag = "4")]
    address_type: Option<String>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndpointPart {
    #[prost(string, repeated, tag = "1")]
    #[serde(default, deserialize_with = "or_default")]
    addresses: Vec<String>,
    #[prost(message, optional, tag = "2")]
    conditions: Option<Conditions>,
    #[prost(string, optional, tag = "6")]
    node_name: Option<String>,
    #[prost(message, optional, tag = "8")]
    hints: Option<Hints>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message, Deserialize)]
struct Conditions {
    #[prost(bool, optional, tag = "1")]
    ready: Option<bool>,
    #[prost(bool, optional, tag = "2")]
    serving: Option<bool>,
    #[prost(bool, optional, tag = "3")]
    terminating: Option<bool>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hints {
    #[prost(message, repeated, tag = "1")]
    #[serde(default, deserialize_with = "or_default")]
    for_zones: Vec<Named>,
    #[prost(message, repeated, tag = "2")]
    #[serde(default, deserialize_with = "or_default")]
    for_nodes: Vec<Named>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
struct Named {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
struct PortPart {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    protocol: Option<String>,
    #[prost(int32, optional, tag = "3")]
    port: Option<i32>,
}

impl Part for EndpointSlicePart {
    type Whole = v1::EndpointSlice;

    fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }
}

impl EndpointSlicePart {
    /// The slice, if it is of a service and of addresses. And what is wrong with it, which is left out.
    #[must_use]
    pub fn read(self) -> (Read<EndpointSlice>, Vec<Problem>) {
        let metadata = self.metadata.unwrap_or_default();
        let name = NamespacedName::from(&metadata);
        let mut problems = Problems::default();
        problems.name(&name);
        let service = metadata.labels.get(SERVICE_NAME).cloned();
        let is_of_addresses = self.address_type.as_deref() != Some("FQDN");
        let Some(service) = filled(service).filter(|_| is_of_addresses) else {
            return (Read { name, object: Err(LeftAlone::NoAddresses) }, problems.0);
        };
        let read = |(place, part)| endpoint(place, part, &mut problems);
        let endpoints = self.endpoints.into_iter().enumerate().filter_map(read).collect();
        let read = |(place, part)| port(place, part, &mut problems);
        let ports = self.ports.into_iter().enumerate().filter_map(read).collect();
        // Nothing but a metric depends on it: what cannot be read is no problem of anybody's.
        let triggered = metadata.annotations.get(TRIGGERED).and_then(|it| it.parse().ok());
        let slice = EndpointSlice { name: name.clone(), service, ports, endpoints, triggered };
        (Read { name, object: Ok(slice) }, problems.0)
    }
}

fn endpoint(place: usize, part: EndpointPart, problems: &mut Problems) -> Option<Endpoint> {
    // More than one are of the same endpoint, and consumers take the first (discovery/v1, `Endpoint.addresses`).
    let text = part.addresses.first().map(String::as_str).unwrap_or_default();
    let address = problems.reachable(text, || format!("endpoints[{place}].addresses[0]"))?;
    let conditions = part.conditions.unwrap_or_default();
    // What is not told counts as ready, and as serving what is ready (discovery/v1, `EndpointConditions`).
    let is_ready = conditions.ready.unwrap_or(true);
    let hints = part.hints.unwrap_or_default();
    let names = |hints: Vec<Named>| hints.into_iter().filter_map(|it| filled(it.name)).collect();
    Some(Endpoint {
        address,
        is_ready,
        is_serving: conditions.serving.unwrap_or(is_ready),
        is_terminating: conditions.terminating.unwrap_or(false),
        node: filled(part.node_name),
        for_zones: names(hints.for_zones),
        for_nodes: names(hints.for_nodes),
    })
}

/// A port without a number is all of them (discovery/v1, `EndpointPort.port`), which no service's port can lead to.
fn port(place: usize, part: PortPart, problems: &mut Problems) -> Option<EndpointPort> {
    let field = |name: &str| format!("ports[{place}].{name}");
    let protocol = part.protocol.as_deref();
    let wanted = "TCP, UDP or SCTP";
    let named = Protocol::named(protocol);
    let protocol =
        problems.take(named, || field("protocol"), protocol.unwrap_or_default(), wanted)?;
    let port = problems.port(part.port?, || field("port"))?;
    Some(EndpointPort { name: part.name.unwrap_or_default(), protocol, port })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(object: Value) -> (Option<EndpointSlice>, Vec<String>) {
        let part: EndpointSlicePart = serde_json::from_value(object).unwrap();
        let (read, problems) = part.read();
        (read.object.ok(), problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn conditions_that_are_not_told_count_as_ready() {
        let (slice, problems) = read(json!({
            "metadata": {
                "name": "s-1", "labels": {SERVICE_NAME: "s"},
                "annotations": {TRIGGERED: "2026-01-02T03:04:05.5Z"},
            },
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["10.0.0.1"]},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
                {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            ],
            "ports": [{"port": 80}, {"name": "all"}],
        }));
        assert_eq!(problems, [""; 0]);
        let slice = slice.unwrap();
        assert_eq!(slice.triggered, "2026-01-02T03:04:05.5Z".parse().ok());
        let states: Vec<_> = slice
            .endpoints
            .iter()
            .map(|it| (it.is_ready, it.is_serving, it.is_terminating))
            .collect();
        assert_eq!(states, [(true, true, false), (false, false, false), (false, true, true)]);
        let port = EndpointPort { name: String::new(), protocol: Protocol::Tcp, port: 80 };
        assert_eq!(slice.ports, [port]);
    }

    #[test]
    fn names_and_orphans_are_none_of_ours() {
        let name = json!({"name": "s-1", "labels": {SERVICE_NAME: "s"}});
        assert_eq!(read(json!({"metadata": {"name": "s-1"}, "addressType": "IPv4"})).0, None);
        assert_eq!(read(json!({"metadata": name, "addressType": "FQDN"})).0, None);
    }

    #[test]
    fn addresses_that_no_endpoint_can_have_are_told_and_left_out() {
        let wrong = [
            "0.0.0.0",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.1.1",
            "224.0.0.1",
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "ff12::1",
            "::ffff:127.0.0.1",
        ];
        let right = ["10.0.0.1", "239.0.0.1", "224.0.1.1", "fd00::1", "ff05::1", "fec0::1"];
        let endpoints: Vec<_> =
            wrong.iter().chain(&right).map(|it| json!({"addresses": [it]})).collect();
        let (slice, problems) = read(json!({
            "metadata": {"name": "s-1", "labels": {SERVICE_NAME: "s"}}, "endpoints": endpoints,
        }));
        let read: Vec<_> = slice.unwrap().endpoints.iter().map(|it| it.address).collect();
        assert_eq!(read, right.map(|it| it.parse::<IpAddr>().unwrap()));
        let told: Vec<_> = wrong
            .iter()
            .enumerate()
            .map(|(place, it)| {
                format!("endpoints[{place}].addresses[0]: {it:?} is not an address that others reach: it is unspecified, of the loopback or of a link")
            })
            .collect();
        assert_eq!(problems, told);
    }

    #[test]
    fn what_cannot_be_read_is_told_and_left_out() {
        let (slice, problems) = read(json!({
            "metadata": {"name": "s-1", "labels": {SERVICE_NAME: "s"}},
            "endpoints": [{"addresses": []}, {"addresses": ["10.0.0.1"]}],
            "ports": [{"port": 80, "protocol": "x"}, {"port": 70_000}],
        }));
        let slice = slice.unwrap();
        assert_eq!((slice.endpoints.len(), slice.ports.len()), (1, 0));
        assert_eq!(
            problems,
            [
                "endpoints[0].addresses[0]: \"\" is not an address",
                "ports[0].protocol: \"x\" is not TCP, UDP or SCTP",
                "ports[1].port: \"70000\" is not a port (1 to 65535)",
            ]
        );
    }
}
