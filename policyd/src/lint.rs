//! What in manifests is valid, and yet is probably not meant: `policyd lint`.
//!
//! Only what the given files say is known. Selectors are compared with pods where pods are given.

mod blocks;
mod duplicates;
mod files;
mod peers;
mod ports;
mod selection;
#[cfg(test)]
mod tests;
mod types;

use std::fmt;
use std::path::{Path, PathBuf};

use cluster::folder::Identity;
use k8s_openapi::api::networking::v1::{NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};
use serde::Serialize;

use crate::World;
use crate::model::{Direction, Error, Namespace, Pod, Policy, Rule};
use crate::source::folder::Written;
use crate::words;

/// Something about a manifest that its author should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// The document in it: 1 is the first. `None`: all of the file.
    pub document: Option<usize>,
    /// Kind and name of the object; `None`: it could not be read.
    pub object: Option<String>,
    /// The JSON path of the field in the document; empty: all of it.
    pub path: String,
    /// How bad it is.
    pub severity: Severity,
    /// What is the matter, and what to do.
    pub text: String,
}

/// How bad a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// It is right, but good to know.
    Info,
    /// It is probably not what was meant.
    Warning,
    /// It is wrong: what is wrong in a policy allows nothing.
    Error,
}

/// Reads manifests and tells what there is to say, in the order of the files.
#[must_use]
pub fn lint(files: &[PathBuf]) -> Vec<Finding> {
    let (objects, mut findings) = files::read(files);
    findings.extend(check(&objects));
    // Stable: of one document, in the order in which they were found.
    findings.sort_by_key(|it| (files.iter().position(|file| *file == it.file), it.document));
    findings
}

/// An object, and where it is written.
#[derive(Debug, Clone)]
struct Located {
    file: PathBuf,
    document: usize,
    /// Of the object in the document: not empty in lists.
    path: String,
    identity: Identity,
    object: Written,
}

impl Located {
    fn finding(&self, object: String, path: &str, severity: Severity, text: String) -> Finding {
        let path = match self.path.as_str() {
            "" => path.to_owned(),
            outer => format!("{outer}.{path}"),
        };
        Finding {
            file: self.file.clone(),
            document: Some(self.document),
            object: Some(object),
            path,
            severity,
            text,
        }
    }

    fn problem(&self, error: &Error) -> Finding {
        let object = format!("{} {}", error.kind, error.object);
        self.finding(object, &error.path, Severity::Error, error.problem.to_string())
    }
}

fn check(objects: &[Located]) -> Vec<Finding> {
    let world = world(objects);
    let mut findings = duplicates::check(objects);
    for located in objects {
        match &located.object {
            Written::Namespace(_) => {}
            Written::Pod(pod) => {
                let problems = Pod::from(&**pod).problems;
                findings.extend(problems.iter().map(|error| located.problem(error)));
            }
            Written::Policy(written) => {
                let policy = Policy::from(&**written);
                findings.extend(policy.problems.iter().map(|error| located.problem(error)));
                let spec = written.spec.clone().unwrap_or_default();
                let subject = Subject { located, spec: &spec, policy: &policy, world: &world };
                findings.extend(subject.check());
            }
        }
    }
    findings
}

fn world(objects: &[Located]) -> World {
    let mut world = World::default();
    for located in objects {
        match &located.object {
            Written::Pod(pod) => world.pods.push(Pod::from(&**pod)),
            Written::Namespace(namespace) => world.namespaces.push(Namespace::from(&**namespace)),
            Written::Policy(policy) => world.policies.push(Policy::from(&**policy)),
        }
    }
    world
}

/// A policy that is looked at.
struct Subject<'a> {
    located: &'a Located,
    spec: &'a NetworkPolicySpec,
    policy: &'a Policy,
    world: &'a World,
}

/// A rule that holds, as it is written and as it is understood.
struct WrittenRule<'a> {
    direction: Direction,
    path: String,
    peers: Option<&'a [NetworkPolicyPeer]>,
    ports: Option<&'a [NetworkPolicyPort]>,
    rule: &'a Rule,
}

impl WrittenRule<'_> {
    /// The path of its peers.
    fn peers_path(&self) -> String {
        format!("{}.{}", self.path, words::peers_field(self.direction))
    }
}

impl<'a> Subject<'a> {
    fn check(&self) -> Vec<Finding> {
        let mut findings = types::check(self);
        findings.extend(selection::of_policy(self));
        for rule in self.rules() {
            findings.extend(peers::check(self, &rule));
            findings.extend(blocks::check(self, &rule));
            findings.extend(ports::of_rule(self, &rule));
            findings.extend(selection::of_rule(self, &rule));
        }
        findings.extend(ports::names_unresolved(self));
        findings
    }

    fn finding(&self, path: &str, severity: Severity, text: String) -> Finding {
        let object = format!("NetworkPolicy {}", self.policy.name);
        self.located.finding(object, path, severity, text)
    }

    fn warning(&self, path: &str, text: String) -> Finding {
        self.finding(path, Severity::Warning, text)
    }

    /// The rules of the directions that the policy isolates.
    fn rules(&self) -> impl Iterator<Item = WrittenRule<'a>> {
        let Self { spec, policy, .. } = *self;
        let ingress = spec.ingress.iter().flatten();
        let ingress = ingress.map(|rule| (rule.from.as_deref(), rule.ports.as_deref()));
        let egress = spec.egress.iter().flatten();
        let egress = egress.map(|rule| (rule.to.as_deref(), rule.ports.as_deref()));
        let ingress = rules(policy, Direction::Ingress, ingress);
        ingress.chain(rules(policy, Direction::Egress, egress))
    }
}

fn rules<'a>(
    policy: &'a Policy,
    direction: Direction,
    written: impl Iterator<Item = (Option<&'a [NetworkPolicyPeer]>, Option<&'a [NetworkPolicyPort]>)>,
) -> impl Iterator<Item = WrittenRule<'a>> {
    let understood = policy.rules(direction).unwrap_or_default();
    written.zip(understood).enumerate().map(move |(index, ((peers, ports), rule))| {
        let path = format!("spec.{}[{index}]", words::direction(direction));
        WrittenRule { direction, path, peers, ports, rule }
    })
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// `error: FILE document 1: NetworkPolicy x/p: spec.ingress[0]: ...`.
impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, document, object, path, severity, text } = self;
        write!(formatter, "{severity}: {}", Path::display(file))?;
        if let Some(document) = document {
            write!(formatter, " document {document}")?;
        }
        for part in [object.as_deref(), Some(path.as_str())].into_iter().flatten() {
            if !part.is_empty() {
                write!(formatter, ": {part}")?;
            }
        }
        write!(formatter, ": {text}")
    }
}
