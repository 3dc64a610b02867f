//! The list of wanted differences. An entry that explains nothing fails the test.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;

use lab::Difference;
use regex::Regex;

/// One entry of the list.
#[derive(Debug)]
struct Entry {
    id: String,
    /// Which cases it is for.
    case: Regex,
    /// Which steps it is for.
    step: Regex,
    /// A line that only podwire has ...
    podwire: Option<Regex>,
    /// ... and what the reference has instead of it.
    becomes: Option<String>,
    /// A line that only the reference has.
    reference: Option<Regex>,
}

/// The list, and which of its entries have explained something.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    entries: Vec<Entry>,
    used: Mutex<BTreeSet<String>>,
}

impl Wanted {
    /// Reads the list beside this file.
    pub(crate) fn read(file: &Path) -> Self {
        let text =
            std::fs::read_to_string(file).expect("the list of wanted differences is missing");
        let document: toml::Table = text.parse().expect("the list is TOML");
        let entries = document["difference"].as_array().expect("[[difference]] entries");
        let wanted =
            Self { entries: entries.iter().map(Entry::read).collect(), used: Mutex::default() };
        let ids: BTreeSet<_> = wanted.entries.iter().map(|entry| &entry.id).collect();
        assert_eq!(ids.len(), wanted.entries.len(), "an id is there twice");
        wanted
    }

    /// Takes the wanted lines out of what differs in a step; what is left is a fault.
    pub(crate) fn explain(&self, case: &str, step: &str, mut found: Difference) -> Difference {
        let here = |entry: &&Entry| entry.case.is_match(case) && entry.step.is_match(step);
        for entry in self.entries.iter().filter(here) {
            if entry.take(&mut found) {
                self.used.lock().unwrap().insert(entry.id.clone());
            }
        }
        found
    }

    /// Notes that a step's expectation named an entry; it must be on the list.
    pub(crate) fn note(&self, id: &str) {
        let known = self.entries.iter().any(|entry| entry.id == id);
        assert!(known, "the case names the wanted difference {id:?}, which is not on the list");
        self.used.lock().unwrap().insert(id.to_owned());
    }

    /// Entries that never explained anything.
    pub(crate) fn unused(&self) -> Vec<&str> {
        let used = self.used.lock().unwrap();
        let ids = self.entries.iter().map(|entry| entry.id.as_str());
        ids.filter(|id| !used.contains(*id)).collect()
    }
}

impl Entry {
    fn read(value: &toml::Value) -> Self {
        let text = |key: &str| value.get(key).and_then(toml::Value::as_str);
        let id = text("id").expect("an entry has an id").to_owned();
        assert!(text("why").is_some_and(|why| why.len() > 20), "{id}: an entry says why");
        let pattern = |key: &str| {
            text(key).map(|p| Regex::new(p).unwrap_or_else(|error| panic!("{id}: {key}: {error}")))
        };
        let any = || Regex::new("").unwrap();
        Self {
            case: pattern("case").unwrap_or_else(any),
            step: pattern("step").unwrap_or_else(any),
            podwire: pattern("podwire"),
            becomes: text("becomes").map(str::to_owned),
            reference: pattern("reference"),
            id,
        }
    }

    /// Takes what this entry explains; tells whether there was anything.
    fn take(&self, found: &mut Difference) -> bool {
        let before = found.left.len() + found.right.len();
        if let Some(pattern) = &self.podwire {
            let right = &mut found.right;
            found
                .left
                .retain(|line| !(pattern.is_match(line) && self.is_answered(pattern, line, right)));
        }
        if let Some(pattern) = &self.reference {
            found.right.retain(|line| !pattern.is_match(line));
        }
        before != found.left.len() + found.right.len()
    }

    /// Whether the reference has what the line becomes, when the entry says so; takes it out.
    fn is_answered(&self, pattern: &Regex, line: &str, right: &mut Vec<String>) -> bool {
        let Some(becomes) = &self.becomes else { return true };
        let expected = pattern.replace(line, becomes);
        let position = right.iter().position(|there| *there == expected);
        position.map(|index| right.remove(index)).is_some()
    }
}
