//! Maps and sets as sorted lists. Of each service there are several, most with one entry or two: a tree makes room for eleven.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

/// A map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map<K, V>(Vec<(K, V)>);

/// A set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set<T>(Vec<T>);

impl<K: Ord, V> Map<K, V> {
    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        self.0.get(self.place(key).ok()?).map(|(_, value)| value)
    }

    /// Whether there is such a key.
    #[must_use]
    pub fn contains_key(&self, key: &K) -> bool {
        self.place(key).is_ok()
    }

    /// A key has this value from now on.
    pub fn insert(&mut self, key: K, value: V) {
        match self.place(&key) {
            Ok(place) => self.0.splice(place..=place, [(key, value)]).for_each(drop),
            Err(place) => {
                // Most stay as small as they are.
                self.0.reserve_exact(1);
                self.0.insert(place, (key, value));
            }
        }
    }

    /// Those with these keys.
    pub fn range(&self, keys: RangeInclusive<K>) -> impl Iterator<Item = (&K, &V)> {
        let first = self.0.partition_point(|(key, _)| key < keys.start());
        let from_there = self.0.iter().skip(first).map(|(key, value)| (key, value));
        from_there.take_while(move |(key, _)| *key <= keys.end())
    }

    fn place(&self, key: &K) -> Result<usize, usize> {
        self.0.binary_search_by(|(it, _)| it.cmp(key))
    }
}

impl<K, V> Map<K, V> {
    /// All of them, sorted by their keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// The keys.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    /// The values, sorted by their keys.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    /// Only those stay.
    pub fn retain(&mut self, mut stays: impl FnMut(&K, &V) -> bool) {
        self.0.retain(|(key, value)| stays(key, value));
    }

    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: Ord> Set<T> {
    /// Whether it is in the set.
    #[must_use]
    pub fn contains(&self, value: &T) -> bool {
        self.0.binary_search(value).is_ok()
    }

    /// It comes.
    pub fn insert(&mut self, value: T) {
        if let Err(place) = self.0.binary_search(&value) {
            // Most stay as small as they are.
            self.0.reserve_exact(1);
            self.0.insert(place, value);
        }
    }

    /// It goes.
    pub fn remove(&mut self, value: &T) {
        if let Ok(place) = self.0.binary_search(value) {
            self.0.remove(place);
        }
    }
}

impl<T> Set<T> {
    /// All of it, sorted.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }

    /// Only those stay.
    pub fn retain(&mut self, stays: impl FnMut(&T) -> bool) {
        self.0.retain(stays);
    }

    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Default for Set<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K, V> From<BTreeMap<K, V>> for Map<K, V> {
    fn from(tree: BTreeMap<K, V>) -> Self {
        Self(tree.into_iter().collect())
    }
}

impl<T> From<BTreeSet<T>> for Set<T> {
    fn from(tree: BTreeSet<T>) -> Self {
        Self(tree.into_iter().collect())
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Map<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(all: I) -> Self {
        all.into_iter().collect::<BTreeMap<_, _>>().into()
    }
}

impl<T: Ord> FromIterator<T> for Set<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Self {
        all.into_iter().collect::<BTreeSet<_>>().into()
    }
}

impl<K, V> IntoIterator for Map<K, V> {
    type Item = (K, V);
    type IntoIter = std::vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, K, V> IntoIterator for &'a Map<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = std::iter::Map<std::slice::Iter<'a, (K, V)>, fn(&'a (K, V)) -> (&'a K, &'a V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().map(|(key, value)| (key, value))
    }
}

impl<'a, T> IntoIterator for &'a Set<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn they_hold_what_trees_hold(
            changes in prop::collection::vec((0_u8..20, prop::option::of(any::<u8>())), 0..60),
            from in 0_u8..20, to in 0_u8..20,
        ) {
            let (mut map, mut map_tree) = (Map::default(), BTreeMap::new());
            let (mut set, mut set_tree) = (Set::default(), BTreeSet::new());
            for (key, value) in changes {
                match value {
                    Some(value) => {
                        map.insert(key, value);
                        map_tree.insert(key, value);
                        set.insert(key);
                        set_tree.insert(key);
                    }
                    None => {
                        map.retain(|it, _| *it != key);
                        map_tree.retain(|it, _| *it != key);
                        set.remove(&key);
                        set_tree.remove(&key);
                    }
                }
            }
            prop_assert_eq!(&map, &Map::from(map_tree.clone()));
            prop_assert_eq!(&map, &map_tree.clone().into_iter().rev().collect());
            prop_assert_eq!(&set, &set_tree.iter().copied().rev().collect());
            prop_assert!((0..20).all(|it| map.get(&it) == map_tree.get(&it)));
            prop_assert!((0..20).all(|it| set.contains(&it) == set_tree.contains(&it)));
            if from <= to {
                prop_assert!(map.range(from..=to).eq(map_tree.range(from..=to)));
            }
        }
    }
}
