//! Which chains and sets the traffic between two addresses can come to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ruleset::iptables::Side;

use crate::plan::HostInterface;

/// One direction of the traffic between two ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// The interface of the pod of this node that sends.
    pub(super) interface: Option<&'a HostInterface>,
    /// That of the pod of this node that is sent to.
    pub(super) to: Option<&'a HostInterface>,
}

impl Way<'_> {
    pub(super) const fn address(&self, side: Side) -> IpAddr {
        match side {
            Side::Source => self.source,
            Side::Destination => self.destination,
        }
    }
}

/// What looks into a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) chain: String,
    /// What people call it.
    pub(super) label: Option<String>,
}

/// A rule, as far as it leads on.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// The chains that it leads to.
    pub(super) chains: Vec<String>,
    /// The sets that it looks into.
    pub(super) sets: Vec<String>,
    /// What people call it.
    pub(super) label: Option<String>,
}

/// What was come to.
#[derive(Debug, Default)]
pub(super) struct Reached {
    pub(super) chains: BTreeSet<String>,
    /// Sets that rules look into, with the first that does.
    pub(super) sets: BTreeMap<String, User>,
}

impl Reached {
    /// Adds what packets can come to that begin in these chains. `steps` tells of a chain those rules that may
    /// apply to them, whatever else is true of them.
    pub(super) fn follow(
        &mut self,
        roots: impl IntoIterator<Item = String>,
        steps: impl Fn(&str) -> Vec<Step>,
    ) {
        let mut ahead: Vec<String> = roots.into_iter().collect();
        let mut seen = BTreeSet::new();
        while let Some(name) = ahead.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            for step in steps(&name) {
                ahead.extend(step.chains);
                for set in step.sets {
                    let label = step.label.clone();
                    let user = || User { chain: name.clone(), label };
                    self.sets.entry(set).or_insert_with(user);
                }
            }
        }
        self.chains.append(&mut seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_rules_lead_to_is_reached_once_and_nothing_else() {
        let step = |chains: &[&str], set: Option<&str>| {
            let chains = chains.iter().map(|it| (*it).to_owned()).collect();
            Step { chains, sets: set.map(str::to_owned).into_iter().collect(), label: None }
        };
        let steps = |chain: &str| match chain {
            "root" => vec![step(&["a"], Some("s")), step(&["b"], None)],
            "a" => vec![step(&["b", "root"], Some("s")), step(&[], Some("t"))],
            "never" => vec![step(&[], Some("u"))],
            _ => Vec::new(),
        };
        let mut reached = Reached::default();
        reached.follow(["root".to_owned()], steps);
        assert_eq!(reached.chains, ["a", "b", "root"].map(str::to_owned).into());
        let user = |chain: &str| User { chain: chain.to_owned(), label: None };
        let sets = [("s".to_owned(), user("root")), ("t".to_owned(), user("a"))];
        assert_eq!(reached.sets, sets.into());
    }
}
