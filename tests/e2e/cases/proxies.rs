//! proxyd in the place of kube-proxy, and back.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use e2e::traffic::who;
use e2e::{Bed, Pod, await_that, conf, objects};
use serde_json::Value;
use testbed::settings::API_SERVER;

/// Pods of a DaemonSet may take this long on each node, to come or to go.
const SPREAD: Duration = Duration::from_secs(120);

/// A proxy may take this long to know of a change, or that another one has ended.
const TAKEN_UP: Duration = Duration::from_secs(60);

/// What kube-proxy has on a node, in a form that is empty when it is nothing.
const OF_KUBE_PROXY: &str = "{ iptables-save; ip6tables-save; nft list tables; } 2>/dev/null |
    grep -e KUBE-SERVICES -e KUBE-SVC- -e KUBE-PROXY- -e 'table .* kube-proxy' || :";

/// What proxyd has.
const OF_PROXYD: &str = "nft list tables | grep podwire-proxy || :";

const PROXYD: &str = "podwire-proxyd";
const CLEANUP: &str = "podwire-proxyd-cleanup";

pub(crate) fn kube_proxys_place_is_taken_and_given_back(bed: &Bed) {
    bed.namespace("moved");
    let client = bed.start(&objects::server("moved", "client"));
    let first = bed.start(&objects::server("moved", "server"));
    bed.apply(&objects::service("moved", "shop", "server"));
    let shop = bed.get(&["service", "-n", "moved", "shop"]);
    let addresses = shop["spec"]["clusterIPs"].as_array().unwrap().iter();
    let places: Vec<SocketAddr> =
        addresses.map(|it| SocketAddr::new(it.as_str().unwrap().parse().unwrap(), 80)).collect();
    await_answer(bed, &client, &places, &first.name);
    let stream = bed.stream_to(&client, places[0]);
    let connections = bed.connections_to(&client, places.clone());

    start_proxyd(bed);
    // What serves already is left alone.
    for number in bed.settings().numbers() {
        assert_ne!(bed.on(number, OF_KUBE_PROXY), "");
    }
    for number in bed.settings().numbers() {
        stop_kube_proxy(bed, number);
        await_that("nothing of kube-proxy's is left", TAKEN_UP, || {
            bed.on(number, OF_KUBE_PROXY).is_empty()
        });
        // Load balancers ask where they always did.
        await_that("load balancers are answered", TAKEN_UP, || {
            bed.succeeds(number, "curl -sf --max-time 5 http://127.0.0.1:10256/healthz")
        });
    }
    another_answers_as_well(bed, &client, &places, "by-proxyd");

    for number in bed.settings().numbers() {
        start_kube_proxy(bed, number);
    }
    remove_proxyd(bed);
    another_answers_as_well(bed, &client, &places, "by-kube-proxy");

    assert!(stream.end() > 10);
    assert!(connections.end() > 100);
    bed.remove_namespace("moved");
}

/// As docs/proxyd.md says.
fn start_proxyd(bed: &Bed) {
    let host =
        format!("--from-literal=KUBERNETES_SERVICE_HOST={}", bed.settings().api_server_host());
    let port = format!("--from-literal=KUBERNETES_SERVICE_PORT={API_SERVER}");
    bed.kubectl(&["create", "configmap", "-n", "kube-system", PROXYD, &host, &port]);
    bed.with_manifests(&["apply"], &manifest("proxyd.yaml"));
    await_rollout(bed, PROXYD);
}

fn remove_proxyd(bed: &Bed) {
    bed.with_manifests(&["apply"], &manifest("proxyd-cleanup.yaml"));
    let delete = ["delete", "--timeout=110s"];
    bed.with_manifests(&delete, &manifest("proxyd.yaml"));
    bed.kubectl(&["delete", "configmap", "-n", "kube-system", PROXYD]);
    await_rollout(bed, CLEANUP);
    for number in bed.settings().numbers() {
        assert_eq!(bed.on(number, OF_PROXYD), "");
    }
    bed.with_manifests(&delete, &manifest("proxyd-cleanup.yaml"));
}

fn manifest(name: &str) -> String {
    fs::read_to_string(conf().join("kubernetes").join(name)).unwrap()
}

fn await_rollout(bed: &Bed, name: &str) {
    let daemons = format!("daemonset/{name}");
    let status = ["rollout", "status", "-n", "kube-system", &daemons, "--timeout=10s"];
    await_that(&format!("{name} is on all nodes"), SPREAD, || bed.try_kubectl(&status));
}

fn stop_kube_proxy(bed: &Bed, number: u8) {
    bed.on(number, "touch /run/testbed/kube-proxy.off; kill $(cat /run/testbed/kube-proxy)");
}

/// It knows all Services once it has written them.
fn start_kube_proxy(bed: &Bed, number: u8) {
    bed.on(number, "rm /run/testbed/kube-proxy.off");
    await_that("kube-proxy serves", TAKEN_UP, || {
        let asks = "curl -sf --max-time 5 http://127.0.0.1:10249/proxyMode";
        bed.succeeds(number, asks) && !bed.on(number, OF_KUBE_PROXY).is_empty()
    });
    // By either mode it writes them in one piece.
    await_that("kube-proxy knows the Service", TAKEN_UP, || {
        bed.succeeds(number, "{ iptables-save; nft list ruleset; } 2>/dev/null | grep -v podwire | grep -q moved/shop")
    });
}

/// An endpoint more is found.
fn another_answers_as_well(bed: &Bed, client: &Pod, places: &[SocketAddr], name: &str) {
    let mut object = objects::server("moved", name);
    object["metadata"]["labels"] = Value::from_iter([("app", "server")]);
    let _ = bed.start(&object);
    await_answer(bed, client, places, name);
}

fn await_answer(bed: &Bed, client: &Pod, places: &[SocketAddr], name: &str) {
    for place in places {
        await_that(&format!("{name} answers at {place}"), TAKEN_UP, || {
            bed.inside(client, || who(*place)).is_ok_and(|it| it == name)
        });
    }
}
