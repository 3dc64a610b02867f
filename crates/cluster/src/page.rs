//! Pages of a list, trimmed while they are read: 500 pods as objects take some 50 MB.

use std::fmt;
use std::marker::PhantomData;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess};
use serde::de::{SeqAccess, Visitor};

/// A page of a list.
pub(crate) struct Page<T> {
    pub(crate) metadata: ListMeta,
    pub(crate) items: Vec<T>,
}

/// Reads a page of objects `K`, of each of which only what `trim` makes of it is kept.
pub(crate) fn parse<K: DeserializeOwned, T>(
    text: &str,
    trim: fn(K) -> T,
) -> Result<Page<T>, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let page = reader.deserialize_map(List { trim, kind: PhantomData })?;
    reader.end()?;
    Ok(page)
}

struct List<K, T> {
    trim: fn(K) -> T,
    kind: PhantomData<K>,
}

impl<'de, K: DeserializeOwned, T> Visitor<'de> for List<K, T> {
    type Value = Page<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Page<T>, A::Error> {
        let mut page = Page { metadata: ListMeta::default(), items: Vec::new() };
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "metadata" => page.metadata = map.next_value()?,
                "items" => page.items = map.next_value_seed(Items(self.trim))?,
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(page)
    }
}

struct Items<K, T>(fn(K) -> T);

impl<'de, K: DeserializeOwned, T> DeserializeSeed<'de> for Items<K, T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, K: DeserializeOwned, T> Visitor<'de> for Items<K, T> {
    type Value = Vec<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a sequence of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut objects: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(object) = objects.next_element::<K>()? {
            items.push((self.0)(object));
        }
        Ok(items)
    }

    /// Go writes a list without items like this.
    fn visit_unit<E>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Namespace;

    use super::*;

    fn names(text: &str) -> Result<(Vec<String>, ListMeta), String> {
        let trim = |it: Namespace| it.metadata.name.unwrap_or_default();
        let page = parse(text, trim).map_err(|error| error.to_string())?;
        Ok((page.items, page.metadata))
    }

    #[test]
    fn items_are_trimmed_and_metadata_is_read_in_any_order() {
        let item = |name| {
            format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{name}"}}}}"#)
        };
        let items = format!(r#""items":[{},{}]"#, item("a"), item("b"));
        let metadata = r#""metadata":{"resourceVersion":"7","continue":"x"}"#;
        for text in [
            format!(r#"{{"kind":"NamespaceList",{items},{metadata}}}"#),
            format!(r#"{{{metadata},"other":[{{"deep":1}}],{items}}}"#),
        ] {
            let (items, metadata) = names(&text).unwrap();
            assert_eq!(items, ["a", "b"]);
            assert_eq!(metadata.resource_version.as_deref(), Some("7"));
            assert_eq!(metadata.continue_.as_deref(), Some("x"));
        }
    }

    #[test]
    fn items_may_be_null_and_absent() {
        for text in [r#"{"items":null}"#, r#"{"items":[]}"#, "{}"] {
            assert_eq!(names(text).unwrap().0, [""; 0]);
        }
    }

    #[test]
    fn what_is_no_list_is_an_error() {
        for text in ["", "[]", r#"{"items":{}}"#, r#"{"items":[5]}"#, r#"{"items":["#, "{}{}"] {
            assert!(names(text).is_err(), "{text}");
        }
    }
}
