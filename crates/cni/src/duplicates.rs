//! Members that stand twice in an object of JSON. Decoding hides them, as the last one wins.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// The JSON paths of members that an object has more than once, such as `sysctl.net.core.somaxconn`;
/// empty when `bytes` are no JSON.
#[must_use]
pub fn duplicates(bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut document = serde_json::Deserializer::from_slice(bytes);
    let root = Place { path: String::new(), found: &mut found };
    match root.deserialize(&mut document) {
        Ok(()) => found,
        // Who decodes the document tells so.
        Err(_) => Vec::new(),
    }
}

/// A value of the document.
struct Place<'a> {
    path: String,
    found: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let dot = if self.path.is_empty() { "" } else { "." };
            let path = format!("{}{dot}{key}", self.path);
            if !seen.insert(key) {
                self.found.push(path.clone());
            }
            map.next_value_seed(Place { path, found: self.found })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        for index in 0_usize.. {
            let path = format!("{}[{index}]", self.path);
            if list.next_element_seed(Place { path, found: self.found })?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_stand_twice_are_told_with_their_paths() {
        let text = br#"{"a":{"b.c":1,"b.c":2,"d":[{"e":null,"e":true}]},"f":"x","f":1.5,"F":-1}"#;
        assert_eq!(duplicates(text), ["a.b.c", "a.d[0].e", "f"]);
        assert_eq!(duplicates(br#"{"a":{"x":1},"b":{"x":1}}"#), [""; 0]);
        assert_eq!(duplicates(b"{"), [""; 0]);
    }
}
