//! Which number a pool has.

use std::collections::{BTreeSet, HashMap};

use crate::model::NamespacedName;
use crate::plan::PoolId;
use crate::sorted::Map;

/// So many pools there can be.
const MOST: u32 = 1 << 20;

/// Numbers of pools: each has its own for as long as it is there. Who has just looked up the number of one that goes will look
/// for that one's endpoints, so nobody gets it before [`Self::settle`] unless there is no other.
#[derive(Debug, Default)]
pub struct Numbers {
    of_service: HashMap<NamespacedName, Map<PoolId, u32>>,
    /// Of those that have been given, those that are free.
    free: BTreeSet<u32>,
    /// Those of pools that went of late, or that the kernel has of nobody.
    resting: BTreeSet<u32>,
    /// All below this one have been given.
    next: u32,
}

/// There are more pools than numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("services have more than {MOST} ports with endpoints: no more can be served")]
pub struct Exhausted;

impl Numbers {
    /// The number that a pool has, or gets.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub fn of(&mut self, service: &NamespacedName, pool: &PoolId) -> Result<u32, Exhausted> {
        if let Some(number) = self.of_service.get(service).and_then(|it| it.get(pool)) {
            return Ok(*number);
        }
        let number = match self.free.pop_first() {
            Some(number) => number,
            None if self.next < MOST => {
                self.next += 1;
                self.next - 1
            }
            None => self.resting.pop_first().ok_or(Exhausted)?,
        };
        self.of_service.entry(service.clone()).or_default().insert(*pool, number);
        Ok(number)
    }

    fn has(&self, service: &NamespacedName, pool: &PoolId) -> bool {
        self.of_service.get(service).is_some_and(|it| it.contains_key(pool))
    }

    /// A pool has this number in the kernel from before: it keeps it, unless another has got it or it has one.
    pub fn keep(&mut self, service: &NamespacedName, pool: &PoolId, number: u32) {
        let is_taken = number < self.next && !self.free.contains(&number);
        if is_taken || self.has(service, pool) || number >= MOST {
            return;
        }
        self.free.extend(self.next..number);
        self.free.remove(&number);
        self.next = self.next.max(number + 1);
        self.of_service.entry(service.clone()).or_default().insert(*pool, number);
    }

    /// The kernel has this number from before: it rests, unless a pool has kept it.
    pub fn found(&mut self, number: u32) {
        if number >= self.next && number < MOST {
            self.free.extend(self.next..number);
            self.next = number + 1;
            self.resting.insert(number);
        } else if self.free.remove(&number) {
            self.resting.insert(number);
        }
    }

    /// All numbers that nobody has are free: packets that were under way with one have arrived.
    pub fn settle(&mut self) {
        self.free.append(&mut self.resting);
    }

    /// The numbers of a service's pools.
    #[must_use]
    pub fn of_service(&self, service: &NamespacedName) -> Map<PoolId, u32> {
        self.of_service.get(service).cloned().unwrap_or_default()
    }

    /// Only these pools of a service are there; the others' numbers rest, and are for others then.
    pub fn retain(&mut self, service: &NamespacedName, is_there: impl Fn(&PoolId) -> bool) {
        let Some(pools) = self.of_service.get_mut(service) else { return };
        pools.retain(|pool, number| {
            let is_there = is_there(pool);
            if !is_there {
                self.resting.insert(*number);
            }
            is_there
        });
        if pools.is_empty() {
            self.of_service.remove(service);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;
    use crate::plan::Scope;

    fn name(name: &str) -> NamespacedName {
        NamespacedName { namespace: "n".to_owned(), name: name.to_owned() }
    }

    fn pool(port: u16) -> PoolId {
        PoolId { is_ipv4: true, protocol: Protocol::Tcp, port, scope: Scope::Cluster }
    }

    #[test]
    fn a_pool_keeps_its_number_and_leaves_it_to_another() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.of(&name("a"), &pool(1)), Ok(0));
        assert_eq!(numbers.of(&name("a"), &pool(2)), Ok(1));
        assert_eq!(numbers.of(&name("a"), &pool(1)), Ok(0));
        numbers.retain(&name("a"), |it| it.port == 2);
        // Somebody may be on his way by the old one.
        assert_eq!(numbers.of(&name("b"), &pool(1)), Ok(2));
        numbers.settle();
        assert_eq!(numbers.of(&name("b"), &pool(2)), Ok(0));
        assert_eq!(numbers.of(&name("b"), &pool(3)), Ok(3));
    }

    #[test]
    fn what_the_kernel_has_of_nobody_is_for_others_later() {
        let mut numbers = Numbers::default();
        numbers.keep(&name("a"), &pool(1), 3);
        for number in [3, 1, 5, MOST] {
            numbers.found(number);
        }
        let next = |numbers: &mut Numbers, port| numbers.of(&name("b"), &pool(port)).unwrap();
        let given: Vec<_> = (1..=4).map(|it| next(&mut numbers, it)).collect();
        assert_eq!(given, [0, 2, 4, 6]);
        numbers.settle();
        assert_eq!([5, 6, 7].map(|it| next(&mut numbers, it)), [1, 5, 7]);
    }

    #[test]
    fn where_there_is_no_other_one_that_rests_is_given() {
        let mut numbers = Numbers::default();
        numbers.keep(&name("a"), &pool(1), 0);
        numbers.next = MOST;
        assert_eq!(numbers.of(&name("b"), &pool(1)), Err(Exhausted));
        numbers.retain(&name("a"), |_| false);
        assert_eq!(numbers.of(&name("b"), &pool(1)), Ok(0));
    }

    #[test]
    fn numbers_of_the_kernel_are_kept() {
        let mut numbers = Numbers::default();
        numbers.keep(&name("a"), &pool(1), 5);
        numbers.keep(&name("b"), &pool(1), 5);
        numbers.keep(&name("b"), &pool(1), 2);
        numbers.keep(&name("b"), &pool(1), 3);
        assert_eq!(numbers.of(&name("a"), &pool(1)), Ok(5));
        assert_eq!(numbers.of(&name("b"), &pool(1)), Ok(2));
        let rest: Vec<_> = (10..15).map(|it| numbers.of(&name("c"), &pool(it)).unwrap()).collect();
        assert_eq!(rest, [0, 1, 3, 4, 6]);
        numbers.keep(&name("d"), &pool(1), MOST);
        assert!(numbers.of_service(&name("d")).is_empty());
    }
}
