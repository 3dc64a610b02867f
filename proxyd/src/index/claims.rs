//! Which service has a place that several want: the addresses of load balancers and external ones anybody may name.

use std::collections::{BTreeSet, HashMap};

use crate::model::NamespacedName;
use crate::plan::{At, Frontend, Origin};
use crate::sorted::Map;

/// Who wants a place. The first in their order has it: what the cluster has given before what somebody has named, and
/// older services before newer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    origin: Origin,
    created: i64,
    name: NamespacedName,
}

/// Who wants which place.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Sorted, and none empty. Most have one.
    of_place: HashMap<At, Vec<Claim>>,
}

impl Claims {
    /// What a service wants instead of what it wanted; which others have got or lost a place by that.
    pub(super) fn change(
        &mut self,
        name: &NamespacedName,
        created: i64,
        before: Option<&Map<At, Frontend>>,
        now: Option<&Map<At, Frontend>>,
    ) -> BTreeSet<NamespacedName> {
        let mut others = BTreeSet::new();
        let mut change = |at: &At, claim: Option<Claim>| {
            let claims = self.of_place.entry(*at).or_default();
            let owner = claims.first().map(|it| it.name.clone());
            claims.retain(|it| it.name != *name);
            // Most places one service wants.
            claims.reserve_exact(usize::from(claim.is_some()));
            claims.extend(claim);
            claims.sort();
            let new_owner = claims.first().map(|it| it.name.clone());
            if claims.is_empty() {
                self.of_place.remove(at);
            }
            if owner != new_owner {
                others.extend([owner, new_owner].into_iter().flatten().filter(|it| it != name));
            }
        };
        for at in before.into_iter().flat_map(Map::keys) {
            if now.is_none_or(|it| !it.contains_key(at)) {
                change(at, None);
            }
        }
        for (at, frontend) in now.into_iter().flatten() {
            let claim = Claim { origin: frontend.origin, created, name: name.clone() };
            change(at, Some(claim));
        }
        others
    }

    /// Who has a place.
    pub(super) fn owner(&self, at: &At) -> Option<&NamespacedName> {
        self.all(at).next()
    }

    /// Who wants a place; the first has it.
    pub(super) fn all(&self, at: &At) -> impl Iterator<Item = &NamespacedName> {
        self.of_place.get(at).into_iter().flatten().map(|it| &it.name)
    }
}
