//! Who leads to a chain of ours.

use std::collections::{BTreeMap, BTreeSet};

use super::RuleHash;

/// A rule that leads to a chain of ours, in a chain that is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jump {
    /// The chain that it is in.
    pub from: String,
    /// Its place there, counted from 1.
    pub place: usize,
    /// Its hash; `None` when somebody else wrote it.
    pub hash: Option<RuleHash>,
}

impl Jump {
    /// Those of what `iptables-save -t TABLE` printed that lead to `chain`, in the order of the
    /// table.
    #[must_use]
    pub fn all_to(text: &str, chain: &str) -> Vec<Self> {
        let mut places = BTreeMap::<&str, usize>::new();
        let mut jumps = Vec::new();
        for rule in text.lines().filter_map(|line| line.strip_prefix("-A ")) {
            let (from, rule) = rule.split_once(' ').unwrap_or((rule, ""));
            let place = places.entry(from).or_default();
            *place += 1;
            // The target is the last word of a jump, behind any comment.
            let mut words = rule.rsplit(' ');
            let (target, flag) = (words.next(), words.next());
            if from != chain && target == Some(chain) && matches!(flag, Some("-j" | "-g")) {
                let hash = RuleHash::of_line(rule);
                jumps.push(Self { from: from.to_owned(), place: *place, hash });
            }
        }
        jumps
    }

    /// Of what `iptables-save -t TABLE` printed, the chains with names that begin with `prefix` to which rules of
    /// somebody else lead, each with the chains that these are in: as long as there is one, such a chain cannot go.
    #[must_use]
    pub fn of_others<'a>(text: &'a str, prefix: &str) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
        let mut led_to = BTreeMap::<_, BTreeSet<_>>::new();
        for rule in text.lines().filter_map(|line| line.strip_prefix("-A ")) {
            let (from, rule) = rule.split_once(' ').unwrap_or((rule, ""));
            let mut words = rule.rsplit(' ');
            let (Some(target), Some("-j" | "-g")) = (words.next(), words.next()) else { continue };
            let is_theirs = !from.starts_with(prefix) && RuleHash::of_line(rule).is_none();
            if is_theirs && target.starts_with(prefix) {
                led_to.entry(target).or_default().insert(from);
            }
        }
        led_to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_are_found_wherever_they_are() {
        let text = "*filter\n:FORWARD ACCEPT [0:0]\n:OURS - [0:0]\n-A FORWARD -j OTHER\n\
            -A FORWARD -m comment --comment \"podwire:abcdefghijkl -j OURS\" -j OTHER\n\
            -A FORWARD -m comment --comment \"podwire:abcdefghijkl word\" -j OURS\n-A INPUT -g OURS\n\
            -A OURS -j OURS-2\nCOMMIT\n";
        let jumps = Jump::all_to(text, "OURS");
        let told: Vec<_> =
            jumps.iter().map(|it| (it.from.as_str(), it.place, it.hash.is_some())).collect();
        assert_eq!(told, [("FORWARD", 3, true), ("INPUT", 1, false)]);
    }

    #[test]
    fn who_else_leads_to_our_chains_is_told() {
        let text = "*mangle\n:OURS - [0:0]\n:OURS-2 - [0:0]\n:MY - [0:0]\n-A MY -j OURS\n-A MY -s 10.0.0.1/32 -g OURS\n\
            -A FORWARD -m comment --comment \"podwire:abcdefghijkl\" -j OURS\n-A OURS -j OURS-2\n-A INPUT -j OURS\n\
            -A INPUT -m comment --comment \"-j OURS-2\" -j MY\n-A MY\nCOMMIT\n";
        let expected = BTreeMap::from([("OURS", BTreeSet::from(["INPUT", "MY"]))]);
        assert_eq!(Jump::of_others(text, "OURS"), expected);
    }
}
