//! Which services change in one transaction: a place that passes from one to another is always one's.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::model::NamespacedName;
use crate::nftables::{Content, Key, Map};
use crate::plan::At;

/// A service that changes: its name, what it has then, and the pools whose clients are to be forgotten.
pub(super) type Changed<'a> = (&'a NamespacedName, Content, BTreeSet<u32>);

/// The changes in groups: who gets a place is in the group of who loses it.
pub(super) fn together<'a>(
    changes: Vec<Changed<'a>>,
    held: &HashMap<NamespacedName, Content>,
) -> Vec<Vec<Changed<'a>>> {
    let mut losers: HashMap<At, usize> = HashMap::new();
    for (place, (name, content, _)) in changes.iter().enumerate() {
        let lost = held.get(*name).into_iter().flat_map(places).filter(|it| !has(content, it));
        losers.extend(lost.map(|at| (at, place)));
    }
    let mut groups = Groups((0..changes.len()).collect());
    if !losers.is_empty() {
        for (place, (_, content, _)) in changes.iter().enumerate() {
            places(content).filter_map(|at| losers.get(&at)).for_each(|it| groups.join(place, *it));
        }
    }
    let mut of_first: BTreeMap<usize, Vec<Changed<'a>>> = BTreeMap::new();
    for (place, change) in changes.into_iter().enumerate() {
        of_first.entry(groups.first(place)).or_default().push(change);
    }
    of_first.into_values().collect()
}

/// The places that a service has.
fn places(content: &Content) -> impl Iterator<Item = At> + '_ {
    content.keys().filter_map(|key| match key {
        Key::Place(Map::Services, at) => Some(*at),
        _ => None,
    })
}

fn has(content: &Content, at: &At) -> bool {
    content.contains_key(&Key::Place(Map::Services, *at))
}

/// Sets that have nothing in common, each known by one in it (union-find): where the way from each leads on to.
struct Groups(Vec<usize>);

impl Groups {
    fn first(&mut self, mut of: usize) -> usize {
        while let Some(next) = self.0.get(of).copied().filter(|it| *it != of) {
            // The way gets shorter each time it is gone.
            let behind = self.0.get(next).copied().unwrap_or(next);
            if let Some(it) = self.0.get_mut(of) {
                *it = behind;
            }
            of = behind;
        }
        of
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.first(one), self.first(other));
        if let Some(it) = self.0.get_mut(one.max(other)) {
            *it = one.min(other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;
    use crate::nftables::Held;

    #[test]
    fn who_gets_a_place_changes_with_who_loses_it() {
        let name = |it: &str| NamespacedName { namespace: "n".to_owned(), name: it.to_owned() };
        let content = |ports: &[u16]| -> Content {
            let at =
                |port| At { address: "10.96.0.1".parse().unwrap(), protocol: Protocol::Tcp, port };
            let key = |it: &u16| (Key::Place(Map::Services, at(*it)), Held::Number(0));
            ports.iter().map(key).collect()
        };
        // From c to a, and from e to c; b and d keep theirs, f is new, g loses one that nobody gets.
        let of = [
            ("a", &[][..], &[1, 2][..]),
            ("b", &[3], &[3]),
            ("c", &[1], &[5]),
            ("d", &[4], &[4, 9]),
            ("e", &[5], &[]),
            ("f", &[], &[7]),
            ("g", &[8], &[]),
        ];
        let names: Vec<_> = of.iter().map(|it| name(it.0)).collect();
        let held = of.iter().map(|(it, before, _)| (name(it), content(before))).collect();
        let now = of.iter().map(|(_, _, now)| content(now));
        let changes = names.iter().zip(now).map(|(name, now)| (name, now, BTreeSet::new()));
        let groups = together(changes.collect(), &held);
        let names = |group: &Vec<Changed<'_>>| group.iter().map(|it| it.0.name.clone()).collect();
        let groups: Vec<String> = groups.iter().map(names).collect();
        assert_eq!(groups, ["ace", "b", "d", "f", "g"]);
    }
}
