//! The two sets that come last and go first: the addresses whose rules are in place.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink::{Request, Socket};
use nix::net::if_::if_nametoindex;
use ruleset::ipset;
use runner::Runner;

use super::table::Tables;
use super::{Dataplane, Error, flows};
use crate::closed;
use crate::iptables::{Family, bound_set, programmed_set};
use crate::plan::Endpoint;

/// Whose an address is: the endpoint's key, and its interface where that is known.
pub(super) type Owner = (String, Option<String>);

/// Addresses that the gate is about to let pass and has not let pass until now, or only for
/// somebody else.
#[derive(Debug, Default)]
pub(super) struct Coming {
    /// Those that have a new owner, who can have no flow yet: the gate kept him closed.
    new: BTreeSet<IpAddr>,
    /// Those whose owner may have been there all the time.
    other: BTreeSet<IpAddr>,
}

impl<R: Runner> Dataplane<R> {
    /// Before the gate lets addresses pass that it did not: whoever had them before may have left
    /// flows.
    pub(super) fn end_left_over(&mut self, coming: &Coming) -> Result<(), Error> {
        let endpoints = self.written.endpoints.values();
        let isolated = endpoints.filter(|it| it.is_isolated());
        let isolated: BTreeSet<_> = isolated.flat_map(|it| it.addresses.iter().copied()).collect();
        self.forget_waiting(&(&coming.new & &isolated))?;
        let may_have_left = coming.new.iter().filter(|it| self.left_over.may_be_of(it));
        self.cut += flows::forget_left_over(&may_have_left.copied().collect())?;
        if self.settings.cuts_flows {
            let other = &coming.other & &isolated;
            self.cut += flows::cut_left_over(&other, self.settings.marks.cut)?;
        }
        Ok(())
    }

    /// What the rules have let pass to a former owner may wait until the kernel knows where he is, and
    /// would go to the new one.
    fn forget_waiting(&self, addresses: &BTreeSet<IpAddr>) -> Result<(), Error> {
        let mut requests = Vec::new();
        for endpoint in self.written.endpoints.values() {
            let Some(interface) = &endpoint.interface else { continue };
            let mut coming = endpoint.addresses.intersection(addresses).peekable();
            // A link that has gone has no neighbours.
            if coming.peek().is_some()
                && let Ok(link) = if_nametoindex(interface.routed_by())
            {
                requests.extend(coming.map(|it| Request::forget_neighbour(link, *it)));
            }
        }
        if !requests.is_empty() {
            Socket::open()?.execute(&requests)?;
        }
        Ok(())
    }

    /// Of the sets that come last and go first: which endpoints have all their rules, and which
    /// have an interface. `knows_gate` says that the gate's set was there and nobody had emptied it.
    pub(super) fn sort_ready(
        &mut self,
        growing: &mut ipset::Changes,
        shrinking: &mut ipset::Changes,
        knows_gate: bool,
    ) -> Coming {
        let moved = self.moved();
        self.note_left(moved.iter());
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
                for come in wanted.difference(&stays) {
                    shrinking.add(&set, &ipset::Member::Address(*come));
                }
                if is_gate {
                    let_pass.extend(wanted.difference(&stays).copied());
                }
                self.sets.insert(set, wanted.len());
            }
        }
        let (new, other) =
            let_pass.into_iter().partition(|it| self.has_new_owner(it, &moved, knows_gate));
        Coming { new, other }
    }

    /// The addresses that somebody else had until now.
    fn moved(&self) -> BTreeSet<IpAddr> {
        let Some(before) = &self.owners else { return BTreeSet::new() };
        let mut owners = owners(&self.written.endpoints);
        owners.retain(|address, owner| before.get(address).is_some_and(|it| !is_same(it, owner)));
        owners.into_keys().collect()
    }

    /// Whether the owner of an address that the gate is about to let pass was kept closed by it until
    /// now. What the gate does not keep closed may have flows of its own.
    fn has_new_owner(&self, address: &IpAddr, moved: &BTreeSet<IpAddr>, knows_gate: bool) -> bool {
        let had_none = match &self.owners {
            Some(before) => !before.contains_key(address) || moved.contains(address),
            None => knows_gate,
        };
        had_none && self.settings.gated.iter().any(|it| it.contains(*address))
    }

    /// Opens the closed interfaces of which the rules are in the kernel, and forgets those that
    /// `is_gone` tells; the netlink port of what was written.
    ///
    /// # Errors
    /// [`netlink::Error`], also those of `is_gone`.
    pub fn open_interfaces(
        &self,
        mut is_gone: impl FnMut(&str) -> Result<bool, netlink::Error>,
    ) -> Result<Option<u32>, netlink::Error> {
        let owners = self.owners.iter().flat_map(BTreeMap::values);
        let bound: BTreeSet<&str> = owners.filter_map(|it| it.1.as_deref()).collect();
        closed::open(|name| Ok(bound.contains(name) || is_gone(name)?))
    }

    /// All was written. Flows of addresses that nobody has any more would stay for up to five days, and
    /// count against the node's limit: who looks at the flows has them forgotten.
    pub(super) fn note_owners(&mut self) {
        let now = owners(&self.written.endpoints);
        let before = self.owners.iter().flat_map(BTreeMap::keys);
        self.note_left(before.filter(|it| !now.contains_key(it)));
        self.owners = Some(now);
    }

    /// Where nobody looks at the flows, none are known to be forgotten, and every owner is asked about.
    fn note_left<'a>(&self, addresses: impl Iterator<Item = &'a IpAddr>) {
        if self.settings.cuts_flows {
            self.left_over.leave(addresses);
        }
    }
}

/// The addresses of a family that have their rules; `bound`: of those endpoints alone that have an
/// interface.
fn ready(endpoints: &BTreeMap<String, Endpoint>, family: Family, bound: bool) -> BTreeSet<IpAddr> {
    let endpoints = endpoints.values().filter(|it| !bound || it.interface.is_some());
    let addresses = endpoints.flat_map(|it| &it.addresses);
    addresses.filter(|address| family.has(address)).copied().collect()
}

fn owners(endpoints: &BTreeMap<String, Endpoint>) -> BTreeMap<IpAddr, Owner> {
    let owned = endpoints.iter().flat_map(|(key, endpoint)| {
        let interface = endpoint.interface.as_ref().map(|it| it.name.clone());
        endpoint.addresses.iter().map(move |it| (*it, (key.clone(), interface.clone())))
    });
    owned.collect()
}

/// Whether it is the same sandbox: a container may be found to be a pod's, and a pod get another
/// sandbox.
fn is_same(one: &Owner, other: &Owner) -> bool {
    match (&one.1, &other.1) {
        (Some(one), Some(other)) => one == other,
        _ => one.0 == other.0,
    }
}
