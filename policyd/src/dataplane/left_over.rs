//! Whose flows may be left in the kernel though nobody has the address any more.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnetwork::IpNetwork;

/// The addresses that flows of a former owner may be left of. Who opens the gate to an address asks
/// here first: reading the kernel's whole table takes long where it has many flows. Who looks at all
/// of them anyway has those forgotten that are left.
#[derive(Debug, Clone, Default)]
pub(crate) struct LeftOver(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What is noted here, counted.
    now: u64,
    /// When an address was left.
    left: BTreeMap<IpAddr, u64>,
    /// From when on all that were left are known.
    known_since: u64,
    /// Up to when all flows were looked at, if they were.
    looked: Option<u64>,
}

/// What was known at one moment.
#[derive(Debug)]
pub(crate) struct Suspects {
    at: u64,
    left: BTreeMap<IpAddr, u64>,
    is_complete: bool,
    gated: Vec<IpNetwork>,
}

impl LeftOver {
    /// Nobody has these addresses any more, or somebody else has.
    pub(super) fn leave<'a>(&self, addresses: impl IntoIterator<Item = &'a IpAddr>) {
        let mut state = self.state();
        state.now += 1;
        let now = state.now;
        state.left.extend(addresses.into_iter().map(|it| (*it, now)));
    }

    /// From now on it is not known who has left flows.
    pub(super) fn lose_track(&self) {
        let mut state = self.state();
        state.now += 1;
        state.known_since = state.now;
    }

    /// Whether flows of a former owner of this address may be left.
    pub(super) fn may_be_of(&self, address: &IpAddr) -> bool {
        let state = self.state();
        state.left.contains_key(address) || !state.is_complete()
    }

    /// Those whose flows are to be forgotten now; as long as nobody knows which they are, all of the
    /// ranges that the gate keeps closed.
    pub(crate) fn suspects(&self, gated: Vec<IpNetwork>) -> Suspects {
        let state = self.state();
        let (left, is_complete) = (state.left.clone(), state.is_complete());
        Suspects { at: state.now, left, is_complete, gated }
    }

    /// No flows of these are left, but of those that were left again meanwhile, and of `kept`: who has
    /// these may have got them only now.
    pub(crate) fn are_forgotten(&self, suspects: &Suspects, kept: &HashSet<IpAddr>) {
        let mut state = self.state();
        state.left.retain(|address, since| {
            suspects.left.get(address) != Some(since) || kept.contains(address)
        });
        if !suspects.is_complete {
            for address in kept {
                state.left.entry(*address).or_insert(suspects.at);
            }
        }
        state.looked = state.looked.max(Some(suspects.at));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of it is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_complete(&self) -> bool {
        self.looked.is_some_and(|looked| looked >= self.known_since)
    }
}

impl Suspects {
    /// Whether it is one of them.
    pub(crate) fn has(&self, address: &IpAddr) -> bool {
        let is_gated = || self.gated.iter().any(|range| range.contains(*address));
        self.left.contains_key(address) || !self.is_complete && is_gated()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn looked() -> LeftOver {
        let left_over = LeftOver::default();
        left_over.lose_track();
        left_over.are_forgotten(&left_over.suspects(Vec::new()), &HashSet::new());
        left_over
    }

    #[test]
    fn at_first_it_is_not_known() {
        let left_over = LeftOver::default();
        assert!(left_over.may_be_of(&ADDRESS));
        assert!(left_over.suspects(vec!["10.0.0.0/24".parse().unwrap()]).has(&ADDRESS));
        assert!(!left_over.suspects(Vec::new()).has(&ADDRESS));
        assert!(!looked().may_be_of(&ADDRESS));
    }

    #[test]
    fn one_that_is_left_is_until_its_flows_are_forgotten() {
        let left_over = looked();
        left_over.leave([&ADDRESS]);
        assert!(left_over.may_be_of(&ADDRESS) && !left_over.may_be_of(&OTHER));
        let suspects = left_over.suspects(Vec::new());
        assert!(suspects.has(&ADDRESS) && !suspects.has(&OTHER));
        left_over.leave([&OTHER]);
        left_over.are_forgotten(&suspects, &HashSet::new());
        assert!(!left_over.may_be_of(&ADDRESS) && left_over.may_be_of(&OTHER));
    }

    #[test]
    fn one_that_is_left_again_meanwhile_stays() {
        let left_over = looked();
        left_over.leave([&ADDRESS]);
        let suspects = left_over.suspects(Vec::new());
        left_over.leave([&ADDRESS]);
        left_over.are_forgotten(&suspects, &HashSet::new());
        assert!(left_over.may_be_of(&ADDRESS));
    }

    #[test]
    fn one_that_has_just_got_an_owner_stays() {
        let left_over = looked();
        left_over.leave([&ADDRESS]);
        let kept = HashSet::from([ADDRESS]);
        left_over.are_forgotten(&left_over.suspects(Vec::new()), &kept);
        assert!(left_over.may_be_of(&ADDRESS));
        // Also when nothing was known of it before.
        let left_over = LeftOver::default();
        left_over.are_forgotten(&left_over.suspects(Vec::new()), &kept);
        assert!(left_over.may_be_of(&ADDRESS) && !left_over.may_be_of(&OTHER));
    }

    #[test]
    fn a_look_that_began_before_track_was_lost_does_not_count() {
        let left_over = looked();
        let suspects = left_over.suspects(Vec::new());
        left_over.lose_track();
        left_over.are_forgotten(&suspects, &HashSet::new());
        assert!(left_over.may_be_of(&ADDRESS));
        left_over.are_forgotten(&left_over.suspects(Vec::new()), &HashSet::new());
        assert!(!left_over.may_be_of(&ADDRESS));
    }
}
