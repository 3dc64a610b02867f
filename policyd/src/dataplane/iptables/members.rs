//! Changes of nothing but members of sets, without starting a program: most changes of a cluster
//! are pods of other nodes.

use netlink::ipset::{Client, Element, Outcome};
use ruleset::ipset::Member;
use runner::Runner;

use super::{Error, Iptables};
use crate::iptables::{members, set};
use crate::plan::{Changes, SetChange};

/// Above this many, the program is faster: it sends many to the kernel at once.
const MOST: usize = 500;

/// A member that comes or goes.
struct Step {
    set: String,
    element: Element,
    comes: bool,
}

impl<R: Runner> Iptables<R> {
    /// Makes the changes, when they are some members of sets that come and go; else does nothing.
    /// Whether they were made.
    pub(super) fn change_members(&mut self, changes: &Changes) -> Result<bool, Error> {
        let Some(mut steps) = self.steps(changes) else { return Ok(false) };
        let Some(mut client) = Client::open()? else { return Ok(false) };
        // Who moves from one set to another must not be in none meanwhile.
        steps.sort_by_key(|step| !step.comes);
        for Step { set, element, comes } in steps {
            let change = if comes { Client::add } else { Client::delete };
            if change(&mut client, &set, element)? == Outcome::NoSuchSet {
                return Err(Error::NoSuchSet { set });
            }
            if let Some(count) = self.sets.get_mut(&set) {
                *count = if comes { *count + 1 } else { count.saturating_sub(1) };
            }
        }
        Ok(true)
    }

    /// `None`: the changes are others too, or too many.
    fn steps(&self, changes: &Changes) -> Option<Vec<Step>> {
        if changes.touch_rules() || !self.unused.is_empty() {
            return None;
        }
        let mut steps = Vec::new();
        for family in self.in_use.iter().copied() {
            for (key, change) in &changes.sets {
                let SetChange::Members(changes) = change else { return None };
                let Some(set) = set(family, key) else { continue };
                for (member, comes) in changes {
                    for member in members(family, member) {
                        let element = element(&member)?;
                        steps.push(Step { set: set.name.clone(), element, comes: *comes });
                    }
                }
            }
        }
        (steps.len() <= MOST).then_some(steps)
    }
}

fn element(member: &Member) -> Option<Element> {
    match member {
        Member::Address(address) => Some(Element::Address(*address)),
        Member::Network(_) => None,
        Member::AddressPort { address, protocol, port } => {
            let protocol = match *protocol {
                "tcp" => 6,
                "udp" => 17,
                "sctp" => 132,
                _ => return None,
            };
            Some(Element::AddressPort { address: *address, protocol, port: *port })
        }
    }
}
