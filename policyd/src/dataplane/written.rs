//! What the tables hold, in the words of the plan.

use std::collections::BTreeMap;

use crate::plan::{ChainKey, Changes, Endpoint, Plan, PolicyChain};

/// The endpoints and chains of a plan, as they were last written or are about to be.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) endpoints: BTreeMap<String, Endpoint>,
    pub(super) chains: BTreeMap<ChainKey, PolicyChain>,
}

impl Written {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { endpoints: plan.endpoints.clone(), chains: plan.chains.clone() }
    }

    pub(super) fn change(&mut self, changes: &Changes) {
        update(&mut self.endpoints, &changes.endpoints);
        update(&mut self.chains, &changes.chains);
    }
}

fn update<K: Ord + Clone, V: Clone>(held: &mut BTreeMap<K, V>, changes: &BTreeMap<K, Option<V>>) {
    for (key, value) in changes {
        match value {
            Some(value) => _ = held.insert(key.clone(), value.clone()),
            None => _ = held.remove(key),
        }
    }
}
