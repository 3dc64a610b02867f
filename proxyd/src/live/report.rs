//! What the comparison shows, as a value.

use std::fmt;

use ruleset::nft::Element;
use serde::Serialize;

use crate::nftables::{Held, Key, Kind, element};
use crate::walk::Outcome;
use crate::words::all_of;

/// As many differences are told.
const MOST_TOLD: usize = 50;

/// Whether the kernel holds what it should. Its `Display` is for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Live {
    /// The node whose kernel it is.
    pub node: String,
    /// How many chains were compared.
    pub chains: usize,
    /// How many elements of maps and sets.
    pub elements: usize,
    /// Where it holds something else: the first.
    pub differences: Vec<Difference>,
    /// How many more there are.
    pub differences_left_out: usize,
    /// What should be known with it.
    pub notes: Vec<String>,
}

/// One place where the kernel holds something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Who connects, the element of a map, or the chain.
    pub place: String,
    /// What the objects say.
    pub expected: String,
    /// What the kernel holds.
    pub found: String,
}

impl Live {
    pub(super) fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            chains: 0,
            elements: 0,
            differences: Vec::new(),
            differences_left_out: 0,
            notes: Vec::new(),
        }
    }

    pub(super) fn differ(
        &mut self,
        place: &str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) {
        if self.differences.len() == MOST_TOLD {
            self.differences_left_out += 1;
            return;
        }
        let (place, expected, found) = (place.to_owned(), expected.into(), found.into());
        self.differences.push(Difference { place, expected, found });
    }

    /// Whether the kernel holds all that was compared.
    #[must_use]
    pub const fn holds(&self) -> bool {
        self.differences.is_empty()
    }
}

impl fmt::Display for Live {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, chains, elements, differences, differences_left_out, notes } = self;
        let verdict = if self.holds() { "holds exactly this" } else { "does not hold this" };
        writeln!(
            formatter,
            "kernel of {node}: {verdict} ({chains} chains and {elements} elements compared)"
        )?;
        for Difference { place, expected, found } in differences {
            writeln!(formatter, "  {place}: expected {expected}; found {found}")?;
        }
        if *differences_left_out > 0 {
            writeln!(formatter, "  and {differences_left_out} more differences")?;
        }
        notes.iter().try_for_each(|note| writeln!(formatter, "note: {note}"))
    }
}

/// What becomes of a connection, in words.
pub(super) fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::NotServed => "that it is left alone".to_owned(),
        Outcome::Rejected => "that it is refused".to_owned(),
        Outcome::Dropped => "that it is dropped".to_owned(),
        Outcome::Led { to, is_hidden, sticky } => {
            let to: Vec<_> = to.iter().collect();
            let masqueraded = if *is_hidden { ", masqueraded" } else { "" };
            let sticky = sticky.map(|it| format!(", for {it} s to the same")).unwrap_or_default();
            let to = if to.is_empty() { "nobody".to_owned() } else { all_of(&to) };
            format!("that it is led to {to}{masqueraded}{sticky}")
        }
    }
}

/// What is looked up, and what a map or set has of it, as the program nft writes them.
pub(super) fn entry(key: &Key, held: Option<&Held>) -> (String, String) {
    let whole = element(key, held.unwrap_or(&Held::There));
    let place = Element::new(whole.key.clone()).to_string();
    let value = match held {
        None => "no such element".to_owned(),
        Some(Held::Number(number)) => kind(*number),
        Some(Held::There) => "the element".to_owned(),
        Some(_) => {
            let text = whole.to_string();
            text.split_once(" : ").map_or(text.clone(), |(_, value)| value.to_owned())
        }
    };
    (place, value)
}

/// A number as the program nft writes it, with the chain that it leads to.
pub(super) fn kind(number: u32) -> String {
    let text = ruleset::nft::Value::Priority(number).to_string();
    match Kind::of_number(number) {
        Some(kind) => {
            let chain = kind.chain().unwrap_or_else(|| "drop".to_owned());
            format!("{text} ({chain})")
        }
        None => text,
    }
}
