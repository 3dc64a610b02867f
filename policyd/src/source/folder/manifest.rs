//! What a manifest says: pure.

use std::path::Path;

use k8s_openapi::api::core::v1;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_ignored::Path as FieldPath;
use serde_json::Value;

use super::report::{Defect, Problem};
use crate::model::{Namespace, NamespacedName, Pod, Policy};

/// Most defects that are told of one file.
const MOST_DEFECTS: usize = 10;

/// A document may expand to this many nodes: a list of 10,000 policies has some 400,000.
const MOST_NODES: usize = 2_000_000;

/// Aliases may add this many of them.
const MOST_ALIASED: usize = 100_000;

/// Lists may be in lists this deep.
const MOST_LISTS: usize = 4;

/// How a manifest is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Yaml,
    Json,
}

impl Format {
    /// Of a file that has a manifest's name. Hidden files do not: editors and ConfigMap volumes
    /// keep their own things in them.
    pub(crate) fn of(file: &Path) -> Option<Self> {
        if file.file_name()?.as_encoded_bytes().starts_with(b".") {
            return None;
        }
        match file.extension()?.to_str()? {
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest<T = Object> {
    /// The objects, each with the number of its document.
    pub(crate) objects: Vec<(usize, T)>,
    /// The kinds that were passed over, each with the number of its first document.
    pub(super) others: Vec<(usize, String)>,
}

impl<T> Default for Manifest<T> {
    fn default() -> Self {
        Self { objects: Vec::new(), others: Vec::new() }
    }
}

/// An object as it is written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Written {
    Pod(Box<v1::Pod>),
    Namespace(Box<v1::Namespace>),
    Policy(Box<NetworkPolicy>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Object {
    Pod(Pod),
    Namespace(Namespace),
    Policy(Policy),
}

/// Reads what a file says. Pods without a node are those of `node`.
pub(super) fn parse(format: Format, text: &[u8], node: &str) -> Result<Manifest, Vec<Defect>> {
    let (manifest, defects) = parse_as(format, text, node, |_, object| match object {
        Written::Pod(pod) => Object::Pod(Pod::from(&*pod)),
        Written::Namespace(namespace) => Object::Namespace(Namespace::from(&*namespace)),
        Written::Policy(policy) => Object::Policy(Policy::from(&*policy)),
    });
    if defects.is_empty() { Ok(manifest) } else { Err(defects) }
}

/// Reads what a file says, and what is wrong with the rest. Each object is converted as soon as it
/// is read; `convert` is also given its path in the document, which is empty but in lists.
pub(crate) fn parse_as<T>(
    format: Format,
    text: &[u8],
    node: &str,
    convert: fn(&str, Written) -> T,
) -> (Manifest<T>, Vec<Defect>) {
    let manifest = Manifest::default();
    let mut reader = Reader { node, convert, document: 0, manifest, defects: vec![] };
    match format {
        Format::Yaml => reader.yaml(text),
        Format::Json => reader.json(text),
    }
    (reader.manifest, reader.defects)
}

struct Reader<'a, T> {
    node: &'a str,
    convert: fn(&str, Written) -> T,
    document: usize,
    manifest: Manifest<T>,
    defects: Vec<Defect>,
}

impl<T> Reader<'_, T> {
    fn yaml(&mut self, mut text: &[u8]) {
        let options = serde_saphyr::options! {
            with_snippet: false,
            budget: serde_saphyr::budget! {
                max_nodes: MOST_NODES,
                max_events: 2 * MOST_NODES,
            },
            alias_limits: serde_saphyr::alias_limits! {
                max_total_replayed_events: MOST_ALIASED,
            },
        };
        for document in serde_saphyr::read_with_options::<_, Value>(&mut text, options) {
            self.document(document.map_err(|error| Problem::Yaml(error.to_string())));
        }
    }

    fn json(&mut self, text: &[u8]) {
        for document in serde_json::Deserializer::from_slice(text).into_iter() {
            self.document(document.map_err(Problem::Json));
        }
    }

    fn document(&mut self, document: Result<Value, Problem>) {
        self.document += 1;
        match document {
            Ok(value) => self.object(value, "", None, 0),
            Err(problem) => self.defect("", problem),
        }
    }

    /// Reads one object, which is at `path` of the document. Those of a list may leave out `kind`,
    /// which then is `default`.
    fn object(&mut self, value: Value, path: &str, default: Option<(&str, &str)>, depth: usize) {
        let text = |field| value.get(field).and_then(Value::as_str).map(str::to_owned);
        let default = default.map(|(version, kind)| (version.to_owned(), kind.to_owned()));
        let Some((version, kind)) = text("apiVersion").zip(text("kind")).or(default) else {
            return self.defect(path, Problem::NotAnObject);
        };
        let object = match (version.as_str(), kind.as_str()) {
            ("v1", "Pod") => typed(value, None).and_then(|pod| self.pod(pod)),
            ("v1", "Namespace") => typed(value, None).and_then(namespace),
            ("networking.k8s.io/v1", "NetworkPolicy") => {
                typed(value, Some("spec")).and_then(policy)
            }
            ("v1", "List" | "PodList" | "NamespaceList")
            | ("networking.k8s.io/v1", "NetworkPolicyList") => {
                return self.list(value, path, (&version, &kind), depth);
            }
            _ => match misspelt(&version, &kind) {
                Some(problem) => return self.defect(path, problem),
                None => return self.other(format!("{version} {kind}")),
            },
        };
        match object {
            Ok(object) => {
                let object = (self.convert)(path, object);
                self.manifest.objects.push((self.document, object));
            }
            Err((field, problem)) => self.defect(&join(path, &field), problem),
        }
    }

    fn list(&mut self, mut list: Value, path: &str, (version, kind): (&str, &str), depth: usize) {
        if depth == MOST_LISTS {
            return self.defect(path, Problem::TooDeep);
        }
        let default = kind.strip_suffix("List").filter(|kind| !kind.is_empty());
        let default = default.map(|kind| (version, kind));
        let items = match list.get_mut("items").map(Value::take) {
            None | Some(Value::Null) => return,
            Some(Value::Array(items)) => items,
            Some(_) => {
                let error = serde::de::Error::custom("expected a sequence");
                return self.defect(&join(path, "items"), Problem::Type(error));
            }
        };
        for (index, item) in items.into_iter().enumerate() {
            self.object(item, &join(path, &format!("items[{index}]")), default, depth + 1);
        }
    }

    fn pod(&self, mut pod: v1::Pod) -> Result<Written, (String, Problem)> {
        identify(&mut pod.metadata, "Pod", true)?;
        let spec = pod.spec.get_or_insert_default();
        spec.node_name.get_or_insert_with(|| self.node.to_owned());
        Ok(Written::Pod(Box::new(pod)))
    }

    fn other(&mut self, kind: String) {
        if !self.manifest.others.iter().any(|(_, known)| *known == kind) {
            self.manifest.others.push((self.document, kind));
        }
    }

    fn defect(&mut self, path: &str, problem: Problem) {
        if self.defects.len() < MOST_DEFECTS {
            let path = (!path.is_empty()).then(|| path.to_owned());
            self.defects.push(Defect { document: self.document, path, problem });
        }
    }
}

fn namespace(mut namespace: v1::Namespace) -> Result<Written, (String, Problem)> {
    identify(&mut namespace.metadata, "Namespace", false)?;
    Ok(Written::Namespace(Box::new(namespace)))
}

fn policy(mut policy: NetworkPolicy) -> Result<Written, (String, Problem)> {
    identify(&mut policy.metadata, "NetworkPolicy", true)?;
    Ok(Written::Policy(Box::new(policy)))
}

/// The uid of an object of a folder: made of its name, by which manifests are told apart. One that
/// the manifest has may have been copied with it from another object.
pub(super) fn uid(kind: &str, name: &str) -> String {
    format!("folder/{kind}/{name}")
}

fn identify(
    metadata: &mut ObjectMeta,
    kind: &str,
    namespaced: bool,
) -> Result<(), (String, Problem)> {
    let Some(name) = metadata.name.clone().filter(|name| !name.is_empty()) else {
        return Err(("metadata.name".to_owned(), Problem::NameMissing));
    };
    metadata.namespace.take_if(|namespace| namespace.is_empty());
    let name = if namespaced { NamespacedName::from(&*metadata).to_string() } else { name };
    metadata.uid = Some(uid(kind, &name));
    Ok(())
}

/// Reads a typed object. Fields that it does not have are refused below `strict`.
fn typed<T: DeserializeOwned>(value: Value, strict: Option<&str>) -> Result<T, (String, Problem)> {
    let mut unknown = None;
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    let object = serde_ignored::deserialize(tracked, |path| {
        let path = json_path(&path);
        if unknown.is_none() && strict.is_some_and(|strict| path.starts_with(strict)) {
            unknown = Some(path);
        }
    });
    match (object, unknown) {
        (Err(error), _) => {
            let path = track.path().to_string();
            Err((if path == "." { String::new() } else { path }, Problem::Type(error)))
        }
        (Ok(_), Some(path)) => Err((path, Problem::UnknownField)),
        (Ok(object), None) => Ok(object),
    }
}

fn json_path(path: &FieldPath<'_>) -> String {
    match path {
        FieldPath::Root => String::new(),
        FieldPath::Seq { parent, index } => format!("{}[{index}]", json_path(parent)),
        FieldPath::Map { parent, key } => join(&json_path(parent), key),
        FieldPath::Some { parent }
        | FieldPath::NewtypeStruct { parent }
        | FieldPath::NewtypeVariant { parent } => json_path(parent),
    }
}

fn join(path: &str, field: &str) -> String {
    match (path, field) {
        ("", _) => field.to_owned(),
        (_, "") => path.to_owned(),
        _ => format!("{path}.{field}"),
    }
}

/// A kind that would isolate pods or be isolated is not passed over because of how it is written.
fn misspelt(version: &str, kind: &str) -> Option<Problem> {
    const READ: [(&str, &str); 3] =
        [("v1", "Pod"), ("v1", "Namespace"), ("networking.k8s.io/v1", "NetworkPolicy")];
    // Other groups have kinds of the same names, with their own semantics.
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let known = ["", "extensions", "networking.k8s.io"].contains(&group);
    let (wanted_version, wanted) =
        READ.iter().find(|(_, wanted)| known && wanted.eq_ignore_ascii_case(kind))?;
    Some(Problem::Version {
        found: format!("{version} {kind}"),
        wanted: format!("{wanted_version} {wanted}"),
    })
}
