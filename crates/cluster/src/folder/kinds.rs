//! Which kinds of objects are read, and how.

use serde::de::DeserializeOwned;
use serde_ignored::Path as FieldPath;
use serde_json::Value;

use super::Objects;
use super::report::Problem;

/// The kinds of objects that a daemon reads.
pub trait Kinds: Sized + 'static {
    /// An object, as it is kept.
    type Object: Clone + PartialEq;

    /// They. Their names differ.
    const READ: &'static [Kind<Self>];

    /// Whether nothing is told before each file has been good once, as what the kernel has from before may be just what the bad one
    /// said, and nothing of one that comes later and never was. Else what can be read of it counts.
    const NEEDS_ALL: bool = true;

    /// Adds the objects that are there though no manifest has them.
    fn complete(&self, _objects: &mut Objects<Self::Object>) {}
}

/// A kind that is read.
pub struct Kind<K: Kinds> {
    /// Its API version, such as `networking.k8s.io/v1`. Others of its group are defects.
    pub version: &'static str,
    /// Its name.
    pub kind: &'static str,
    /// Whether its objects are in namespaces.
    pub is_namespaced: bool,
    /// Makes an object of what a manifest says. The text is its name, as in its [`super::Identity`]; empty where it has none,
    /// which is a defect that need not be told.
    pub read: fn(&K, &str, Value) -> Result<K::Object, Wrong>,
}

/// What is wrong in an object, after the JSON path of the field, which is empty where it is all of the object.
pub type Wrong = (String, Problem);

/// Reads a typed object. Fields that it does not have are refused where their paths begin with `strict`.
///
/// # Errors
/// It has another type, or such a field.
pub fn typed<T: DeserializeOwned>(value: Value, strict: Option<&str>) -> Result<T, Wrong> {
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

/// The path of a field of what is at `path`.
pub(super) fn join(path: &str, field: &str) -> String {
    match (path, field) {
        ("", _) => field.to_owned(),
        (_, "") => path.to_owned(),
        _ => format!("{path}.{field}"),
    }
}
