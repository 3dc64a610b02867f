//! Sets, by their members.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ruleset::ipset::Set;

use super::super::members::{self, Member};
use super::super::report::Live;
use super::super::walk::User;
use super::Printed;
use crate::iptables::{self, Family, bound_set, programmed_set, set};
use crate::plan::{Endpoint, Plan};

/// What a set should hold.
#[derive(Debug)]
pub(super) struct Wanted {
    set: Set,
    members: BTreeSet<String>,
    /// Where not all members matter, those that do.
    only: Option<BTreeSet<String>>,
}

/// The sets of a family by name. Of those that hold all pods of the node, only these ends matter.
pub(super) fn wanted(
    family: Family,
    plan: &Plan,
    ends: &BTreeSet<IpAddr>,
) -> BTreeMap<String, Wanted> {
    let of_plan = plan.sets.iter().filter_map(|(key, held)| {
        let members = held.iter().flat_map(|it| iptables::members(family, it));
        let members = members.map(|it| it.to_string()).collect();
        Some(Wanted { set: set(family, key)?, members, only: None })
    });
    let unknown = addresses(plan, ends, |it| it.interface.is_none());
    let known: BTreeSet<_> = ends.difference(&unknown).copied().collect();
    let of_node = [
        ready(programmed_set(family), addresses(plan, ends, |_| true), ends),
        ready(bound_set(family), addresses(plan, &known, |_| true), &known),
    ];
    of_plan.chain(of_node).map(|it| (it.set.name.clone(), it)).collect()
}

fn ready(set: Set, members: BTreeSet<IpAddr>, ends: &BTreeSet<IpAddr>) -> Wanted {
    let texts = |of: &BTreeSet<IpAddr>| of.iter().map(ToString::to_string).collect();
    Wanted { set, members: texts(&members), only: Some(texts(ends)) }
}

/// Those of the ends that are addresses of such endpoints.
fn addresses(
    plan: &Plan,
    ends: &BTreeSet<IpAddr>,
    is_such: impl Fn(&Endpoint) -> bool,
) -> BTreeSet<IpAddr> {
    let endpoints = plan.endpoints.values().filter(|it| is_such(it));
    endpoints.flat_map(|it| &it.addresses).filter(|it| ends.contains(it)).copied().collect()
}

/// Compares a set with what it should be.
pub(super) fn compare(
    name: &str,
    user: &User,
    wanted: Option<&Wanted>,
    printed: &Printed,
    live: &mut Live,
    call: &impl Fn(IpAddr) -> Option<String>,
) {
    live.sets += 1;
    let label = user.label.as_ref().map(|it| format!(" ({it})")).unwrap_or_default();
    let place = format!("ipset: set {name} that {}{label} looks into", user.chain);
    let Some(wanted) = wanted else { return };
    let Some(held) = printed.set(name) else { return live.differ(&place, "it is not there") };
    if !held.is_like(&wanted.set) {
        return live.differ(&place, format!("it is of another kind: {}", held.options));
    }
    let matters = |it: &&String| wanted.only.as_ref().is_none_or(|only| only.contains(*it));
    let missing = wanted.members.difference(&held.members).map(|it| member(it));
    let stale = held.members.difference(&wanted.members).filter(matters).map(|it| member(it));
    members::tell(&place, [missing.collect(), stale.collect()], live, call);
}

fn member(text: &str) -> Member {
    let address = text.split(',').next().and_then(|it| it.parse().ok());
    Member { text: text.to_owned(), address }
}
