//! What one look at the node's network found and did.

use std::collections::BTreeSet;

use super::{Defect, Error};

/// What one [`Keeper::reconcile`](super::Keeper::reconcile) found and did.
#[derive(Debug, Default)]
pub struct Report {
    /// Why the network is not in place.
    pub problems: Vec<Error>,
    /// All else is, and policies are waited for.
    pub awaits_policy: bool,
    /// What of the cluster cannot be as it says.
    pub defects: Vec<Defect>,
    /// How many routes of ours there are.
    pub routes: usize,
    /// How many of them were added, and how many removed.
    pub changed_routes: (usize, usize),
    /// What had been in place, was no longer, and is again.
    pub repairs: Repairs,
    /// The list that was written, if it was.
    pub written: Option<String>,
}

/// What was put in its place again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repairs {
    /// So many routes.
    pub routes: u64,
    /// The rules that accept.
    pub rules: bool,
    /// Forwarding.
    pub forwarding: bool,
    /// The runtime's file.
    pub file: bool,
}

impl Report {
    /// One of a single problem.
    pub(super) fn of(problem: Error) -> Self {
        Self { problems: vec![problem], ..Self::default() }
    }

    /// Whether the network is in place; why it is not.
    ///
    /// # Errors
    /// All problems, in one line.
    pub fn state(&self) -> Result<(), String> {
        if self.problems.is_empty() {
            let text = "the node's network waits for policies to be in force";
            return if self.awaits_policy { Err(text.to_owned()) } else { Ok(()) };
        }
        let texts: Vec<_> = self.problems.iter().map(|it| crate::chain(it)).collect();
        Err(format!("the node's network is not in place: {}", texts.join("; ")))
    }

    /// How many nodes have pods that cannot be reached.
    #[must_use]
    pub fn unreachable_nodes(&self) -> usize {
        self.defects.iter().filter_map(Defect::node).collect::<BTreeSet<_>>().len()
    }

    /// How many lists the runtime takes before ours.
    #[must_use]
    pub fn rival_lists(&self) -> usize {
        self.defects.iter().filter(|it| matches!(it, Defect::Shadowed { .. })).count()
    }

    /// Keeps what could be done, and why something could not.
    pub(super) fn note<T: Default>(&mut self, result: Result<T, Error>) -> T {
        result.unwrap_or_else(|problem| {
            self.problems.push(problem);
            T::default()
        })
    }
}
