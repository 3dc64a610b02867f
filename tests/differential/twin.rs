//! Runs a case on one side of the twins: fresh node, fresh pods, each step with its outcome and
//! the world after it, as lines.

use std::path::PathBuf;

use lab::{Call, Node, Pod, Reply, Suite, World};
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
    results: Vec<Value>,
}

pub(crate) fn run(case: &Case, suite: &Suite) -> Record {
    let node = Node::quick();
    let count = case.steps.iter().map(|step| step.pod + 1).max().unwrap_or(1);
    let pods: Vec<Pod> = (1..=count).map(|n| node.pod(&format!("pod{n}"))).collect();
    let results = vec![Value::Null; count];
    let mut twin = Twin { case, suite, node, pods, results };
    for line in &case.on_node {
        twin.node.sh(&twin.fill(line));
    }
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
        let container = format!("cid{}", step.pod + 1);
        let mut call = Call::new(self.case.plugin, step.command)
            .container(&container)
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
        let mut conf = self.case.conf.clone();
        if conf["ipam"]["type"] == "host-local" && conf["ipam"].get("dataDir").is_none() {
            conf["ipam"]["dataDir"] = json!("$DATA");
        }
        let result = &self.results[step.pod];
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
