//! The change from what a table holds to what it shall hold.

use std::fmt::Write;

use super::chain::{Commented, InChain};
use super::{Chain, Rule, RuleHash};
use crate::steps::{Step, steps};

/// Changes of one table that the kernel makes at once, as `iptables-restore --noflush` reads them.
#[derive(Debug, Default)]
pub struct Transaction {
    created: String,
    changes: String,
    emptied: String,
    removed: String,
}

impl Transaction {
    /// Makes a chain that is not there, or of which it is not known what it holds. The hashes of
    /// its rules.
    pub fn create(&mut self, chain: &Chain) -> Vec<RuleHash> {
        let hashes = chain.hashes();
        // Under --noflush this line also empties a chain that is there.
        line(&mut self.created, format_args!(":{} - [0:0]", chain.name));
        for (rule, hash) in chain.rules.iter().zip(&hashes) {
            line(&mut self.changes, format_args!("-A {} {}", chain.name, InChain(rule, hash)));
        }
        hashes
    }

    /// Changes a chain that holds the rules with the hashes `known`. Rules that stay are not
    /// touched, and keep their counters. The hashes that it holds then.
    pub fn change(&mut self, known: &[RuleHash], chain: &Chain) -> Vec<RuleHash> {
        let desired = chain.hashes();
        let name = &chain.name;
        // Counted from 1, in the chain as it is by then.
        let mut place = 1;
        let mut rules = chain.rules.iter().zip(&desired);
        for step in steps(known, &desired) {
            match step {
                Step::Keep => {
                    rules.next();
                    place += 1;
                }
                Step::Delete => line(&mut self.changes, format_args!("-D {name} {place}")),
                Step::Insert => {
                    let Some((rule, hash)) = rules.next() else { break };
                    let rule = InChain(rule, hash);
                    line(&mut self.changes, format_args!("-I {name} {place} {rule}"));
                    place += 1;
                }
            }
        }
        desired
    }

    /// Takes all rules out of a chain.
    pub fn empty(&mut self, name: &str) {
        line(&mut self.emptied, format_args!("-F {name}"));
    }

    /// Removes a chain.
    pub fn remove(&mut self, name: &str) {
        // Chains that are removed may lead to each other: all are emptied first.
        self.empty(name);
        line(&mut self.removed, format_args!("-X {name}"));
    }

    /// Puts a rule at the head of a chain that is not ours.
    pub fn hook(&mut self, chain: &str, rule: &Rule) {
        self.hook_at(chain, 1, rule);
    }

    /// Puts a rule at this place (counted from 1) of a chain that is not ours.
    pub fn hook_at(&mut self, chain: &str, place: usize, rule: &Rule) {
        let hash = RuleHash::of(rule);
        line(&mut self.changes, format_args!("-I {chain} {place} {}", Commented(rule, &hash)));
    }

    /// Puts a rule at the end of a chain that is not ours.
    pub fn hook_last(&mut self, chain: &str, rule: &Rule) {
        let hash = RuleHash::of(rule);
        line(&mut self.changes, format_args!("-A {chain} {}", Commented(rule, &hash)));
    }

    /// Deletes our rule at this place (counted from 1) of a chain that is not ours. Of several in
    /// one chain, the last must be deleted first.
    pub fn unhook(&mut self, chain: &str, place: usize) {
        line(&mut self.changes, format_args!("-D {chain} {place}"));
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { created, changes, emptied, removed } = self;
        [created, changes, emptied, removed].iter().all(|lines| lines.is_empty())
    }

    /// The change of `table`.
    #[must_use]
    pub fn text(&self, table: &str) -> String {
        let Self { created, changes, emptied, removed } = self;
        ["*", table, "\n", created, changes, emptied, removed, "COMMIT\n"].concat()
    }
}

fn line(lines: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    _ = writeln!(lines, "{text}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::iptables::{Match, Saved, Side, Target};

    fn rule(number: u8) -> Rule {
        let network = format!("10.0.0.{number}").parse().unwrap();
        Rule::new([Match::Address(Side::Source, network)], Target::Return)
    }

    fn chain(numbers: &[u8]) -> Chain {
        Chain { name: "C".to_owned(), rules: numbers.iter().copied().map(rule).collect() }
    }

    /// Does what `iptables-restore` would do.
    fn apply(text: &str, mut rules: Vec<String>) -> Vec<String> {
        for line in text.lines().filter(|line| line.starts_with('-')) {
            let words: Vec<_> = line.split(' ').collect();
            let place: usize = words[2].parse().unwrap();
            match words[0] {
                "-I" => rules.insert(place - 1, words[3..].join(" ")),
                "-D" => _ = rules.remove(place - 1),
                other => panic!("{other}"),
            }
        }
        rules
    }

    fn texts(chain: &Chain) -> Vec<String> {
        let text = |rule| Commented(rule, &RuleHash::of(rule)).to_string();
        chain.rules.iter().map(text).collect()
    }

    #[test]
    fn a_rule_in_the_middle_is_one_line() {
        let mut change = Transaction::default();
        change.change(&chain(&[1, 3, 4]).hashes(), &chain(&[1, 2, 3, 4]));
        let text = change.text("mangle");
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains("-I C 2 -s 10.0.0.2/32 -m comment --comment \"podwire:"), "{text}");
    }

    #[test]
    fn a_jump_alone_has_no_comment_but_in_chains_of_others() {
        let jump = |label: Option<&str>| {
            let rule = Rule::new([], Target::Jump("PW-B".to_owned()));
            label.map_or(rule.clone(), |label| rule.labelled(label))
        };
        let rules = vec![jump(None), jump(Some("why")), Rule::new([], Target::Return)];
        let chain = Chain { name: "PW-A".to_owned(), rules };
        let mut change = Transaction::default();
        change.create(&chain);
        change.hook("FORWARD", &jump(None));
        let text = change.text("mangle");
        let ends = ["-A PW-A -j PW-B", " why\" -j PW-B", "\" -j RETURN", "\" -j PW-B"];
        for (line, end) in text.lines().filter(|it| it.starts_with('-')).zip(ends) {
            assert!(line.ends_with(end), "{line}");
        }
        // And it is known again by what it is.
        let saved = Saved::read(&text.replace("-I FORWARD 1", "-A FORWARD"), "PW-").unwrap();
        let held: Vec<_> = saved.chains["PW-A"].iter().flatten().cloned().collect();
        assert_eq!(held, chain.hashes());
        assert_eq!(saved.hooks["FORWARD"], [(1, RuleHash::of(&jump(None)))]);
    }

    #[test]
    fn the_same_rules_are_no_change() {
        let mut change = Transaction::default();
        change.change(&chain(&[1, 2]).hashes(), &chain(&[1, 2]));
        assert!(change.is_empty());
    }

    #[test]
    fn new_chains_come_first_and_old_ones_go_last() {
        let mut change = Transaction::default();
        change.remove("OLD");
        change.change(&chain(&[1]).hashes(), &chain(&[2]));
        change.remove("OLDER");
        change.create(&Chain { name: "NEW".to_owned(), rules: vec![rule(1)] });
        let text = change.text("mangle");
        let starts: Vec<_> = text
            .lines()
            .map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            starts,
            [
                "*mangle", ":NEW -", "-D C", "-I C", "-A NEW", "-F OLD", "-F OLDER", "-X OLD",
                "-X OLDER", "COMMIT"
            ]
        );
    }

    #[test]
    fn more_rules_than_can_be_compared_are_written_anew() {
        let many: Vec<_> = (0..1500).map(|it| (it % 200) as u8).collect();
        let fewer: Vec<_> = (1..1500).rev().map(|it| (it % 190) as u8).collect();
        let mut change = Transaction::default();
        change.change(&chain(&many).hashes(), &chain(&fewer));
        assert_eq!(apply(&change.text("t"), texts(&chain(&many))), texts(&chain(&fewer)));
    }

    proptest! {
        #[test]
        fn any_chain_becomes_any_other_in_the_fewest_lines(
            known in proptest::collection::vec(0..6_u8, 0..12),
            desired in proptest::collection::vec(0..6_u8, 0..12),
        ) {
            let (known, desired) = (chain(&known), chain(&desired));
            let mut change = Transaction::default();
            change.change(&known.hashes(), &desired);
            let text = change.text("t");
            prop_assert_eq!(apply(&text, texts(&known)), texts(&desired));
            // At most all of the old out and all of the new in, without what both begin with.
            let same = known.rules.iter().zip(&desired.rules).take_while(|(a, b)| a == b).count();
            prop_assert!(text.lines().count() - 2 <= known.rules.len() + desired.rules.len() - 2 * same);
        }
    }
}
