//! NetworkPolicies of each kind on real pods: who reaches whom, by what.

use std::net::{IpAddr, SocketAddr};
use std::thread;

use e2e::objects::{DATAGRAMS, PORT, server_on, special};
use e2e::traffic::answers;
use e2e::{Bed, Pod, await_that};
use serde_json::{Value, json};

use super::restarts::BACK;

/// Two namespaces, and pods in them on the first and the last node.
const PODS: [(&str, &str); 4] = [("left", "a"), ("left", "b"), ("right", "a"), ("right", "b")];

/// What a policy for the pods `a` of namespace `right` leaves of the ways to `right/a`: by TCP, and by
/// UDP, from whom.
type Row = (&'static str, Value, &'static [&'static str], &'static [&'static str]);

const ALL: &[&str] = &["left/a", "left/b", "right/b"];

/// What `spec` is beside the selector of `right/a`. The addresses of `left/a` are `OWN`.
fn rows() -> Vec<Row> {
    let a = json!({"matchLabels": {"app": "a"}});
    let left = json!({"matchLabels": {"kubernetes.io/metadata.name": "left"}});
    let from = |peer: Value| json!({"ingress": [{"from": [peer]}]});
    let ports = |ports: Value| json!({"ingress": [{"ports": ports}]});
    let all = json!([{"cidr": "0.0.0.0/0"}, {"cidr": "::/0"}]);
    let but_left_a = json!([
        {"cidr": "0.0.0.0/0", "except": ["OWN4"]}, {"cidr": "::/0", "except": ["OWN6"]}
    ]);
    let blocks = |blocks: &Value| {
        let peers: Vec<_> =
            blocks.as_array().unwrap().iter().map(|it| json!({"ipBlock": it})).collect();
        json!({"ingress": [{"from": peers}]})
    };
    let not_b = json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["b"]}]});
    vec![
        ("nobody", json!({}), &[], &[]),
        ("everybody", json!({"ingress": [{}]}), ALL, ALL),
        ("pods of its namespace", from(json!({"podSelector": {}})), &["right/b"], &["right/b"]),
        (
            "a namespace",
            from(json!({"namespaceSelector": left})),
            &["left/a", "left/b"],
            &["left/a", "left/b"],
        ),
        (
            "pods of a namespace",
            from(json!({"namespaceSelector": left, "podSelector": a})),
            &["left/a"],
            &["left/a"],
        ),
        (
            "an expression",
            from(json!({"namespaceSelector": {}, "podSelector": not_b})),
            &["left/a"],
            &["left/a"],
        ),
        ("a block", blocks(&all), ALL, ALL),
        ("a block but one", blocks(&but_left_a), &["left/b", "right/b"], &["left/b", "right/b"]),
        ("a port", ports(json!([{"port": PORT}])), ALL, &[]),
        ("a port of UDP", ports(json!([{"port": DATAGRAMS, "protocol": "UDP"}])), &[], ALL),
        ("a port's name", ports(json!([{"port": "web"}])), ALL, &[]),
        ("ports", ports(json!([{"port": PORT - 10, "endPort": PORT}])), ALL, &[]),
        ("other ports", ports(json!([{"port": PORT + 1, "endPort": PORT + 10}])), &[], &[]),
    ]
}

pub(crate) fn policies_of_each_kind_decide(bed: &Bed) {
    ["left", "right"].iter().for_each(|it| bed.namespace(it));
    let last = bed.settings().nodes;
    let pods = PODS.map(|(namespace, name)| {
        let number = if (namespace, name) == ("right", "a") { last } else { 1 };
        let mut object = server_on(number, namespace, name);
        object["spec"]["containers"][0]["ports"] = json!([{"containerPort": PORT, "name": "web"}]);
        bed.start(&object)
    });
    let [left_a, _, target, _] = &pods;
    let own = |is_ipv4: bool| {
        let own = left_a.addresses.iter().find(|it| it.is_ipv4() == is_ipv4);
        own.map(|it| format!("{it}/{}", if is_ipv4 { 32 } else { 128 }))
    };
    let decides =
        |what: &str, (tcp, udp): (&[&str], &[&str]), ways: &(dyn Fn(&Pod) -> Ways + Sync)| {
            thread::scope(|scope| {
                for pod in pods.iter().filter(|it| it.uid != target.uid) {
                    scope.spawn(move || {
                        let name = format!("{}/{}", pod.namespace, pod.name);
                        let expected = (tcp.contains(&name.as_str()), udp.contains(&name.as_str()));
                        await_that(&format!("{what}: {name}: {expected:?}"), BACK, || {
                            ways(pod).iter().all(|(from, to)| by_each(bed, from, *to) == expected)
                        });
                    });
                }
            });
        };
    let to_target =
        |from: &Pod| target.addresses.iter().map(|it| (from.clone(), *it)).collect::<Ways>();
    let from_target =
        |to: &Pod| to.addresses.iter().map(|it| (target.clone(), *it)).collect::<Ways>();
    for (what, spec, tcp, udp) in rows() {
        let text = spec.to_string();
        let text = text.replace("OWN4", &own(true).unwrap_or("192.0.2.1/32".to_owned()));
        let text = text.replace("OWN6", &own(false).unwrap_or("2001:db8::1/128".to_owned()));
        let mut spec: Value = serde_json::from_str(&text).unwrap();
        spec["podSelector"] = json!({"matchLabels": {"app": "a"}});
        spec["policyTypes"] = json!(["Ingress"]);
        bed.apply(&special("right", &spec));
        decides(what, (tcp, udp), &to_target);
        // The other way round, as an egress policy of the same pod.
        let mut spec: Value = serde_json::from_str(
            &spec.to_string().replace("ingress", "egress").replace("from", "to"),
        )
        .unwrap();
        spec["policyTypes"] = json!(["Egress"]);
        bed.apply(&special("right", &spec));
        decides(&format!("{what}, egress"), (tcp, udp), &from_target);
    }
    ["left", "right"].iter().for_each(|it| bed.remove_namespace(it));
}

/// From whom, and to which address.
type Ways = Vec<(Pod, IpAddr)>;

/// Whether a pod reaches the address by TCP, and by UDP.
fn by_each(bed: &Bed, from: &Pod, to: IpAddr) -> (bool, bool) {
    let [tcp, udp] = [PORT, DATAGRAMS].map(|port| SocketAddr::new(to, port));
    bed.inside(from, || answers(tcp, udp))
}
