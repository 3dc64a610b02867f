//! From nothing to a cluster whose pods run, and back.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::inside::Node;
use crate::kubectl::Kubectl;
use crate::process::{Identity, wait_until};
use crate::running::say;
use crate::settings::{Proxy, Settings, node_name};
use crate::state::{Record, State, make_folder, remove_folder, write};
use crate::{cgroups, coredns, files, manifest, mounts, programs, supervisor};

/// The image that holds the namespaces of each pod.
const SANDBOX: &str = "pause:1";

/// The control plane may take this long to start, and a node to be ready after it.
const START: Duration = Duration::from_secs(180);

/// An image may take this long to be unpacked.
const IMPORT: Duration = Duration::from_secs(120);

/// The supervisor, and all below it, end within moments; on a busy machine somewhat later.
const END: Duration = Duration::from_secs(60);

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Parts {
    /// A folder with the programs that others made: Kubernetes, containerd, CoreDNS.
    pub peers: PathBuf,
    /// A folder with images, as archives.
    pub images: PathBuf,
    /// podwire's configurations: the folder `conf` of the source.
    pub conf: PathBuf,
}

/// Brings a cluster up. One that was left behind by a crash is taken down before, one whose `up` was ended
/// midway as well, and so is one that does not come up; its logs stay.
///
/// `program` is the program `testbed`, which supervises it.
///
/// # Errors
/// A part is missing, the kernel refuses, or something does not come up in time.
pub fn up(state: &State, program: &Path, settings: Settings, parts: &Parts) -> Result<()> {
    programs::check(parts)?;
    state.refuse_others()?;
    let _lock = state.lock()?;
    let is_coming_up = state.load()?.is_some_and(|it| it.is_coming_up);
    if !is_coming_up && state.running().is_ok() {
        return Err(Error::Up(state.root().to_owned()));
    }
    take_down(state)?;
    state.clear()?;
    let started = Instant::now();
    let podwire = manifest::podwire(&settings, parts)?;
    let mut record = prepare(state, settings, parts)?;
    let supervisor = supervisor::start(state, program)?;
    record.supervisor = Some(supervisor);
    let result = state.save(&record).and_then(|()| populate(&settings, &podwire, supervisor));
    record.is_coming_up = false;
    let result = result.and_then(|()| state.save(&record));
    if result.is_err() {
        supervisor.end(END)?;
        take_down(state)?;
        say(&format!(
            "it did not come up; what its programs said is below {}",
            state.root().display()
        ));
    }
    result?;
    say(&format!("up after {:.0} s", started.elapsed().as_secs_f64()));
    Ok(())
}

/// Takes the cluster down: processes, and with them mounts, links and rules; control groups; files,
/// but not what its programs said.
///
/// # Errors
/// Something stays. The rest is removed all the same, and what stays is tried again the next time.
pub fn down(state: &State) -> Result<()> {
    // Of a folder with a record nothing goes but what is a cluster's.
    if state.load()?.is_none() && !state.refuse_others()? {
        say(&format!("no cluster was ever up in {}", state.root().display()));
        return Ok(());
    }
    let _lock = state.lock()?;
    take_down(state)
}

fn take_down(state: &State) -> Result<()> {
    let Some(record) = state.load()? else { return Ok(()) };
    if let Some(supervisor) = record.supervisor {
        supervisor.end(END)?;
    }
    let groups = record.groups.iter().map(cgroups::Hierarchy::remove);
    let groups = groups.collect::<Vec<_>>().into_iter().collect::<Result<Vec<()>>>();
    for number in record.settings.numbers() {
        for folder in ["lib", "opt", "etc", "etc-work"] {
            remove_folder(&state.node(number).join(folder))?;
        }
    }
    remove_folder(&state.shared())?;
    groups?;
    state.forget()
}

/// Makes files and control groups.
fn prepare(state: &State, settings: Settings, parts: &Parts) -> Result<Record> {
    make_folder(state.root())?;
    let id = std::process::id();
    let groups = cgroups::plan(&format!("podwire-testbed-{id}"))?;
    let absolute = |path: &Path| fs::canonicalize(path).map_err(Error::file("find", path));
    let (peers, images) = (absolute(&parts.peers)?, absolute(&parts.images)?);
    let record = Record { settings, peers, images, groups, supervisor: None, is_coming_up: true };
    state.save(&record)?;
    let shared = |name: &str, content: String| write(&state.shared().join(name), content);
    shared("tokens", files::tokens(&settings))?;
    shared("kubelet.json", files::kubelet(&settings))?;
    shared("containerd.toml", files::containerd(SANDBOX))?;
    let users =
        ["admin", "system:kube-controller-manager", "system:kube-scheduler", "system:kube-proxy"];
    for user in users {
        shared(&format!("kubeconfigs/{user}"), files::kubeconfig(&settings, user))?;
    }
    for number in settings.numbers() {
        let name = node_name(number);
        let user = format!("system:node:{name}");
        shared(&format!("kubeconfigs/{user}"), files::kubeconfig(&settings, &user))?;
        if settings.proxy != Proxy::Proxyd {
            shared(&format!("kube-proxy-{name}.json"), files::kube_proxy(&settings, number))?;
        }
        record.groups.iter().try_for_each(|group| group.create(&name))?;
        mounts::prepare(state, number, &files::etc(&settings, number))?;
    }
    Ok(record)
}

/// Waits for the control plane, and gives it what the cluster is to run.
fn populate(settings: &Settings, podwire: &str, supervisor: Identity) -> Result<()> {
    let first = || Node::find(supervisor, 1);
    let node = wait_until(START, || "the first node".to_owned(), || first().map(Some))?;
    let kubectl = Kubectl::on(node);
    let what = || "the API server".to_owned();
    wait_until(START, what, || kubectl.run(&["get", "--raw", "/readyz"]).map(Some))?;
    say("the API server is ready");
    for number in settings.numbers() {
        import(&Node::find(supervisor, number)?, number)?;
    }
    say("the images are there");
    kubectl.apply(podwire)?;
    kubectl.apply(&coredns::manifest(settings))?;
    await_nodes(&kubectl, settings)?;
    say("the nodes are ready");
    let proxyd = (settings.proxy == Proxy::Proxyd).then_some("daemonset/podwire-proxyd");
    for workload in proxyd.into_iter().chain(["daemonset/policyd", "deployment/coredns"]) {
        await_rollout(&kubectl, workload)?;
        say(&format!("{workload} is ready"));
    }
    Ok(())
}

/// Unpacks all images on a node.
pub(crate) fn import(node: &Node, number: u8) -> Result<()> {
    let what = || format!("containerd of {}", node_name(number));
    let ask = ["ctr", "--timeout=5s", "version"];
    wait_until(START, what, || node.run(&ask, &[], IMPORT).map(Some))?;
    let line = format!(
        "for image in {}/*.tar; do ctr -n k8s.io images import --local \"$image\" >/dev/null; done",
        mounts::IMAGES
    );
    node.run(&["sh", "-euc", &line], &[], IMPORT).map(drop)
}

fn await_nodes(kubectl: &Kubectl, settings: &Settings) -> Result<()> {
    let what = || format!("{} ready nodes", settings.nodes);
    wait_until(START, what, || {
        let nodes = kubectl.json(&["get", "nodes"])?;
        let nodes = nodes.get("items").and_then(Value::as_array);
        let ready = nodes.into_iter().flatten().filter(|it| is_ready(it));
        Ok((ready.count() == usize::from(settings.nodes)).then_some(()))
    })
}

/// Whether the kubelet of a node takes pods.
fn is_ready(node: &Value) -> bool {
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|it| {
        let is = |name, value: &str| it.get(name).is_some_and(|it| it == value);
        is("type", "Ready") && is("status", "True")
    })
}

fn await_rollout(kubectl: &Kubectl, workload: &str) -> Result<()> {
    let what = || format!("{workload}, which is to be ready");
    let ask = ["-n", "kube-system", "rollout", "status", workload, "--timeout=10s"];
    wait_until(START, what, || kubectl.run(&ask).map(Some)).map(drop)
}
