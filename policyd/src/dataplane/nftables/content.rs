//! What a set of many elements is known to hold, without keeping them.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use ruleset::nft::Encoded;

/// The number of elements, and the sum of their hashes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) count: usize,
    sum: u64,
}

impl Content {
    pub(super) fn of(elements: &BTreeSet<Encoded>) -> Self {
        let mut content = Self::default();
        content.change(&BTreeSet::new(), elements);
        content
    }

    /// Elements went and came.
    pub(super) fn change(&mut self, gone: &BTreeSet<Encoded>, come: &BTreeSet<Encoded>) {
        let count = |it: &BTreeSet<Encoded>| it.iter().filter(|it| !it.is_end).count();
        self.count = (self.count + count(come)).saturating_sub(count(gone));
        let sum = |it: &BTreeSet<Encoded>| it.iter().map(hash).fold(0, u64::wrapping_add);
        self.sum = self.sum.wrapping_add(sum(come)).wrapping_sub(sum(gone));
    }
}

fn hash(element: &Encoded) -> u64 {
    let mut hasher = DefaultHasher::new();
    element.hash(&mut hasher);
    hasher.finish()
}
