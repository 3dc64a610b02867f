//! The two sets that come last and go first: the addresses whose rules are in place.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ruleset::ipset;
use runner::Runner;

use super::table::Tables;
use super::{Endpoints, Iptables};
use crate::dataplane::owners::Coming;
use crate::iptables::{Family, bound_set, programmed_set};

impl<R: Runner> Iptables<R> {
    /// Of the sets that come last and go first: which endpoints have all their rules, and which
    /// have an interface. `had_gate` says that the gate's set was there, `knows_gate` that nobody had emptied it:
    /// before there is a gate nothing is kept back by it, and it is made with what it lets pass.
    pub(super) fn sort_ready(
        &mut self,
        growing: &mut ipset::Changes,
        shrinking: &mut ipset::Changes,
        [had_gate, knows_gate]: [bool; 2],
    ) -> Coming {
        let moved = self.owners.moved(&self.written.endpoints, &self.settings);
        let mut let_pass = BTreeSet::new();
        for family in self.tables.iter().map(Tables::family) {
            let [programmed, bound] = [programmed_set(family).name, bound_set(family).name];
            for (set, is_gate) in [(programmed, true), (bound, false)] {
                let wanted = ready(&self.written.endpoints, family, !is_gate);
                let held = self.ready.insert(set.clone(), wanted.clone()).unwrap_or_default();
                // An address that changes hands is closed meanwhile.
                let stays = &(&held & &wanted) - &moved;
                for gone in held.difference(&stays) {
                    growing.delete(&set, &gone.to_string());
                }
                let coming = if is_gate && !had_gate { &mut *growing } else { &mut *shrinking };
                for come in wanted.difference(&stays) {
                    coming.add(&set, &ipset::Member::Address(*come));
                }
                if is_gate {
                    let_pass.extend(wanted.difference(&stays).copied());
                }
                self.sets.insert(set, wanted.len());
            }
        }
        self.owners.coming(let_pass, &moved, knows_gate, &self.settings)
    }
}

/// The addresses of a family that have their rules; `bound`: of those endpoints alone that have an
/// interface.
fn ready(endpoints: &Endpoints, family: Family, bound: bool) -> BTreeSet<IpAddr> {
    let endpoints = endpoints.values().filter(|it| !bound || it.interface.is_some());
    let addresses = endpoints.flat_map(|it| &it.addresses);
    addresses.filter(|address| family.has(address)).copied().collect()
}
