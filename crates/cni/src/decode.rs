//! Decoding of network configurations as the runtimes' world expects it (Go's `encoding/json`):
//! keys match whatever their case, the last of duplicates wins, `null` means absent, unknown keys
//! are ignored. Unlike there, every problem is collected, each with its JSON path, so that one
//! parser serves both the plugin (first problem) and `podwire validate` (all of them).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

use crate::Error;

/// How bad a problem is, and thus which code it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The value's type is wrong (code 6).
    Undecodable,
    /// The value is wrong (code 7).
    Invalid,
    /// The value is wrong, and comes from the environment (code 4).
    Environment,
    /// The key is not known: ignored by the plugin, told by `validate`.
    Unknown,
}

/// One problem of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: `ipam.ranges[0][1].subnet`.
    pub path: String,
    /// What is wrong there.
    pub text: String,
    /// How bad it is.
    pub severity: Severity,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.path, self.text)
    }
}

/// The problems found so far. Shared by all [`Fields`] of one configuration.
#[derive(Debug, Default)]
pub struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    /// Adds one.
    pub fn add(&self, severity: Severity, path: impl Into<String>, text: impl Into<String>) {
        self.0.borrow_mut().push(Problem { path: path.into(), text: text.into(), severity });
    }

    /// All of them, in the order in which they were found.
    #[must_use]
    pub fn into_vec(self) -> Vec<Problem> {
        self.0.into_inner()
    }

    /// The first that is more than a warning, as the error of the call.
    ///
    /// # Errors
    /// [`Error::Undecodable`], [`Error::InvalidConfig`] or [`Error::Args`].
    pub fn into_result(self) -> Result<(), Error> {
        for Problem { path, text: problem, severity } in self.into_vec() {
            match severity {
                Severity::Undecodable => return Err(Error::Undecodable { path, problem }),
                Severity::Invalid => return Err(Error::InvalidConfig { path, problem }),
                Severity::Environment => return Err(Error::Args(format!("{path}: {problem}"))),
                Severity::Unknown => {}
            }
        }
        Ok(())
    }
}

/// The members of one JSON object, read by name.
#[derive(Debug)]
pub struct Fields<'a> {
    path: String,
    members: &'a Map<String, Value>,
    problems: &'a Problems,
    known: RefCell<Vec<&'static str>>,
    knows_all: Cell<bool>,
}

impl<'a> Fields<'a> {
    /// The outermost object.
    #[must_use]
    pub fn root(members: &'a Map<String, Value>, problems: &'a Problems) -> Self {
        Self::at(String::new(), members, problems)
    }

    fn at(path: String, members: &'a Map<String, Value>, problems: &'a Problems) -> Self {
        Self { path, members, problems, known: RefCell::default(), knows_all: Cell::new(false) }
    }

    /// The JSON path of member `key`.
    #[must_use]
    pub fn path_of(&self, key: &str) -> String {
        match (self.path.is_empty(), key) {
            // A path that ends in nothing would name the object that holds it.
            (_, "") => format!("{}[\"\"]", self.path),
            (true, _) => key.to_owned(),
            (false, _) => format!("{}.{key}", self.path),
        }
    }

    /// Records that the value at `key` is wrong.
    pub fn invalid(&self, key: &str, text: impl Into<String>) {
        self.problems.add(Severity::Invalid, self.path_of(key), text);
    }

    /// Where problems are collected.
    #[must_use]
    pub const fn problems(&self) -> &'a Problems {
        self.problems
    }

    /// Member `key` whatever its type; absent and `null` are `None`.
    #[must_use]
    pub fn value(&self, key: &'static str) -> Option<&'a Value> {
        self.known.borrow_mut().push(key);
        lookup(self.members, key)
    }

    /// Whether `key` is present and not `null`.
    #[must_use]
    pub fn has(&self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    fn typed<T>(
        &self,
        key: &'static str,
        wanted: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.value(key)?;
        let typed = read(value);
        if typed.is_none() {
            let text = format!("expected {wanted}, found {}", kind(value));
            self.problems.add(Severity::Undecodable, self.path_of(key), text);
        }
        typed
    }

    /// A string.
    #[must_use]
    pub fn string(&self, key: &'static str) -> Option<&'a str> {
        self.typed(key, "a string", Value::as_str)
    }

    /// A boolean.
    #[must_use]
    pub fn bool(&self, key: &'static str) -> Option<bool> {
        self.typed(key, "a boolean", Value::as_bool)
    }

    /// An integer; numbers with a fraction are none.
    #[must_use]
    pub fn integer(&self, key: &'static str) -> Option<i64> {
        self.typed(key, "an integer", Value::as_i64)
    }

    /// An IP address; an empty string is absent, as in the reference.
    #[must_use]
    pub fn address(&self, key: &'static str) -> Option<IpAddr> {
        let text = self.string(key).filter(|text| !text.is_empty())?;
        let address = crate::parse_address(text);
        if address.is_none() {
            self.invalid(key, format!("{text:?} is not an IP address"));
        }
        address
    }

    /// An address with its prefix length.
    #[must_use]
    pub fn cidr(&self, key: &'static str) -> Option<IpNetwork> {
        let text = self.string(key)?;
        let cidr = crate::parse_cidr(text);
        if cidr.is_none() {
            self.invalid(key, format!("{text:?} is not in CIDR notation"));
        }
        cidr
    }

    /// A nested object.
    #[must_use]
    pub fn object(&self, key: &'static str) -> Option<Fields<'a>> {
        let members = self.typed(key, "an object", Value::as_object)?;
        Some(Self::at(self.path_of(key), members, self.problems))
    }

    /// A list, read element by element.
    #[must_use]
    pub fn array(&self, key: &'static str) -> Option<Vec<Element<'a>>> {
        let values = self.typed(key, "a list", Value::as_array)?;
        Some(elements(&self.path_of(key), values, self.problems))
    }

    /// A list of strings; `null` elements are empty strings, as in Go.
    #[must_use]
    pub fn strings(&self, key: &'static str) -> Option<Vec<&'a str>> {
        Some(self.array(key)?.iter().filter_map(Element::string).collect())
    }

    /// Every member, whatever its key, as a string, in the order in which they stand; `null` is
    /// an empty one, as in Go.
    #[must_use]
    pub fn members(&self) -> Vec<(&'a str, &'a str)> {
        self.know_all();
        let mut members = Vec::new();
        for (key, value) in self.members {
            match value {
                Value::Null => members.push((key.as_str(), "")),
                Value::String(text) => members.push((key.as_str(), text.as_str())),
                other => {
                    let text = format!("expected a string, found {}", kind(other));
                    self.problems.add(Severity::Undecodable, self.path_of(key), text);
                }
            }
        }
        members
    }

    /// Has [`Self::finish`] call no key unknown.
    pub fn know_all(&self) {
        self.knows_all.set(true);
    }

    /// Tells the keys that nobody asked for as warnings.
    pub fn finish(self) {
        if self.knows_all.get() {
            return;
        }
        let known = self.known.borrow();
        for key in self.members.keys() {
            if !known.iter().any(|name| name.eq_ignore_ascii_case(key)) {
                self.problems.add(Severity::Unknown, self.path_of(key), "unknown key (ignored)");
            }
        }
    }
}

/// One element of a list.
#[derive(Debug)]
pub struct Element<'a> {
    path: String,
    value: &'a Value,
    problems: &'a Problems,
}

impl<'a> Element<'a> {
    /// Where it stands: `routes[0]`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Records that the element is wrong.
    pub fn invalid(&self, text: impl Into<String>) {
        self.problems.add(Severity::Invalid, self.path.clone(), text);
    }

    fn typed<T>(&self, wanted: &str, typed: Option<T>) -> Option<T> {
        if typed.is_none() {
            let text = format!("expected {wanted}, found {}", kind(self.value));
            self.problems.add(Severity::Undecodable, self.path.clone(), text);
        }
        typed
    }

    /// As a string.
    #[must_use]
    pub fn string(&self) -> Option<&'a str> {
        if self.value.is_null() {
            return Some("");
        }
        self.typed("a string", self.value.as_str())
    }

    /// As an object; `null` is an empty one.
    #[must_use]
    pub fn object(&self) -> Option<Fields<'a>> {
        static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
        if self.value.is_null() {
            return Some(Fields::at(self.path.clone(), &EMPTY, self.problems));
        }
        let members = self.typed("an object", self.value.as_object())?;
        Some(Fields::at(self.path.clone(), members, self.problems))
    }

    /// As a list; `null` is an empty one.
    #[must_use]
    pub fn array(&self) -> Option<Vec<Element<'a>>> {
        if self.value.is_null() {
            return Some(Vec::new());
        }
        let values = self.typed("a list", self.value.as_array())?;
        Some(elements(&self.path, values, self.problems))
    }
}

fn elements<'a>(path: &str, values: &'a [Value], problems: &'a Problems) -> Vec<Element<'a>> {
    let element = |(index, value)| Element { path: format!("{path}[{index}]"), value, problems };
    values.iter().enumerate().map(element).collect()
}

/// Member `key` of `members`, whatever its case; of several the last; `null` is absent.
#[must_use]
pub fn lookup<'a>(members: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    // A null leaves what an earlier duplicate set, as in Go.
    let mut matching = members.iter().filter(|(name, _)| name.eq_ignore_ascii_case(key));
    matching.rfind(|(_, value)| !value.is_null()).map(|(_, value)| value)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn keys_match_whatever_their_case_and_the_last_wins() {
        let problems = Problems::default();
        let members = members(r#"{"isGateway":false,"ISGATEWAY":true,"mtu":null}"#);
        let fields = Fields::root(&members, &problems);
        assert_eq!(fields.bool("isGateway"), Some(true));
        assert_eq!(fields.integer("mtu"), None);
        fields.finish();
        assert!(problems.into_vec().is_empty());
    }

    #[test]
    fn every_problem_is_told_with_its_path() {
        let problems = Problems::default();
        let members = members(r#"{"a":{"b":[{"c":1.5},{"d":"x"}]},"zz":1}"#);
        let fields = Fields::root(&members, &problems);
        let inner = fields.object("a").unwrap();
        for element in inner.array("b").unwrap() {
            let object = element.object().unwrap();
            let _ = (object.integer("c"), object.bool("d"));
        }
        fields.finish();
        let told: Vec<String> = problems.into_vec().iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "a.b[0].c: expected an integer, found a number",
                "a.b[1].d: expected a boolean, found a string",
                "zz: unknown key (ignored)"
            ]
        );
    }

    #[test]
    fn wrong_types_are_code_6_and_wrong_values_code_7() {
        for (text, code) in [(r#"{"gw":1}"#, 6), (r#"{"gw":"1.2.3"}"#, 7)] {
            let (problems, members) = (Problems::default(), members(text));
            assert_eq!(Fields::root(&members, &problems).address("gw"), None);
            assert_eq!(problems.into_result().unwrap_err().code(), code);
        }
    }
}
