//! A.2: ports.

use serde_json::{Value, json};

use super::{from_x, row, to_x};
use crate::cluster::nine;
use crate::objects::{pod, with_addresses};
use crate::prober::Protocol::{Echo, Sctp, Tcp, Udp};
use crate::table::{Kind, Row};

const MANY: &[Kind] = &[
    (Tcp, 53),
    (Tcp, 80),
    (Tcp, 81),
    (Tcp, 443),
    (Tcp, 8080),
    (Udp, 53),
    (Udp, 80),
    (Sctp, 53),
    (Sctp, 80),
    (Echo, 0),
];
const EDGES: &[Kind] = &[
    (Tcp, 1),
    (Tcp, 7999),
    (Tcp, 8000),
    (Tcp, 8080),
    (Tcp, 8100),
    (Tcp, 8101),
    (Tcp, 65535),
    (Udp, 8000),
    (Sctp, 8100),
    (Sctp, 8101),
];

pub(super) fn rows() -> Vec<Row> {
    let from = |ports: Value| to_x(json!([{"ports": ports}]));
    let to = |ports: Value| from_x(json!([{"ports": ports}]));
    let all = |namespace: &str| json!({"namespaceSelector": {"matchLabels": {"ns": namespace}}});
    let mut rows = numbers(from, to);
    rows.extend([
        row("a name is each pod's own number", to(json!([{"port": "http"}]))),
        row(
            "a name with peers",
            from_x(json!([{"to": [all("z"), all("y")], "ports": [{"port": "http"}]}])),
        ),
        row("a name for ingress", from(json!([{"port": "http"}]))),
        row("a name of one protocol", to(json!([{"port": "dns", "protocol": "UDP"}]))),
        row("a name of SCTP", from(json!([{"port": "signal", "protocol": "SCTP"}]))),
        row("a name that nobody has matches nothing", from(json!([{"port": "nobody"}]))),
        row(
            "a name of another protocol matches nothing",
            to(json!([{"port": "http", "protocol": "UDP"}])),
        ),
        row(
            "a name and a block",
            from_x(json!([
            {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": "http"}]}])),
        ),
        row("A.5.5 a name on a sidecar", from(json!([{"port": "metrics"}]))),
        row("a name on a container that only prepares", from(json!([{"port": "setup"}]))),
        row(
            "names and numbers",
            to(json!([{"port": "http"}, {"port": 443}, {"port": "dns", "protocol": "UDP"}])),
        ),
    ]);
    let mut twice = with_addresses(pod("x/a"), &nine(0));
    twice["spec"]["containers"].as_array_mut().unwrap().push(json!(
        {"name": "second", "ports": [{"name": "http", "containerPort": 8080}]}));
    rows.push(row(
        "A.4.15 a name of two containers: both numbers",
        [from(json!([{"port": "http"}])).to_vec(), vec![twice]].concat(),
    ));
    rows.into_iter().map(|it| it.by(MANY)).chain(edges(from, to)).collect()
}

fn numbers(from: impl Fn(Value) -> [Value; 1], to: impl Fn(Value) -> [Value; 1]) -> Vec<Row> {
    vec![
        row("a number, protocol absent: TCP", from(json!([{"port": 80}]))),
        row("of UDP", to(json!([{"port": 53, "protocol": "UDP"}]))),
        row("of SCTP", from(json!([{"port": 80, "protocol": "SCTP"}]))),
        row("port absent: all of the protocol", to(json!([{"protocol": "SCTP"}]))),
        row("port and protocol absent: all of TCP", from(json!([{}]))),
        row(
            "several of several protocols",
            to(json!([
            {"port": 80}, {"port": 53, "protocol": "UDP"}, {"port": 443}, {"protocol": "SCTP", "port": 53}])),
        ),
        row(
            "peers and ports: and",
            to_x(json!([
            {"from": [{"podSelector": {}}], "ports": [{"port": 80}]},
            {"from": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}], "ports": [{"port": 81}]}])),
        ),
    ]
}

fn edges(from: impl Fn(Value) -> [Value; 1], to: impl Fn(Value) -> [Value; 1]) -> Vec<Row> {
    let many: Vec<_> = (0..40).map(|it| json!({"port": 7961 + it})).collect();
    let ranges: Vec<_> =
        (0..20).map(|it| json!({"port": 7000 + 50 * it, "endPort": 7001 + 50 * it})).collect();
    vec![
        row("a range and its ends", from(json!([{"port": 8000, "endPort": 8100}]))),
        row("a range of SCTP", to(json!([{"port": 8000, "endPort": 8100, "protocol": "SCTP"}]))),
        row("a range up to the last port", to(json!([{"port": 8100, "endPort": 65535}]))),
        row("all ports as a range", from(json!([{"port": 1, "endPort": 65535}]))),
        row("a range of one", from(json!([{"port": 8000, "endPort": 8000}]))),
        row(
            "a range that ends before it begins allows nothing",
            from(json!([{"port": 8100, "endPort": 8000}])),
        ),
        row("more than 15 ports", from(json!(many))),
        row("more than 15 ports' worth of ranges", to(json!(ranges))),
        row(
            "ranges that overlap",
            from(json!([
            {"port": 7999, "endPort": 8080}, {"port": 8000, "endPort": 8100}])),
        ),
    ]
    .into_iter()
    .map(|it| it.by(EDGES))
    .collect()
}
