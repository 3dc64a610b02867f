//! What the chained plugins portmap and bandwidth give to pods.

use std::net::SocketAddr;
use std::time::Duration;

use e2e::objects::PORT;
use e2e::traffic::who;
use e2e::{Bed, await_that, objects};
use serde_json::{Value, json};

const CHAINED: [&str; 2] = ["portmap", "bandwidth"];

/// By which policyd is told of one.
const OPTION: &str = "--cni-chained=";

const HOST_PORT: u16 = 8090;

/// Rules may take this long until they are in the kernel.
const TAKEN_UP: Duration = Duration::from_secs(30);

/// What these plugins keep for pods on a node: rules of the host's port, limits, and links to limit
/// at.
const KEPT: &str = "nft list ruleset 2>/dev/null | grep -c '8090 ' || :
    tc qdisc show | grep -c tbf || :
    ip -o link show type ifb | wc -l";

pub(crate) fn host_ports_and_bandwidth(bed: &Bed) {
    let last = bed.settings().nodes;
    let before = chain(bed, CHAINED);

    bed.namespace("ports");
    let server = bed.start(&published_on(last, "ports", HOST_PORT));
    let client = bed.start(&objects::server_on(1, "ports", "client"));
    let neighbour = bed.start(&objects::server_on(last, "ports", "neighbour"));
    let ranges = bed.settings().family.ranges();
    let sockets =
        ranges.iter().map(|it| SocketAddr::new(it.node(last).parse().unwrap(), HOST_PORT));
    let sockets: Vec<_> = sockets.collect();
    let is_let_in = |socket: &SocketAddr| {
        bed.succeeds(0, &format!("curl -sf --max-time 2 http://{socket}/hostname"))
    };
    let everybody_gets_in = || {
        for socket in &sockets {
            for pod in [&client, &neighbour] {
                await_that(&format!("{} reaches {socket}", pod.name), TAKEN_UP, || {
                    bed.inside(pod, || who(*socket)).is_ok_and(|name| name == server.name)
                });
            }
            await_that(&format!("who is outside reaches {socket}"), TAKEN_UP, || is_let_in(socket));
        }
    };
    everybody_gets_in();
    bed.apply(&objects::deny("ports"));
    bed.must_not_reach(&client, &server);
    for socket in &sockets {
        assert!(!is_let_in(socket), "{socket} is open in spite of the policy");
        for pod in [&client, &neighbour] {
            assert!(bed.inside(pod, || who(*socket)).is_err(), "{} reaches {socket}", pod.name);
        }
    }
    bed.apply(&objects::allow_all("ports", "server"));
    everybody_gets_in();
    let kept = bed.on(last, KEPT);
    assert!(kept.lines().all(|it| it != "0"), "{kept}");
    bed.remove_namespace("ports");
    await_that("nothing is kept", TAKEN_UP, || bed.on(last, KEPT).lines().all(|it| it == "0"));

    set_arguments(bed, &before);
}

/// Has all pods that start get what these plugins give, which are names or objects; what policyd was told before.
pub(crate) fn chain(bed: &Bed, plugins: [&str; 2]) -> Value {
    let before = bed.policyd()["args"].clone();
    let chained = plugins.map(|it| json!(format!("{OPTION}{it}")));
    let with_both = [before.as_array().unwrap().as_slice(), &chained].concat();
    set_arguments(bed, &with_both.into());
    before
}

/// A server with this port of its node, and limits.
pub(crate) fn published_on(node: u8, namespace: &str, port: u16) -> Value {
    let mut object = objects::server_on(node, namespace, "server");
    object["spec"]["containers"][0]["ports"] = json!([{"containerPort": PORT, "hostPort": port}]);
    object["metadata"]["annotations"] = json!({
        "kubernetes.io/ingress-bandwidth": "80M", "kubernetes.io/egress-bandwidth": "80M",
    });
    object
}

fn set_arguments(bed: &Bed, arguments: &Value) {
    let path = "/spec/template/spec/containers/0/args";
    let patch = json!([{"op": "replace", "path": path, "value": arguments}]).to_string();
    let set = ["patch", "daemonset", "-n", "kube-system", "policyd", "--type=json", "-p"];
    bed.kubectl(&[&set[..], &[&patch]].concat());
    bed.await_policyd();
    let chained = texts(arguments).filter_map(|it| it.strip_prefix(OPTION));
    let wanted: Vec<_> = chained.map(kind).collect();
    for number in bed.settings().numbers() {
        let list: Value =
            serde_json::from_str(&bed.on(number, "cat /etc/cni/net.d/*podwire*")).unwrap();
        let types = list["plugins"].as_array().unwrap().iter();
        let types: Vec<_> = types.filter_map(|it| it["type"].as_str()).collect();
        assert_eq!(&types[1..types.len() - 1], wanted);
    }
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().unwrap().iter().filter_map(Value::as_str)
}

/// What a plugin is called that is told by its name, or as an object.
fn kind(plugin: &str) -> String {
    let object = serde_json::from_str::<Value>(plugin).unwrap_or_default();
    object["type"].as_str().unwrap_or(plugin).to_owned()
}
