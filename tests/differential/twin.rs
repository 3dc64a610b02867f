//! Runs a case on one side of the twins: fresh node, fresh pods, each step with its outcome and
//! the world after it, as lines.

use std::fs;
use std::path::PathBuf;

use lab::{Call, Node, Options, Pod, Reply, Suite, World};
use serde_json::{Value, json};

use crate::case::{Case, Step, merge};

/// What a step came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) label: String,
    pub(crate) reply: Reply,
    /// The answer, one value a line.
    pub(crate) answer: Vec<String>,
    /// The world afterwards.
    pub(crate) world: World,
}

/// What a case came to on one side.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) before: World,
    pub(crate) outcomes: Vec<Outcome>,
}

/// One of the twins.
struct Twin<'a> {
    case: &'a Case,
    suite: &'a Suite,
    node: Node,
    pods: Vec<Pod>,
    /// What the plugin before this one made of each pod.
    bases: Vec<Value>,
    results: Vec<Value>,
}

pub(crate) fn run(case: &Case, suite: &Suite) -> Record {
    let own_etc = case.allow_list.is_some();
    let node = Node::with(Options { instant_dad: true, own_etc });
    if let Some(lines) = case.allow_list {
        let folder = node.home().join("etc/cni/tuning");
        fs::create_dir_all(&folder).expect("the node has its own");
        fs::write(folder.join("allowlist.conf"), lines).expect("the folder is there");
    }
    let count = case.steps.iter().map(|step| step.pod + 1).max().unwrap_or(1);
    let pods: Vec<Pod> = (1..=count).map(|n| node.pod(&format!("pod{n}"))).collect();
    let [bases, results] = [(); 2].map(|()| vec![Value::Null; count]);
    let mut twin = Twin { case, suite, node, pods, bases, results };
    for line in &case.on_node {
        twin.node.sh(&twin.fill(line));
    }
    twin.add_bases();
    for line in &case.in_pod {
        twin.pods[0].sh(&twin.fill(line));
    }
    let before = twin.world();
    let mut failed = false;
    let mut outcomes = Vec::new();
    for (number, step) in case.steps.iter().enumerate() {
        let outcome = twin.take(number + 1, step, failed);
        failed |= step.command == "ADD" && !outcome.reply.succeeded();
        outcomes.push(outcome);
    }
    Record { before, outcomes }
}

impl Twin<'_> {
    fn world(&self) -> World {
        World::of(&self.node, &self.pods.iter().collect::<Vec<_>>())
    }

    /// Adds each pod by the plugin before this one, which is the reference's for both suites.
    fn add_bases(&mut self) {
        let Some(base) = &self.case.base else { return };
        let plugin = base["type"].as_str().expect("a plugin has a type").to_owned();
        for (index, pod) in self.pods.iter().enumerate() {
            let mut conf = with_data_dir(base.clone());
            for key in ["cniVersion", "name"] {
                conf[key] = self.case.conf[key].clone();
            }
            let add = Call::new(&plugin, "ADD").container(&container(index)).netns(&pod.path());
            let add = add.stdin(self.fill(&conf.to_string()).as_bytes());
            self.bases[index] = add.run(&self.node, &Suite::reference()).ok();
        }
    }

    fn take(&mut self, number: usize, step: &Step, failed: bool) -> Outcome {
        if let Some(line) = step.before {
            self.node.sh(&self.fill(line));
        }
        let reply = self.call(step).run(&self.node, self.suite);
        let world = self.world();
        if step.command == "ADD" && reply.succeeded() {
            self.results[step.pod] = reply.ok();
        }
        let after = if failed { " after failure" } else { "" };
        let failed = if reply.succeeded() { "" } else { " failed" };
        let label = format!("{number} {}{failed}{after}", step.command);
        let answer = answer(&reply, &world, step);
        Outcome { label, reply, answer, world }
    }

    fn call(&self, step: &Step) -> Call {
        let pod = &self.pods[step.pod];
        let mut call = Call::new(self.case.plugin, step.command)
            .container(&container(step.pod))
            .netns(&pod.path())
            .stdin(self.stdin(step).as_bytes());
        for (name, value) in &step.env {
            call = match value {
                Some(value) => call.env(name, self.fill(value)),
                None => call.unset(name),
            };
        }
        call
    }

    /// The configuration of a call. A runtime hands the result of ADD to CHECK and DEL.
    fn stdin(&self, step: &Step) -> String {
        if let Some(text) = step.stdin {
            return self.fill(text);
        }
        let mut conf = with_data_dir(self.case.conf.clone());
        let (base, result) = (&self.bases[step.pod], &self.results[step.pod]);
        if step.command == "ADD" && !base.is_null() {
            conf["prevResult"] = base.clone();
        }
        let has_check =
            !["0.1.0", "0.2.0", "0.3.0", "0.3.1"].iter().any(|v| conf["cniVersion"] == *v);
        if ["CHECK", "DEL"].contains(&step.command) && has_check && !result.is_null() {
            conf["prevResult"] = result.clone();
        }
        merge(&mut conf, &step.patch);
        self.fill(&conf.to_string())
    }

    fn fill(&self, text: &str) -> String {
        let path = |path: PathBuf| path.display().to_string();
        text.replace("$DATA", &path(self.node.data()))
            .replace("$HOME", &path(self.node.home().to_owned()))
            .replace("$NODE", &path(self.node.path()))
            .replace("$POD", &path(self.pods[0].path()))
            .replace("$BIN", &path(self.suite.dir().to_owned()))
    }
}

fn container(pod: usize) -> String {
    format!("cid{}", pod + 1)
}

/// The configuration with the node's own folder for leases.
fn with_data_dir(mut conf: Value) -> Value {
    if conf["ipam"]["type"] == "host-local" && conf["ipam"].get("dataDir").is_none() {
        conf["ipam"]["dataDir"] = json!("$DATA");
    }
    conf
}

/// The answer as lines: exit status, each document flat, and the error's parts.
fn answer(reply: &Reply, world: &World, step: &Step) -> Vec<String> {
    let mut lines = vec![format!("exit={:?}", reply.exit)];
    for document in reply.documents() {
        let root = if reply.succeeded() { "result" } else { "error" };
        flatten(&mut lines, root, &document, world);
    }
    if step.command.is_empty() {
        lines.extend(reply.stderr.lines().skip(1).map(|line| format!("stderr {line}")));
    }
    lines
}

fn flatten(lines: &mut Vec<String>, path: &str, value: &Value, world: &World) {
    match value {
        Value::Object(map) if map.is_empty() => lines.push(format!("{path}={{}}")),
        Value::Object(map) => {
            for (key, value) in map {
                if path.contains(".interfaces[") {
                    // With its name, because a bridge's MAC may be that of a port.
                    let entry = json!({"name": map["name"], key: value}).to_string();
                    lines.push(format!("{path} {}", world.mask.apply(&entry)));
                } else {
                    flatten(lines, &format!("{path}.{key}"), value, world);
                }
            }
        }
        Value::Array(list) if list.is_empty() => lines.push(format!("{path}=[]")),
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                flatten(lines, &format!("{path}[{index}]"), value, world);
            }
        }
        other => lines.push(format!("{path}={}", world.mask.apply(&other.to_string()))),
    }
}
