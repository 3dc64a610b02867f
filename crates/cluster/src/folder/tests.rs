//! What manifests mean, and what their author is told.

mod changes;
mod reading;
mod torn;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Kind, Kinds, Wrong, typed};

/// A pod of namespace `shop`, with an address.
const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: web, labels: {app: web}}
spec: {containers: [{name: web, ports: [{name: http, containerPort: 80}]}]}
status: {phase: Running, podIPs: [{ip: 10.0.0.5}]}
";

/// A policy that denies everything to the pods of `shop`.
const DENY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: deny}
spec: {podSelector: {}}
";

/// Three kinds, of which one has no namespaces, and one may have no fields that are not known.
struct Sample;

/// What is kept of an object.
#[derive(Debug, Clone, PartialEq)]
struct Kept {
    name: String,
    spec: Value,
}

impl Kinds for Sample {
    type Object = Kept;

    const READ: &'static [Kind<Self>] = &[
        Kind { version: "v1", kind: "Pod", is_namespaced: true, read: kept::<Pod> },
        Kind { version: "v1", kind: "Namespace", is_namespaced: false, read: kept::<Namespace> },
        Kind {
            version: "networking.k8s.io/v1",
            kind: "NetworkPolicy",
            is_namespaced: true,
            read: |_, name, value| keep(name, &typed::<NetworkPolicy>(value, Some("spec"))?),
        },
    ];
}

fn kept<T: DeserializeOwned + Serialize>(
    _: &Sample,
    name: &str,
    value: Value,
) -> Result<Kept, Wrong> {
    keep(name, &typed::<T>(value, None)?)
}

fn keep(name: &str, object: &impl Serialize) -> Result<Kept, Wrong> {
    let spec = serde_json::to_value(object).unwrap()["spec"].take();
    Ok(Kept { name: name.to_owned(), spec })
}
