//! What the comparison shows, as a value.

use std::fmt;

use serde::Serialize;

/// What is told where there is nothing of ours.
pub(super) const MISSING: &str =
    "no chain of policyd's is there: it has not written yet, or all was removed";

/// Whether the kernel holds what it should. Its `Display` is for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Live {
    /// The node whose kernel it is.
    pub node: String,
    /// How many chains were compared.
    pub chains: usize,
    /// How many sets.
    pub sets: usize,
    /// Where it holds something else.
    pub differences: Vec<Difference>,
    /// What was not compared, and why.
    pub notes: Vec<String>,
}

/// One place where the kernel holds something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The chain or set.
    pub place: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Live {
    pub(super) fn new(node: &str, notes: Vec<String>) -> Self {
        Self { node: node.to_owned(), chains: 0, sets: 0, differences: Vec::new(), notes }
    }

    pub(super) fn differ(&mut self, place: &str, problem: impl Into<String>) {
        self.differences.push(Difference { place: place.to_owned(), problem: problem.into() });
    }

    /// Whether nothing of policyd's was found somewhere where all of that should be.
    #[must_use]
    pub fn lacks_all(&self) -> bool {
        self.differences.iter().any(|it| it.problem == MISSING)
    }

    /// Whether the kernel holds all that was compared.
    #[must_use]
    pub const fn holds(&self) -> bool {
        self.differences.is_empty()
    }
}

impl fmt::Display for Live {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, chains, sets, differences, notes } = self;
        let compared = format!("{chains} chains and {sets} sets compared");
        if differences.is_empty() {
            writeln!(formatter, "kernel of {node}: holds exactly this ({compared})")?;
        } else {
            writeln!(formatter, "kernel of {node}: does not hold this ({compared})")?;
        }
        for Difference { place, problem } in differences {
            writeln!(formatter, "  {place}: {problem}")?;
        }
        notes.iter().try_for_each(|note| writeln!(formatter, "note: {note}"))
    }
}
