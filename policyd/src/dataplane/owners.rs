//! Whose addresses were let pass, and what others may have left of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink::{Request, Socket};
use nix::net::if_::if_nametoindex;

use super::left_over::LeftOver;
use super::{Endpoints, Error, flows};
use crate::iptables::Settings;

/// Whose an address is: the endpoint's key, and its interface where that is known.
type Owner = (String, Option<String>);

/// Who has which address since all was last written.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// `None`: nothing was written yet.
    owners: Option<BTreeMap<IpAddr, Owner>>,
    /// Addresses of which flows may be left.
    left_over: LeftOver,
    /// Flows that were cut since this was last asked.
    cut: usize,
}

/// Addresses that the gate is about to let pass and has not let pass until now, or only for
/// somebody else.
#[derive(Debug, Default)]
pub(super) struct Coming {
    /// Those that have a new owner, who can have no flow yet: the gate kept him closed.
    new: BTreeSet<IpAddr>,
    /// Those whose owner may have been there all the time.
    other: BTreeSet<IpAddr>,
}

impl Owners {
    pub(super) fn left_over(&self) -> LeftOver {
        self.left_over.clone()
    }

    pub(super) fn take_cut(&mut self) -> usize {
        std::mem::take(&mut self.cut)
    }

    /// Their interfaces.
    pub(super) fn interfaces(&self) -> BTreeSet<&str> {
        let owners = self.owners.iter().flat_map(BTreeMap::values);
        owners.filter_map(|it| it.1.as_deref()).collect()
    }

    /// Whoever changed what is ours may have opened the gate.
    pub(super) fn lose_track(&self) {
        self.left_over.lose_track();
    }

    /// The addresses that somebody else had until now.
    pub(super) fn moved(&self, endpoints: &Endpoints, settings: &Settings) -> BTreeSet<IpAddr> {
        let Some(before) = &self.owners else { return BTreeSet::new() };
        let mut owners = owners(endpoints);
        owners.retain(|address, owner| before.get(address).is_some_and(|it| !is_same(it, owner)));
        let moved: BTreeSet<_> = owners.into_keys().collect();
        self.note_left(moved.iter(), settings);
        moved
    }

    /// Of the addresses that the gate is about to let pass, which have a new owner. `knows_gate` says that the
    /// gate was there and nobody had emptied it.
    pub(super) fn coming(
        &self,
        let_pass: BTreeSet<IpAddr>,
        moved: &BTreeSet<IpAddr>,
        knows_gate: bool,
        settings: &Settings,
    ) -> Coming {
        // Whether the owner was kept closed by the gate until now. What that does not keep closed may have
        // flows of its own.
        let has_new_owner = |address: &IpAddr| {
            let had_none = match &self.owners {
                Some(before) => !before.contains_key(address) || moved.contains(address),
                None => knows_gate,
            };
            had_none && settings.gated.iter().any(|it| it.contains(*address))
        };
        let (new, other) = let_pass.into_iter().partition(has_new_owner);
        Coming { new, other }
    }

    /// Before the gate lets addresses pass that it did not: whoever had them before may have left
    /// flows.
    pub(super) fn end_left_over(
        &mut self,
        coming: &Coming,
        endpoints: &Endpoints,
        settings: &Settings,
    ) -> Result<(), Error> {
        let isolated = endpoints.values().filter(|it| it.is_isolated());
        let isolated: BTreeSet<_> = isolated.flat_map(|it| it.addresses.iter().copied()).collect();
        forget_waiting(&(&coming.new & &isolated), endpoints)?;
        let may_have_left = coming.new.iter().filter(|it| self.left_over.may_be_of(it));
        self.cut += flows::forget_left_over(&may_have_left.copied().collect())?;
        if settings.cuts_flows {
            let other = &coming.other & &isolated;
            self.cut += flows::cut_left_over(&other, settings.marks.cut)?;
        }
        Ok(())
    }

    /// All was written. Flows of addresses that nobody has any more would stay for up to five days, and
    /// count against the node's limit: who looks at the flows has them forgotten.
    pub(super) fn note(&mut self, endpoints: &Endpoints, settings: &Settings) {
        let now = owners(endpoints);
        let before = self.owners.iter().flat_map(BTreeMap::keys);
        self.note_left(before.filter(|it| !now.contains_key(it)), settings);
        self.owners = Some(now);
    }

    /// Where nobody looks at the flows, none are known to be forgotten, and every owner is asked about.
    fn note_left<'a>(&self, addresses: impl Iterator<Item = &'a IpAddr>, settings: &Settings) {
        if settings.cuts_flows {
            self.left_over.leave(addresses);
        }
    }
}

/// What the rules have let pass to a former owner may wait until the kernel knows where he is, and
/// would go to the new one.
fn forget_waiting(addresses: &BTreeSet<IpAddr>, endpoints: &Endpoints) -> Result<(), Error> {
    let mut requests = Vec::new();
    for endpoint in endpoints.values() {
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

fn owners(endpoints: &Endpoints) -> BTreeMap<IpAddr, Owner> {
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
