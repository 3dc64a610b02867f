//! Services and their endpoints as objects.

use proxyd::model::{EndpointSlice, EndpointSlicePart, Read, Service, ServicePart};
use serde_json::{Value, json};

/// The name of the node.
pub(crate) const HERE: &str = "here";
/// The name of another one.
pub(crate) const THERE: &str = "there";

/// A service of this name.
pub(crate) fn service(name: &str, spec: &Value) -> Read<Service> {
    let status = spec.get("ingress").map(|it| json!({"loadBalancer": {"ingress": it}}));
    let metadata = json!({"name": name, "namespace": "n"});
    let object = json!({"metadata": metadata, "spec": spec, "status": status});
    let part: ServicePart = serde_json::from_value(object).expect("a service");
    let (read, problems) = part.read();
    assert!(problems.is_empty(), "{problems:?}");
    read
}

/// Its slice: ports with their numbers and protocols as the service names them, and endpoints.
pub(crate) fn slice(of: &str, ports: &Value, endpoints: &[Value]) -> Read<EndpointSlice> {
    let labels = json!({"kubernetes.io/service-name": of});
    let metadata = json!({"name": of, "namespace": "n", "labels": labels});
    let object = json!({"metadata": metadata, "endpoints": endpoints, "ports": ports});
    let part: EndpointSlicePart = serde_json::from_value(object).expect("a slice");
    let (read, problems) = part.read();
    assert!(problems.is_empty(), "{problems:?}");
    read
}

/// An endpoint that is ready.
pub(crate) fn ready(address: &str, node: &str) -> Value {
    json!({"addresses": [address], "nodeName": node})
}

/// One that is on its end, and serves.
pub(crate) fn leaving(address: &str, node: &str) -> Value {
    let conditions = json!({"ready": false, "serving": true, "terminating": true});
    json!({"addresses": [address], "nodeName": node, "conditions": conditions})
}
