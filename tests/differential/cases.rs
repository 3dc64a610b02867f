//! The table of cases, by subject.

mod arguments;
mod bandwidth;
mod bridge;
mod bridge_conflicts;
mod bridge_routes;
mod decoding;
mod environment;
mod firewall;
mod host_local;
mod host_local_errors;
mod loopback;
mod masquerade;
mod portmap;
mod ptp;
mod sbr;
mod static_ipam;
mod tuning;
mod verbs;
mod versions;

use serde_json::{Value, json};

use crate::case::Case;

/// All cases.
pub(crate) fn all() -> Vec<Case> {
    [
        arguments::cases(),
        bridge::cases(),
        bridge_conflicts::cases(),
        bridge_routes::cases(),
        decoding::cases(),
        environment::cases(),
        host_local::cases(),
        host_local_errors::cases(),
        loopback::cases(),
        masquerade::cases(),
        portmap::cases(),
        firewall::cases(),
        ptp::cases(),
        sbr::cases(),
        static_ipam::cases(),
        tuning::cases(),
        bandwidth::cases(),
        verbs::cases(),
        versions::cases(),
    ]
    .concat()
}

/// A bridge `br0` with addresses from host-local.
fn bridge(name: &str, keys: Value) -> Case {
    let conf = json!({"bridge": "br0", "ipam": v4()});
    Case::new(&format!("bridge/{name}"), "bridge", conf).with(keys)
}

/// A bridge `br0` without addresses.
fn bridge_l2(name: &str, keys: Value) -> Case {
    bridge(name, json!({"ipam": null})).with(keys)
}

/// A routed veth with addresses from host-local.
fn ptp(name: &str, keys: Value) -> Case {
    Case::new(&format!("ptp/{name}"), "ptp", json!({"ipam": v4()})).with(keys)
}

/// host-local alone; `ipam` is its configuration without the type.
fn host_local(name: &str, ipam: Value) -> Case {
    let mut conf = json!({"ipam": {"type": "host-local"}});
    crate::case::merge(&mut conf["ipam"], &ipam);
    Case::new(&format!("host-local/{name}"), "host-local", conf)
}

/// static alone; `ipam` is its configuration without the type.
fn static_ipam(name: &str, ipam: Value) -> Case {
    let mut conf = json!({"ipam": {"type": "static"}});
    crate::case::merge(&mut conf["ipam"], &ipam);
    Case::new(&format!("static/{name}"), "static", conf)
}

/// sbr on a pod of a bridge.
fn sbr(name: &str, keys: Value) -> Case {
    let case = Case::new(&format!("sbr/{name}"), "sbr", keys);
    case.on(json!({"type": "bridge", "isDefaultGateway": true, "ipam": v4()}))
}

/// bandwidth on a pod of ptp.
fn bandwidth(name: &str, keys: Value) -> Case {
    let case = Case::new(&format!("bandwidth/{name}"), "bandwidth", keys);
    case.on(json!({"type": "ptp", "ipam": v4()}))
}

/// tuning on a pod of a bridge.
fn tuning(name: &str, keys: Value) -> Case {
    let case = Case::new(&format!("tuning/{name}"), "tuning", keys);
    case.on(json!({"type": "bridge", "isDefaultGateway": true, "ipam": v4()}))
}

fn v4() -> Value {
    json!({"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]]})
}

fn v6() -> Value {
    json!({"type": "host-local", "ranges": [[{"subnet": "fd00:1::/64"}]]})
}

fn dual() -> Value {
    json!({"type": "host-local",
           "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]})
}

/// Addresses that the static plugin gives.
fn fixed(addresses: Value) -> Value {
    json!({"type": "static", "addresses": addresses})
}
