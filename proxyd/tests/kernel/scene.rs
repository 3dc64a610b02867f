//! Objects, plans, and the kernel's tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use nix::sched::{CloneFlags, unshare};
use proxyd::dataplane::Dataplane;
use proxyd::model::{EndpointSlice, EndpointSlicePart, NamespacedName, Read, Service, ServicePart};
use proxyd::nftables::{Settings, table};
use proxyd::plan::{Node, Plan};
use runner::{OsRunner, Output, Program, Runner as _};
use serde_json::{Value, json};

/// Moves this test's thread into a namespace of its own, which ends with it.
pub(crate) fn move_away() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
}

pub(crate) fn dataplane(settings: &Settings) -> Dataplane {
    Dataplane::open(settings, &[true, false]).unwrap()
}

pub(crate) fn node() -> Node {
    Node {
        name: "here".to_owned(),
        zone: Some("z".to_owned()),
        addresses: ["192.0.2.10".parse().unwrap(), "2001:db8::10".parse().unwrap()].into(),
        ..Node::default()
    }
}

pub(crate) fn name(name: &str) -> NamespacedName {
    NamespacedName { namespace: "n".to_owned(), name: name.to_owned() }
}

/// A service with endpoints, each an address and the node that it is on.
pub(crate) fn objects(
    name: &str,
    spec: &Value,
    endpoints: &[(&str, &str)],
) -> (Read<Service>, Read<EndpointSlice>) {
    let metadata = json!({"name": name, "namespace": "n"});
    let status = spec.get("ingress").map(|it| json!({"loadBalancer": {"ingress": it}}));
    let object = json!({"metadata": metadata, "spec": spec, "status": status});
    let service: ServicePart = serde_json::from_value(object).unwrap();
    let service = service.read().0;
    let endpoint =
        |(address, node): &(&str, &str)| json!({"addresses": [address], "nodeName": node});
    let ports = service.object.iter().flat_map(|it| &it.ports);
    let ports: Vec<_> = ports
        .map(|it| json!({"name": it.name, "port": 8080, "protocol": it.protocol.to_string()}))
        .collect();
    let slice = json!({
        "metadata": {"name": name, "namespace": "n", "labels": {"kubernetes.io/service-name": name}},
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": ports,
    });
    let slice: EndpointSlicePart = serde_json::from_value(slice).unwrap();
    (service, slice.read().0)
}

/// The plan of such a service.
pub(crate) fn plan(name: &str, spec: &Value, endpoints: &[(&str, &str)]) -> Arc<Plan> {
    let (service, slice) = objects(name, spec, endpoints);
    Arc::new(Plan::of(&service.object.unwrap(), [&slice.object.unwrap()], &node()))
}

/// What nft lists of a family's table, without counters; sets sorted, as elements come in any order.
pub(crate) fn listed(is_ipv4: bool) -> String {
    let table = table(is_ipv4).to_string();
    let words: Vec<&str> = table.split(' ').collect();
    let arguments = [&["--stateless", "list", "table"][..], &words].concat();
    let output = nft(&arguments, "");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs nft.
pub(crate) fn nft(arguments: &[&str], input: &str) -> Output {
    run("nft", arguments, input)
}

/// Runs what a shell reads, to its end.
pub(crate) fn sh(script: &str) {
    let output = run("sh", &["-ec", script], "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn run(file: &str, args: &[&str], input: &str) -> Output {
    let (file, stdin) = (file.into(), input.as_bytes());
    OsRunner.run(&Program { file, args, stdin, ..Program::default() }).unwrap()
}

/// The words of such a list in any order: what elements there are, whatever order they come in.
pub(crate) fn sorted(listed: &str) -> Vec<String> {
    let pieces = listed.replace("elements = {", "").replace(" }", "");
    let mut pieces: Vec<_> = pieces
        .split([',', '\n'])
        .map(|it| it.trim().to_owned())
        .filter(|it| !it.is_empty())
        .collect();
    pieces.sort();
    pieces
}

/// The kernel takes so many elements of a set of IPv4's table, and refuses more.
pub(crate) fn limit(set: &str, size: usize) {
    let table = table(true);
    let head = format!("set {set} {{\n");
    let limited = listed(true).replace(&head, &format!("{head}\t\tsize {size}\n"));
    assert!(limited.contains("size "), "{limited}");
    let text = format!("delete table {table}\n{limited}");
    assert!(nft(&["-f", "-"], &text).status.success());
}

/// Whether nft reads what it lists, and lists the same again.
pub(crate) fn reloads(is_ipv4: bool) -> bool {
    let before = listed(is_ipv4);
    let name = table(is_ipv4);
    let text = format!("delete table {name}\n{before}");
    let read = nft(&["-f", "-"], &text);
    read.status.success() && sorted(&listed(is_ipv4)) == sorted(&before)
}

pub(crate) fn plans<const COUNT: usize>(
    plans: [(&str, Arc<Plan>); COUNT],
) -> BTreeMap<NamespacedName, Arc<Plan>> {
    plans.into_iter().map(|(it, plan)| (name(it), plan)).collect()
}
