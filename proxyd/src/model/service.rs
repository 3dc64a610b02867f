//! Services.

use std::net::IpAddr;

use cluster::{Metadata, Part, or_default};
use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1;
use prost::Message;
use serde::Deserialize;

use super::{LeftAlone, NamespacedName, Problem, Problems, Protocol, Read, filled};

/// Another program is to serve what has this label (`pkg/proxy/apis`).
const SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// Nobody is to.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// How long a client comes to the same endpoint where nothing is said (`DefaultClientIPServiceAffinitySeconds`).
const AFFINITY_SECONDS: u32 = 10_800;
/// The longest that the API server takes (`MaxClientIPServiceAffinitySeconds`).
const LONGEST_AFFINITY_SECONDS: u32 = 86_400;

/// A service that has addresses of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: NamespacedName,
    /// When it was created, in seconds since 1970; 0 where it is not told, as in a manifest.
    pub created: i64,
    /// Its ports.
    pub ports: Vec<Port>,
    /// `spec.clusterIPs`: one of a family at most.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// Those of `status.loadBalancer.ingress` to which packets come as they were sent (`ipMode` VIP).
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges`: who may reach those; `None`: everybody.
    pub source_ranges: Option<Vec<IpNetwork>>,
    /// `internalTrafficPolicy: Local`: what comes to the cluster's address goes to endpoints of the node alone.
    pub is_internal_local: bool,
    /// `externalTrafficPolicy: Local`: what comes from outside does.
    pub is_external_local: bool,
    /// `sessionAffinity: ClientIP`: for so many seconds a client comes to the same endpoint.
    pub affinity: Option<u32>,
    /// Where load balancers ask whether this node has endpoints of it (`spec.healthCheckNodePort`).
    pub health_check_port: Option<u16>,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name; empty where it has none.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
    /// The port of nodes that leads there as well.
    pub node_port: Option<u16>,
}

/// What a [`Service`] is made of. The numbers are those of `k8s.io/api/core/v1/generated.proto`.
#[derive(Clone, PartialEq, Message, Deserialize)]
pub struct ServicePart {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(message, optional, tag = "2")]
    spec: Option<Spec>,
    #[prost(message, optional, tag = "3")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[prost(message, repeated, tag = "1")]
    #[serde(default, deserialize_with = "or_default")]
    ports: Vec<PortPart>,
    #[prost(string, optional, tag = "3")]
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[prost(string, repeated, tag = "18")]
    #[serde(rename = "clusterIPs", default, deserialize_with = "or_default")]
    cluster_ips: Vec<String>,
    #[prost(string, optional, tag = "4")]
    #[serde(rename = "type")]
    kind: Option<String>,
    #[prost(string, repeated, tag = "5")]
    #[serde(rename = "externalIPs", default, deserialize_with = "or_default")]
    external_ips: Vec<String>,
    #[prost(string, optional, tag = "7")]
    session_affinity: Option<String>,
    #[prost(string, repeated, tag = "9")]
    #[serde(default, deserialize_with = "or_default")]
    load_balancer_source_ranges: Vec<String>,
    #[prost(string, optional, tag = "11")]
    external_traffic_policy: Option<String>,
    #[prost(int32, optional, tag = "12")]
    health_check_node_port: Option<i32>,
    #[prost(message, optional, tag = "14")]
    session_affinity_config: Option<AffinityConfig>,
    #[prost(string, optional, tag = "22")]
    internal_traffic_policy: Option<String>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortPart {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    protocol: Option<String>,
    #[prost(int32, optional, tag = "3")]
    port: Option<i32>,
    #[prost(int32, optional, tag = "5")]
    node_port: Option<i32>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
struct AffinityConfig {
    #[prost(message, optional, tag = "1")]
    #[serde(rename = "clientIP")]
    client_ip: Option<ClientIp>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientIp {
    #[prost(int32, optional, tag = "1")]
    timeout_seconds: Option<i32>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[prost(message, optional, tag = "1")]
    load_balancer: Option<LoadBalancer>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
struct LoadBalancer {
    #[prost(message, repeated, tag = "1")]
    #[serde(default, deserialize_with = "or_default")]
    ingress: Vec<Ingress>,
}

#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ingress {
    #[prost(string, optional, tag = "1")]
    ip: Option<String>,
    #[prost(string, optional, tag = "3")]
    ip_mode: Option<String>,
}

impl Part for ServicePart {
    type Whole = v1::Service;

    fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }
}

impl ServicePart {
    /// The service, if it is one that podwire is to serve: neither headless nor another name for something else, and
    /// nobody else's. And what is wrong with it, which is left out.
    #[must_use]
    pub fn read(self) -> (Read<Service>, Vec<Problem>) {
        let (metadata, spec) = (self.metadata.unwrap_or_default(), self.spec.unwrap_or_default());
        let name = NamespacedName::from(&metadata);
        let mut problems = Problems::default();
        problems.name(&name);
        let cluster_ips = cluster_ips(&spec, &mut problems);
        let label = [SERVICE_PROXY_NAME, HEADLESS]
            .into_iter()
            .find_map(|label| metadata.labels.get(label).map(|value| (label, value.clone())));
        let left_alone = match label {
            _ if spec.kind.as_deref() == Some("ExternalName") => Some(LeftAlone::ExternalName),
            Some((label, value)) => {
                let mut addresses = cluster_ips.clone();
                addresses
                    .extend(spec.external_ips.iter().filter_map(|it| it.parse::<IpAddr>().ok()));
                Some(LeftAlone::Label { label, value, addresses })
            }
            None if cluster_ips.is_empty() => Some(LeftAlone::Headless),
            None => None,
        };
        if let Some(left_alone) = left_alone {
            return (Read { name, object: Err(left_alone) }, problems.0);
        }
        let is_load_balancer = spec.kind.as_deref() == Some("LoadBalancer");
        let is_local = |policy: &Option<String>| policy.as_deref() == Some("Local");
        let external_ips = external_ips(&spec.external_ips, &mut problems);
        let ports = ports(spec.ports, &mut problems);
        let load_balancer_ips = match self.status.and_then(|it| it.load_balancer) {
            Some(it) if is_load_balancer => load_balancer_ips(it, &mut problems),
            _ => Vec::new(),
        };
        let is_external_local = is_local(&spec.external_traffic_policy);
        let health_check_port = spec
            .health_check_node_port
            .filter(|it| *it != 0 && is_load_balancer && is_external_local)
            .and_then(|it| problems.port(it, || "spec.healthCheckNodePort".to_owned()));
        let service = Service {
            name: name.clone(),
            created: metadata.creation_timestamp.and_then(|it| it.seconds).unwrap_or_default(),
            ports,
            cluster_ips,
            external_ips,
            load_balancer_ips,
            source_ranges: source_ranges(&spec.load_balancer_source_ranges, &mut problems),
            is_internal_local: is_local(&spec.internal_traffic_policy),
            is_external_local,
            affinity: affinity(
                spec.session_affinity.as_deref(),
                spec.session_affinity_config,
                &mut problems,
            ),
            health_check_port,
        };
        (Read { name, object: Ok(service) }, problems.0)
    }
}

/// Those of `clusterIPs`, or `clusterIP` where a manifest has only that; none of a headless service.
fn cluster_ips(spec: &Spec, problems: &mut Problems) -> Vec<IpAddr> {
    let single = spec.cluster_ip.iter();
    let texts: Vec<&String> = if spec.cluster_ips.is_empty() {
        single.collect()
    } else {
        spec.cluster_ips.iter().collect()
    };
    let texts = texts.into_iter().enumerate().filter(|(_, it)| !matches!(it.as_str(), "" | "None"));
    let read = |(place, text): (usize, &String)| {
        problems.reachable(text, || format!("spec.clusterIPs[{place}]"))
    };
    texts.filter_map(read).collect()
}

fn external_ips(texts: &[String], problems: &mut Problems) -> Vec<IpAddr> {
    let read = |(place, text): (usize, &String)| {
        problems.reachable(text, || format!("spec.externalIPs[{place}]"))
    };
    texts.iter().enumerate().filter_map(read).collect()
}

fn load_balancer_ips(told: LoadBalancer, problems: &mut Problems) -> Vec<IpAddr> {
    // Those of mode Proxy come as from the balancer, which sends to node ports.
    let is_virtual = |it: &Ingress| it.ip_mode.as_deref() != Some("Proxy");
    let texts = told.ingress.into_iter().enumerate().filter(|(_, it)| is_virtual(it));
    let read = |(place, it): (usize, Ingress)| {
        let text = filled(it.ip)?;
        problems.reachable(&text, || format!("status.loadBalancer.ingress[{place}].ip"))
    };
    texts.filter_map(read).collect()
}

/// Who may reach a load balancer's addresses. Where nothing of what is said can be read, nobody.
fn source_ranges(texts: &[String], problems: &mut Problems) -> Option<Vec<IpNetwork>> {
    if texts.is_empty() {
        return None;
    }
    let read = |(place, text): (usize, &String)| {
        let range = text.trim().parse::<IpNetwork>().ok();
        let range = range.and_then(|it| IpNetwork::new(it.network(), it.prefix()).ok());
        let field = || format!("spec.loadBalancerSourceRanges[{place}]");
        problems.take(range, field, text, "a range of addresses")
    };
    Some(texts.iter().enumerate().filter_map(read).collect())
}

fn ports(parts: Vec<PortPart>, problems: &mut Problems) -> Vec<Port> {
    let read = |(place, part): (usize, PortPart), problems: &mut Problems| {
        let field = |name: &str| format!("spec.ports[{place}].{name}");
        let protocol = part.protocol.as_deref();
        let wanted = "TCP, UDP or SCTP";
        let named = Protocol::named(protocol);
        Some(Port {
            protocol: problems.take(
                named,
                || field("protocol"),
                protocol.unwrap_or_default(),
                wanted,
            )?,
            port: problems.port(part.port.unwrap_or_default(), || field("port"))?,
            node_port: part
                .node_port
                .filter(|it| *it != 0)
                .and_then(|it| problems.port(it, || field("nodePort"))),
            name: part.name.unwrap_or_default(),
        })
    };
    let mut ports: Vec<Port> = Vec::new();
    for (place, part) in parts.into_iter().enumerate() {
        let Some(port) = read((place, part), problems) else { continue };
        let is_other = |it: &Port| (it.port, it.protocol) != (port.port, port.protocol);
        let own = ports.iter().all(is_other).then_some(());
        let (value, wanted) = (
            format!("{}/{}", port.port, port.protocol),
            "a port that no other has with its protocol",
        );
        if problems.take(own, || format!("spec.ports[{place}]"), value, wanted).is_some() {
            ports.push(port);
        }
    }
    ports
}

/// For how many seconds a client comes to the same endpoint. What cannot be said is told; then a kind that is none counts as none, a time
/// that is too long as the longest, and any other as if nothing was said.
fn affinity(
    kind: Option<&str>,
    config: Option<AffinityConfig>,
    problems: &mut Problems,
) -> Option<u32> {
    let remembers = match kind {
        None | Some("" | "None") => Some(false),
        Some("ClientIP") => Some(true),
        Some(_) => None,
    };
    let text = kind.unwrap_or_default();
    let wanted = "None or ClientIP";
    if !problems.take(remembers, || "spec.sessionAffinity".to_owned(), text, wanted)? {
        return None;
    }
    let Some(told) = config.and_then(|it| it.client_ip).and_then(|it| it.timeout_seconds) else {
        return Some(AFFINITY_SECONDS);
    };
    let seconds = u32::try_from(told).ok().filter(|it| *it > 0);
    let right = seconds.filter(|it| *it <= LONGEST_AFFINITY_SECONDS);
    let field = || "spec.sessionAffinityConfig.clientIP.timeoutSeconds".to_owned();
    problems.take(right, field, told, "a number of seconds (1 to 86400)");
    Some(seconds.unwrap_or(AFFINITY_SECONDS).min(LONGEST_AFFINITY_SECONDS))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(spec: Value) -> (Option<Service>, Vec<String>) {
        let object = json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec});
        let part: ServicePart = serde_json::from_value(object).unwrap();
        let (read, problems) = part.read();
        (read.object.ok(), problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn headless_services_and_other_names_are_none_of_ours() {
        let ports = json!([{"port": 80}]);
        for (spec, wanted) in [
            (
                json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": ports}),
                LeftAlone::Headless,
            ),
            (json!({"clusterIP": "", "ports": ports}), LeftAlone::Headless),
            (
                json!({"type": "ExternalName", "externalName": "x", "clusterIP": "10.0.0.1"}),
                LeftAlone::ExternalName,
            ),
        ] {
            let object = json!({"metadata": {"name": "s"}, "spec": spec});
            let part: ServicePart = serde_json::from_value(object).unwrap();
            let (read, problems) = part.read();
            assert_eq!((read.object, problems), (Err(wanted), vec![]));
        }
        for label in [SERVICE_PROXY_NAME, HEADLESS] {
            let part: ServicePart = serde_json::from_value(json!({
                "metadata": {"name": "s", "labels": {label: "x"}},
                "spec": {"clusterIP": "10.0.0.1", "externalIPs": ["192.0.2.1"], "ports": ports},
            }))
            .unwrap();
            let left_alone = LeftAlone::Label {
                label,
                value: "x".to_owned(),
                addresses: ["10.0.0.1", "192.0.2.1"].map(|it| it.parse().unwrap()).into(),
            };
            assert_eq!(part.read().0.object, Err(left_alone));
        }
    }

    #[test]
    fn defaults_are_those_of_kubernetes() {
        let (service, problems) = read(json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}));
        let port = Port { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port: None };
        let expected = Service {
            name: NamespacedName { namespace: "n".to_owned(), name: "s".to_owned() },
            created: 0,
            ports: vec![port],
            cluster_ips: vec!["10.0.0.1".parse().unwrap()],
            external_ips: vec![],
            load_balancer_ips: vec![],
            source_ranges: None,
            is_internal_local: false,
            is_external_local: false,
            affinity: None,
            health_check_port: None,
        };
        assert_eq!((service, problems), (Some(expected), vec![]));
        let (service, _) = read(json!({"clusterIP": "10.0.0.1", "sessionAffinity": "ClientIP"}));
        assert_eq!(service.unwrap().affinity, Some(10_800));
    }

    #[test]
    fn what_cannot_be_read_is_told_and_left_out() {
        let (service, problems) = read(json!({
            "clusterIPs": ["10.0.0.1", "fd00::x", "fe80::1"],
            "ports": [
                {"port": 0}, {"port": 80, "protocol": "ICMP"}, {"port": 81, "nodePort": 70_000},
                {"name": "b", "port": 81}, {"port": 81, "protocol": "UDP"},
            ],
            "externalIPs": ["here", "127.0.0.1", "192.0.2.1"],
            "loadBalancerSourceRanges": ["10.0.0.7/8", "all"],
        }));
        let service = service.unwrap();
        let ports: Vec<_> = service.ports.iter().map(|it| (it.port, it.protocol)).collect();
        assert_eq!(ports, [(81, Protocol::Tcp), (81, Protocol::Udp)]);
        assert_eq!(service.external_ips, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert_eq!((service.ports[0].node_port, service.ports[0].name.as_str()), (None, ""));
        assert_eq!(service.source_ranges, Some(vec!["10.0.0.0/8".parse().unwrap()]));
        assert_eq!(
            problems,
            [
                "spec.clusterIPs[1]: \"fd00::x\" is not an address",
                "spec.clusterIPs[2]: \"fe80::1\" is not an address that others reach: it is unspecified, of the loopback or of a link",
                "spec.externalIPs[0]: \"here\" is not an address",
                "spec.externalIPs[1]: \"127.0.0.1\" is not an address that others reach: it is unspecified, of the loopback or of a link",
                "spec.ports[0].port: \"0\" is not a port (1 to 65535)",
                "spec.ports[1].protocol: \"ICMP\" is not TCP, UDP or SCTP",
                "spec.ports[2].nodePort: \"70000\" is not a port (1 to 65535)",
                "spec.ports[3]: \"81/TCP\" is not a port that no other has with its protocol",
                "spec.loadBalancerSourceRanges[1]: \"all\" is not a range of addresses",
            ]
        );
    }

    #[test]
    fn how_clients_are_remembered_is_told_where_it_cannot_be() {
        let told = |kind: &str, seconds: Value| {
            let config = json!({"clientIP": {"timeoutSeconds": seconds}});
            let (service, problems) = read(json!({
                "clusterIP": "10.0.0.1", "sessionAffinity": kind, "sessionAffinityConfig": config,
            }));
            (service.unwrap().affinity, problems)
        };
        let wrong = |seconds: i32| {
            let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
            vec![format!("{field}: \"{seconds}\" is not a number of seconds (1 to 86400)")]
        };
        for (seconds, counts) in [(0, 10_800), (-1, 10_800), (86_401, 86_400)] {
            assert_eq!(told("ClientIP", json!(seconds)), (Some(counts), wrong(seconds)));
        }
        for (kind, seconds, counts) in [
            ("ClientIP", json!(1), Some(1)),
            ("ClientIP", json!(86_400), Some(86_400)),
            ("ClientIP", Value::Null, Some(10_800)),
            ("None", json!(0), None),
            ("", json!(0), None),
        ] {
            assert_eq!(told(kind, seconds), (counts, vec![]));
        }
        let wanted = "spec.sessionAffinity: \"Foo\" is not None or ClientIP";
        assert_eq!(told("Foo", json!(600)), (None, vec![wanted.to_owned()]));
    }

    #[test]
    fn names_are_such_as_the_api_server_takes() {
        let part: ServicePart = serde_json::from_value(json!({
            "metadata": {"name": "we\"b\n1", "namespace": "N"},
            "spec": {"clusterIP": "::ffff:10.0.0.1"},
        }))
        .unwrap();
        let (read, problems) = part.read();
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            problems,
            [
                "metadata.namespace: \"N\" is not a name (253 of a-z, 0-9, - and . at most)",
                "metadata.name: \"we\\\"b\\n1\" is not a name (253 of a-z, 0-9, - and . at most)",
            ]
        );
        // However it is written, this is of IPv4.
        assert_eq!(read.object.unwrap().cluster_ips, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn addresses_of_a_balancer_that_nobody_reaches_are_told_and_left_out() {
        let addresses =
            ["127.0.0.1", "0.0.0.0", "169.254.0.1", "224.0.0.5", "::1", "ff02::1", "192.0.2.1"];
        let ingress = addresses.map(|it| json!({"ip": it}));
        let part: ServicePart = serde_json::from_value(json!({
            "metadata": {"name": "s"},
            "spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1"},
            "status": {"loadBalancer": {"ingress": ingress}},
        }))
        .unwrap();
        let (read, problems) = part.read();
        let wanted = ["192.0.2.1".parse::<IpAddr>().unwrap()];
        assert_eq!(read.object.unwrap().load_balancer_ips, wanted);
        let told: Vec<_> = problems.into_iter().map(|it| (it.field, it.value)).collect();
        let wanted = addresses.into_iter().take(6).enumerate().map(|(place, text)| {
            (format!("status.loadBalancer.ingress[{place}].ip"), text.to_owned())
        });
        assert_eq!(told, wanted.collect::<Vec<_>>());
    }

    #[test]
    fn a_load_balancer_that_is_a_proxy_has_no_address_here() {
        let part: ServicePart = serde_json::from_value(json!({
            "metadata": {"name": "s"},
            "spec": {
                "type": "LoadBalancer", "clusterIP": "10.0.0.1", "externalTrafficPolicy": "Local",
                "healthCheckNodePort": 30_000,
            },
            "status": {"loadBalancer": {"ingress": [
                {"ip": "192.0.2.1", "ipMode": "VIP"}, {"ip": "192.0.2.2", "ipMode": "Proxy"},
                {"ip": "192.0.2.3"}, {"hostname": "x"},
            ]}},
        }))
        .unwrap();
        let service = part.read().0.object.unwrap();
        let wanted = ["192.0.2.1", "192.0.2.3"].map(|it| it.parse::<IpAddr>().unwrap());
        assert_eq!(service.load_balancer_ips, wanted);
        assert_eq!(service.health_check_port, Some(30_000));
    }
}
