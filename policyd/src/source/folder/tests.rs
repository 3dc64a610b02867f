//! What manifests mean, and what their author is told.

mod changes;
mod reading;

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
