//! Sets and maps, by their elements.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ruleset::nft::{Element, Encoded, Set, Value};

use super::super::members::{self, Member};
use super::super::report::Live;
use super::super::walk::User;
use super::Wanted;
use crate::dataplane::Held;
use crate::explain::Pair;
use crate::live::Expected;
use crate::nftables::{is_by_interface, port_sets, set};

/// The two ends of the ways that are compared.
pub(super) struct Ends<'a> {
    addresses: BTreeSet<IpAddr>,
    /// Those that are of nobody of whom only policyd may know the interface.
    known: BTreeSet<IpAddr>,
    interfaces: BTreeSet<&'a str>,
}

impl<'a> Ends<'a> {
    pub(super) fn of(expected: &'a Expected, pairs: &[Pair]) -> Self {
        let addresses = super::super::ends(pairs);
        let interfaces = expected.interfaces(&addresses).into_iter();
        let mut known = addresses.clone();
        let untold = expected.plan.endpoints.values().filter(|it| it.interface.is_none());
        untold.flat_map(|it| &it.addresses).for_each(|it| _ = known.remove(it));
        let interfaces = interfaces.map(|it| it.name.as_str()).collect();
        Self { addresses, known, interfaces }
    }

    /// Whether an element of a set that has all pods of the node is of an end.
    fn have(&self, set: &Set, element: &Element) -> bool {
        let of = if is_by_interface(&set.name) { &self.known } else { &self.addresses };
        element.key.iter().any(|it| match it {
            Value::Address(address) => of.contains(address),
            Value::Interface(name) => self.interfaces.contains(name.as_str()),
            _ => false,
        })
    }
}

impl Wanted<'_> {
    pub(super) fn compare_sets(&self, held: &Held, live: &mut Live) {
        let of_policies = self.of_policies();
        for (name, user) in &self.reached.sets {
            match (self.dispatch.get(name), of_policies.get(name)) {
                (Some((set, wanted)), _) => {
                    let matters = |it: &Element| self.ends.have(set, it);
                    self.compare_set(set, wanted, user, held, &matters, live);
                }
                (None, Some((set, wanted))) => {
                    self.compare_set(set, wanted, user, held, &|_| true, live);
                }
                (None, None) => {}
            }
        }
    }

    /// The sets that rules of policies look into, of those that were come to.
    fn of_policies(&self) -> BTreeMap<String, (Set, BTreeSet<Encoded>)> {
        let plan = &self.expected.plan;
        let is_reached = |set: &Set| self.reached.sets.contains_key(&set.name);
        let families = || self.families.iter().copied();
        let of_selectors = plan.sets.iter().flat_map(|(key, of_plan)| {
            let sets = families().filter_map(move |family| Some((family, set(family, key)?)));
            sets.filter(|(_, set)| is_reached(set)).map(move |(family, set)| {
                let elements = crate::nftables::members(family, &set, of_plan);
                (set, elements)
            })
        });
        let of_ports = plan.chains.values().flat_map(port_sets).filter(|(set, _)| is_reached(set));
        of_selectors.chain(of_ports).map(|it| (it.0.name.clone(), it)).collect()
    }

    /// Compares those elements of a set that matter.
    fn compare_set(
        &self,
        set: &Set,
        wanted: &BTreeSet<Encoded>,
        user: &User,
        held: &Held,
        matters: &impl Fn(&Element) -> bool,
        live: &mut Live,
    ) {
        live.sets += 1;
        let kind = if set.is_map { "map" } else { "set" };
        let label = user.label.as_ref().map(|it| format!(" ({it})")).unwrap_or_default();
        let place = self.place(kind, &set.name);
        let place = format!("{place} that {}{label} looks into", user.chain);
        let Some(elements) = held.elements.get(&set.name) else {
            return live.differ(&place, "it is not there");
        };
        if !held.takes_set(set) {
            return live.differ(&place, format!("it is of another kind; it should be {set}"));
        }
        if elements == wanted {
            return;
        }
        let [wanted, held] = [wanted, elements].map(|it| set.decode(it));
        let only = |these: &BTreeSet<Element>, those: &BTreeSet<Element>| {
            these.difference(those).filter(|it| matters(it)).map(member).collect()
        };
        let differing = [only(&wanted, &held), only(&held, &wanted)];
        members::tell(&place, differing, live, &|it| self.expected.index.name_of(it));
    }
}

fn member(element: &Element) -> Member {
    let address = element.key.iter().find_map(|it| match it {
        Value::Address(address) => Some(*address),
        _ => None,
    });
    Member { text: element.to_string(), address }
}
