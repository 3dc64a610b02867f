//! Services and their endpoints.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

/// The node that is measured, and its address.
pub(crate) const NODE: &str = "node-1";
pub(crate) const NODE_ADDRESS: &str = "192.0.2.2";
/// The port of services, and that of endpoints.
pub(crate) const PORT: u16 = 80;
pub(crate) const ENDPOINT_PORT: u16 = 8080;

/// As many services, each with so many endpoints.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) services: usize,
    pub(crate) endpoints: usize,
}

/// The address of a service.
pub(crate) fn address(number: usize) -> Ipv4Addr {
    let number = number + 100;
    Ipv4Addr::new(10, 96, (number >> 8) as u8, number as u8)
}

/// Those that lead to the one server that is there: of whichever place a contestant writes them in, some are early and some
/// late.
pub(crate) fn probed(size: Size) -> [usize; 3] {
    [0, size.services / 2, size.services - 1]
}

/// The node, all services and their slices.
pub(crate) fn objects(size: Size) -> Vec<Value> {
    let addresses = json!({"addresses": [{"type": "InternalIP", "address": NODE_ADDRESS}]});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}, "status": addresses});
    let mut objects = vec![node];
    for number in 0..size.services {
        let endpoints: Vec<_> = if probed(size).contains(&number) {
            vec![crate::site::SERVER]
        } else {
            (0..size.endpoints).map(|it| elsewhere(number * size.endpoints + it)).collect()
        };
        objects.extend([service(number), slice(number, &endpoints)]);
    }
    objects
}

/// An endpoint on another node, where nothing is.
fn elsewhere(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 200 + (number >> 16) as u8, (number >> 8) as u8, number as u8)
}

pub(crate) fn service(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": format!("s{number}"), "namespace": "default"},
        "spec": {"clusterIP": address(number), "ports": [{"name": "p", "port": PORT}]},
    })
}

pub(crate) fn slice(number: usize, endpoints: &[Ipv4Addr]) -> Value {
    let endpoint = |it: &Ipv4Addr| json!({"addresses": [it], "nodeName": "node-2", "conditions": {"ready": true}});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": format!("s{number}-1"), "namespace": "default",
            "labels": {"kubernetes.io/service-name": format!("s{number}")},
        },
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "p", "port": ENDPOINT_PORT, "protocol": "TCP"}],
    })
}
