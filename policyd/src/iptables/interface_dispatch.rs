//! From the interface that a packet came through to the rules of the pod behind it.

use std::collections::BTreeMap;

use ruleset::iptables::{Chain, Match, Rule, Target};
use ruleset::short_hash;

/// As many interfaces are looked through one by one.
const LEAF: usize = 4;

/// What is done with what comes through an interface: whatever the packet is, the last of these
/// rules applies. They do not yet say which interface.
pub(super) type Ends = BTreeMap<String, Vec<Rule>>;

/// The chain `root`, and those it leads to: what comes through one of the interfaces meets its
/// rules, all else goes on to chain `rest`, or comes back. `came_through` makes the match of an interface's name,
/// or with a `+` at its end of all names that begin so.
pub(super) fn by_interface(
    root: &str,
    came_through: fn(String) -> Match,
    ends: &Ends,
    rest: Option<&str>,
) -> Vec<Chain> {
    let ends: Vec<_> = ends.iter().map(|(name, rules)| (name.as_str(), rules.as_slice())).collect();
    let mut chains = Vec::new();
    Dispatch { root, came_through, rest }.divide(root.to_owned(), &ends, &mut chains);
    chains
}

struct Dispatch<'a> {
    root: &'a str,
    came_through: fn(String) -> Match,
    rest: Option<&'a str>,
}

impl Dispatch<'_> {
    fn divide(&self, name: String, ends: &[(&str, &[Rule])], chains: &mut Vec<Chain>) {
        let mut rules = Vec::new();
        for (beginning, ends) in groups(ends) {
            match beginning {
                Some(beginning) => {
                    let child = format!("{}-{}", self.root, short_hash(&beginning));
                    let matches = [(self.came_through)(format!("{beginning}+"))];
                    rules.push(Rule::new(matches, Target::Goto(child.clone())));
                    self.divide(child, &ends, chains);
                }
                None => rules.extend(ends.iter().flat_map(|(name, rules)| {
                    rules.iter().cloned().map(|mut rule| {
                        rule.matches.insert(0, (self.came_through)((*name).to_owned()));
                        rule
                    })
                })),
            }
        }
        rules.extend(self.rest.map(|rest| Rule::new([], Target::Jump(rest.to_owned()))));
        chains.push(Chain { name, rules });
    }
}

type Group<'a> = (Option<String>, Vec<(&'a str, &'a [Rule])>);

/// The interfaces by the first character in which their names differ; few are not divided.
fn groups<'a>(ends: &[(&'a str, &'a [Rule])]) -> Vec<Group<'a>> {
    if ends.len() <= LEAF {
        return vec![(None, ends.to_vec())];
    }
    // They are sorted: what the first and the last begin with, all begin with.
    let common = match (ends.first(), ends.last()) {
        (Some((first, _)), Some((last, _))) => {
            first.chars().zip(last.chars()).take_while(|(one, two)| one == two).count()
        }
        _ => 0,
    };
    let mut groups = BTreeMap::<String, Vec<_>>::new();
    for end in ends {
        groups.entry(end.0.chars().take(common + 1).collect()).or_default().push(*end);
    }
    // A name that is the beginning of others is in the group of its own length: alone, as a name
    // is not there twice.
    let is_whole = |it: &[(&str, &[Rule])]| it.len() == 1;
    groups
        .into_iter()
        .map(|(beginning, it)| (Some(beginning).filter(|_| !is_whole(&it)), it))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drop_rules(names: &[String]) -> Ends {
        names
            .iter()
            .map(|name| (name.clone(), vec![Rule::new([], Target::Jump(name.clone()))]))
            .collect()
    }

    /// Where what came through this interface ends, and how many rules it goes through.
    fn walk(chains: &[Chain], interface: &str) -> (String, usize) {
        let mut name = "ROOT".to_owned();
        let mut steps = 0;
        'chain: while let Some(chain) = chains.iter().find(|chain| chain.name == name) {
            for rule in &chain.rules {
                steps += 1;
                let matches = rule.matches.iter().all(|it| match it {
                    Match::InInterface(wanted) => match wanted.strip_suffix('+') {
                        Some(beginning) => interface.starts_with(beginning),
                        None => interface == wanted,
                    },
                    other => panic!("{other}"),
                });
                match &rule.target {
                    Target::Goto(next) if matches => {
                        name.clone_from(next);
                        continue 'chain;
                    }
                    Target::Jump(end) if matches => return (end.clone(), steps),
                    _ => {}
                }
            }
            panic!("the end of {name}");
        }
        (name, steps)
    }

    #[test]
    fn the_cost_does_not_grow_with_the_interfaces() {
        let names: Vec<_> =
            (0..250_u32).map(|it| format!("veth{:08x}", it.wrapping_mul(2_654_435_761))).collect();
        let chains = by_interface("ROOT", Match::InInterface, &drop_rules(&names), Some("REST"));
        for name in &names {
            let (end, steps) = walk(&chains, name);
            assert_eq!(end, *name);
            assert!(steps <= 40, "{name}: {steps}");
        }
    }

    proptest! {
        #[test]
        fn every_interface_is_led_to_its_own_rules_and_no_other_to_any(
            names in proptest::collection::btree_set("[ab]{1,6}", 0..40),
            other in "[ab]{1,7}",
        ) {
            let names: Vec<_> = names.into_iter().collect();
            let chains = by_interface("ROOT", Match::InInterface, &drop_rules(&names), Some("REST"));
            for name in &names {
                prop_assert_eq!(&walk(&chains, name).0, name);
            }
            if !names.contains(&other) {
                prop_assert_eq!(walk(&chains, &other).0, "REST");
            }
        }
    }
}
