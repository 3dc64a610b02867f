//! Services and their endpoints.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

/// The node that is measured, and its address.
pub(crate) const NODE: &str = "node-1";
pub(crate) const NODE_ADDRESS: &str = "192.0.2.2";
/// The port of services, and that of endpoints.
pub(crate) const PORT: u16 = 80;
pub(crate) const ENDPOINT_PORT: u16 = 8080;

/// As many services, each with so many endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) services: usize,
    pub(crate) endpoints: usize,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} services x {}", self.services, self.endpoints)
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) few: Size,
    /// Of all contestants.
    pub(crate) both: Size,
    pub(crate) large: Size,
    /// Of many endpoints.
    pub(crate) wide: Size,
}

impl Sizes {
    pub(crate) const FULL: Self = Self {
        few: Size { services: 100, endpoints: 2 },
        both: Size { services: 10_000, endpoints: 2 },
        large: Size { services: 44_000, endpoints: 2 },
        wide: Size { services: 5000, endpoints: 50 },
    };

    /// Shows that all works.
    pub(crate) const QUICK: Self = Self {
        few: Size { services: 20, endpoints: 2 },
        both: Size { services: 200, endpoints: 2 },
        large: Size { services: 500, endpoints: 2 },
        wide: Size { services: 50, endpoints: 50 },
    };
}

/// The address of a service.
pub(crate) fn address(number: usize) -> Ipv4Addr {
    let number = number + 100;
    Ipv4Addr::new(10, 96, (number >> 8) as u8, number as u8)
}

/// Those that lead to the one server that is there: early, late, and between, by number as by name, in whichever order a
/// contestant writes them.
pub(crate) fn probed(size: Size) -> BTreeSet<usize> {
    let mut numbers: Vec<_> = (0..size.services).collect();
    let spread = |numbers: &[usize]| -> Vec<usize> {
        (0..=8).map(|it| numbers[(size.services - 1) * it / 8]).collect()
    };
    let by_number = spread(&numbers);
    numbers.sort_by_cached_key(ToString::to_string);
    by_number.into_iter().chain(spread(&numbers)).collect()
}

/// The node, all services and their slices, as the API server stores them, and where.
pub(crate) fn stored(size: Size) -> Vec<(String, Value)> {
    let probed = probed(size);
    let services = (0..size.services).flat_map(|number| {
        let endpoints: Vec<_> = if probed.contains(&number) {
            vec![crate::site::SERVER]
        } else {
            (0..size.endpoints).map(|it| elsewhere(number * size.endpoints + it)).collect()
        };
        let address = address(number);
        let mut service = service(number);
        service["spec"]["clusterIPs"] = json!([address]);
        service["spec"]["ipFamilies"] = json!(["IPv4"]);
        let of_address = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
            "metadata": {"name": address, "labels": {
                "ipaddress.kubernetes.io/ip-family": "IPv4",
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            }},
            "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": name(number)}},
        });
        [
            (format!("services/specs/default/{}", name(number)), service),
            (format!("ipaddresses/{address}"), of_address),
            (format!("endpointslices/default/{}-1", name(number)), slice(number, &endpoints)),
        ]
    });
    let addresses = json!({"addresses": [{"type": "InternalIP", "address": NODE_ADDRESS}]});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}, "status": addresses});
    let objects = [(format!("minions/{NODE}"), node)].into_iter().chain(services);
    objects
        .map(|(key, mut object)| {
            object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
            object["metadata"]["uid"] = json!(format!("uid-{key}"));
            (format!("/registry/{key}"), object)
        })
        .collect()
}

fn name(number: usize) -> String {
    format!("s{number}")
}

/// An endpoint on another node, where nothing is.
fn elsewhere(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 200 + (number >> 16) as u8, (number >> 8) as u8, number as u8)
}

pub(crate) fn service(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name(number), "namespace": "default"},
        "spec": {"clusterIP": address(number), "ports": [{"name": "p", "port": PORT}]},
    })
}

pub(crate) fn slice(number: usize, endpoints: &[Ipv4Addr]) -> Value {
    let endpoint = |it: &Ipv4Addr| json!({"addresses": [it], "nodeName": "node-2", "conditions": {"ready": true}});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": format!("{}-1", name(number)), "namespace": "default",
            "labels": {"kubernetes.io/service-name": name(number)},
        },
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "p", "port": ENDPOINT_PORT, "protocol": "TCP"}],
    })
}
