//! What a manifest says: pure.

use std::path::Path;

use serde_json::Value;

use super::Identity;
use super::kinds::{Kind, Kinds, join};
use super::report::{Defect, Problem};

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
pub enum Format {
    /// Documents of YAML.
    Yaml,
    /// Values of JSON, one after the other.
    Json,
}

impl Format {
    /// Of a file that has a manifest's name. Hidden files do not: editors and ConfigMap volumes
    /// keep their own things in them.
    #[must_use]
    pub fn of(file: &Path) -> Option<Self> {
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
pub struct Manifest<T> {
    /// The objects.
    pub objects: Vec<Entry<T>>,
    /// The kinds that were passed over, each with the number of its first document.
    pub others: Vec<(usize, String)>,
}

impl<T> Default for Manifest<T> {
    fn default() -> Self {
        Self { objects: Vec::new(), others: Vec::new() }
    }
}

/// An object of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<T> {
    /// The document that it is in: 1 is the first. Empty ones do not count.
    pub document: usize,
    /// Its JSON path in the document: empty but in lists.
    pub path: String,
    /// Its kind and name.
    pub identity: Identity,
    /// It.
    pub object: T,
}

/// Reads what a file says, and what is wrong with the rest.
pub fn parse<K: Kinds>(
    format: Format,
    text: &[u8],
    kinds: &K,
) -> (Manifest<K::Object>, Vec<Defect>) {
    let mut reader = Reader { kinds, document: 0, manifest: Manifest::default(), defects: vec![] };
    match format {
        Format::Yaml => reader.yaml(text),
        Format::Json => reader.json(text),
    }
    (reader.manifest, reader.defects)
}

struct Reader<'a, K: Kinds> {
    kinds: &'a K,
    document: usize,
    manifest: Manifest<K::Object>,
    defects: Vec<Defect>,
}

impl<K: Kinds> Reader<'_, K> {
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
        if let Some(read) = K::READ.iter().find(|it| it.version == version && it.kind == kind) {
            return self.of_kind(read, value, path);
        }
        if is_list::<K>(&version, &kind) {
            return self.list(value, path, (&version, &kind), depth);
        }
        match misspelt::<K>(&version, &kind) {
            Some(problem) => self.defect(path, problem),
            None => self.other(format!("{version} {kind}")),
        }
    }

    fn of_kind(&mut self, kind: &Kind<K>, value: Value, path: &str) {
        let name = name(&value, kind.is_namespaced);
        match (kind.read)(self.kinds, name.as_deref().unwrap_or_default(), value) {
            Err((field, problem)) => self.defect(&join(path, &field), problem),
            Ok(object) => match name {
                None => self.defect(&join(path, "metadata.name"), Problem::NameMissing),
                Some(name) => self.manifest.objects.push(Entry {
                    document: self.document,
                    path: path.to_owned(),
                    identity: (kind.kind, name),
                    object,
                }),
            },
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

/// An object's name, ahead of which its namespace is where it has one.
fn name(object: &Value, is_namespaced: bool) -> Option<String> {
    let metadata = object.get("metadata")?;
    let text = |field| metadata.get(field).and_then(Value::as_str).filter(|it| !it.is_empty());
    let name = text("name")?;
    Some(if is_namespaced {
        format!("{}/{name}", text("namespace").unwrap_or("default"))
    } else {
        name.to_owned()
    })
}

/// Whether it is a list of any kinds, or of one that is read.
fn is_list<K: Kinds>(version: &str, kind: &str) -> bool {
    let of_kind =
        |it: &Kind<K>| it.version == version && kind.strip_suffix("List") == Some(it.kind);
    (version, kind) == ("v1", "List") || K::READ.iter().any(of_kind)
}

/// A kind that is needed is not passed over because of how it is written.
fn misspelt<K: Kinds>(version: &str, kind: &str) -> Option<Problem> {
    // Other groups have kinds of the same names, with their own semantics.
    let is_known = K::READ.iter().any(|it| group(it.version) == group(version));
    // Kinds of many groups began in this one.
    let is_known = is_known || group(version) == "extensions";
    let wanted = K::READ.iter().find(|it| is_known && it.kind.eq_ignore_ascii_case(kind))?;
    Some(Problem::Version {
        found: format!("{version} {kind}"),
        wanted: format!("{} {}", wanted.version, wanted.kind),
    })
}

fn group(version: &str) -> &str {
    version.split_once('/').map_or("", |(group, _)| group)
}
