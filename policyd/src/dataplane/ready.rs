//! The two sets that come last and go first: the addresses whose rules are in place.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ruleset::ipset;
use runner::Runner;

use super::{Dataplane, Error, flows};
use crate::iptables::{bound_set, programmed_set};

impl<R: Runner> Dataplane<R> {
    /// Before the gate lets addresses pass that it did not: whoever had them before may have left
    /// flows. When they are not `are_new`, the endpoints may have been there all the time, and only
    /// the gate's set not.
    pub(super) fn end_left_over(
        &mut self,
        coming: &BTreeSet<IpAddr>,
        are_new: bool,
    ) -> Result<(), Error> {
        if !self.settings.cuts_flows {
            return Ok(());
        }
        let endpoints = self.written.endpoints.values();
        let isolated = endpoints.filter(|it| it.ingress.is_some() || it.egress.is_some());
        let addresses = isolated.flat_map(|it| it.addresses.intersection(coming)).copied();
        // What the gate does not keep closed may have flows of its own by now.
        let is_gated =
            |address: &IpAddr| self.settings.gated.iter().any(|range| range.contains(*address));
        let (new, others): (BTreeSet<_>, BTreeSet<_>) =
            addresses.partition(|address| are_new && is_gated(address));
        self.cut += flows::forget_left_over(&new)?;
        self.cut += flows::cut_left_over(&others, self.settings.marks.cut)?;
        Ok(())
    }

    /// Of the sets that come last and go first: which endpoints have all their rules, and which
    /// have an interface. Tells which addresses the gate did not let pass.
    pub(super) fn sort_ready(
        &mut self,
        growing: &mut ipset::Changes,
        shrinking: &mut ipset::Changes,
    ) -> BTreeSet<IpAddr> {
        let mut coming = BTreeSet::new();
        let endpoints = &self.written.endpoints;
        for tables in &self.tables {
            let family = tables.family();
            let addresses = |only_bound: bool| -> BTreeSet<IpAddr> {
                let endpoints =
                    endpoints.values().filter(|it| !only_bound || it.interface.is_some());
                let addresses = endpoints.flat_map(|it| &it.addresses);
                addresses.filter(|address| family.has(address)).copied().collect()
            };
            let [programmed, bound] = [programmed_set(family).name, bound_set(family).name];
            let held = self.ready.get(&programmed).into_iter().flatten();
            coming.extend(&addresses(false) - &held.copied().collect());
            for (set, wanted) in [(programmed, addresses(false)), (bound, addresses(true))] {
                let held = self.ready.entry(set.clone()).or_default();
                for gone in held.difference(&wanted) {
                    growing.delete(&set, &gone.to_string());
                }
                for come in wanted.difference(held) {
                    shrinking.add(&set, &ipset::Member::Address(*come));
                }
                self.sets.insert(set, wanted.len());
                *held = wanted;
            }
        }
        coming
    }
}
