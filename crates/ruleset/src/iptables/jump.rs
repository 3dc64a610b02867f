//! Who leads to a chain of ours.

use std::collections::BTreeMap;

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
}
