//! What the virtual machine tells of its tests, and whether that is what it should: pure.

use std::collections::BTreeMap;
use std::fmt;

use crate::plan::Planned;

/// What a line of our own begins with; all others are those of the binaries of tests.
pub(crate) const OURS: &str = "vm: ";

/// The words of our own lines.
pub(crate) const SUITE: &str = "suite ";
pub(crate) const ENDED: &str = "ended ";
pub(crate) const BROKEN: &str = "broken ";
pub(crate) const DONE: &str = "done";

/// How a binary ends whose tests have all passed.
pub(crate) const SUCCESS: &str = "exit status: 0";

/// What was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    suites: BTreeMap<String, Ran>,
    broken: Vec<String>,
    /// What it told of itself, such as how long each suite took.
    pub(crate) notes: Vec<String>,
    is_done: bool,
}

/// What a binary told.
#[derive(Debug, Default)]
struct Ran {
    outcomes: BTreeMap<String, String>,
    ended: Option<String>,
    /// What it shows of tests that failed.
    failures: Vec<String>,
}

/// Something that is not as it should be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A test failed, or has no result.
    Test { suite: String, test: String, outcome: String },
    /// A binary ended badly, though none of its tests did.
    Ended { suite: String, how: String },
    /// The lane is not what it should be.
    Broken(String),
    /// The virtual machine ended before all was done.
    NotDone,
}

impl Told {
    /// Reads what came out of the port.
    pub(crate) fn read(text: &str) -> Self {
        let mut told = Self::default();
        let mut suite = String::new();
        for line in text.lines() {
            let Some(ours) = line.strip_prefix(OURS) else {
                told.suites.entry(suite.clone()).or_default().read(line);
                continue;
            };
            told.notes.push(ours.to_owned());
            if let Some(name) = ours.strip_prefix(SUITE) {
                name.clone_into(&mut suite);
                told.suites.entry(suite.clone()).or_default();
            } else if let Some(how) = ours.strip_prefix(ENDED) {
                told.suites.entry(suite.clone()).or_default().ended = Some(how.to_owned());
                suite.clear();
            } else if let Some(why) = ours.strip_prefix(BROKEN) {
                told.broken.push(why.to_owned());
            } else if ours.starts_with(DONE) {
                told.is_done = true;
            }
        }
        told
    }

    /// How many tests passed of those that were planned.
    pub(crate) fn passed(&self, planned: &[Planned]) -> usize {
        let of_suite = |it: &Planned| {
            let outcome = |test: &&String| self.outcome(&it.name, test) == "ok";
            it.tests.iter().filter(outcome).count()
        };
        planned.iter().map(of_suite).sum()
    }

    /// All that is not as it should be.
    pub(crate) fn faults(&self, planned: &[Planned]) -> Vec<Fault> {
        let mut faults: Vec<_> = self.broken.iter().cloned().map(Fault::Broken).collect();
        for Planned { name, tests, .. } in planned {
            let before = faults.len();
            for test in tests {
                let outcome = self.outcome(name, test);
                if outcome != "ok" {
                    let (suite, test, outcome) = (name.clone(), test.clone(), outcome.to_owned());
                    faults.push(Fault::Test { suite, test, outcome });
                }
            }
            let how = self.suites.get(name).and_then(|it| it.ended.clone()).unwrap_or_default();
            if faults.len() == before && !how.ends_with(SUCCESS) {
                faults.push(Fault::Ended { suite: name.clone(), how });
            }
        }
        if !self.is_done {
            faults.push(Fault::NotDone);
        }
        faults
    }

    /// Whether it ended by itself, so that its console tells nothing more.
    pub(crate) fn is_done(&self) -> bool {
        self.is_done
    }

    /// What the binaries show of tests that failed.
    pub(crate) fn failures(&self) -> impl Iterator<Item = &str> {
        self.suites.values().flat_map(|it| &it.failures).map(String::as_str)
    }

    fn outcome(&self, suite: &str, test: &str) -> &str {
        let outcome = self.suites.get(suite).and_then(|it| it.outcomes.get(test));
        outcome.map_or("has no result", String::as_str)
    }
}

impl Ran {
    fn read(&mut self, line: &str) {
        // Below that line comes what the tests printed, which may look like anything.
        if line == "failures:" || !self.failures.is_empty() {
            self.failures.push(line.to_owned());
        } else if let Some((name, outcome)) =
            line.strip_prefix("test ").and_then(|it| it.split_once(" ... "))
        {
            let name = name.strip_suffix(" - should panic").unwrap_or(name);
            self.outcomes.insert(name.to_owned(), outcome.to_owned());
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Test { suite, test, outcome } => write!(f, "{suite} {test}: {outcome}"),
            Self::Ended { suite, how } if how.is_empty() => write!(f, "{suite} did not end"),
            Self::Ended { suite, how } => write!(f, "{suite} ended badly: {how}"),
            Self::Broken(why) => write!(f, "the virtual machine is not as it should be: {why}"),
            Self::NotDone => write!(f, "the virtual machine ended before all was done"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
vm: booted 6.1.0 after 9 s\r
vm: suite p/one\r
\r
running 2 tests\r
test a::x has been running for over 60 seconds\r
test a::x ... ok\r
test a::y - should panic ... ok\r
vm: ended after 3 s: exit status: 0\r
vm: done after 20 s\r
";

    fn planned(tests: &[&str]) -> Vec<Planned> {
        let tests = tests.iter().map(|it| (*it).to_owned()).collect();
        vec![Planned { name: "p/one".into(), file: "/f".into(), folder: "/d".into(), tests }]
    }

    fn faults(text: &str, tests: &[&str]) -> Vec<String> {
        Told::read(text).faults(&planned(tests)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn where_all_passed_there_is_no_fault() {
        assert!(faults(GOOD, &["a::x", "a::y"]).is_empty());
        assert_eq!(Told::read(GOOD).passed(&planned(&["a::x", "a::y"])), 2);
        assert_eq!(Told::read(GOOD).notes.len(), 4);
    }

    #[test]
    fn a_test_without_a_result_is_a_fault() {
        assert_eq!(faults(GOOD, &["a::x", "a::z"]), ["p/one a::z: has no result"]);
        let other = GOOD.replace("suite p/one", "suite p/two");
        assert_eq!(faults(&other, &["a::x"]), ["p/one a::x: has no result"]);
    }

    #[test]
    fn what_failed_or_was_ignored_is_a_fault_and_shown() {
        let bad = GOOD
            .replace("a::x ... ok", "a::x ... FAILED")
            .replace("panic ... ok", "panic ... ignored, slow")
            .replace("vm: ended", "failures:\r\ntest a::x ... ok\r\nvm: ended");
        let told = Told::read(&bad);
        assert_eq!(
            faults(&bad, &["a::x", "a::y"]),
            ["p/one a::x: FAILED", "p/one a::y: ignored, slow"]
        );
        assert_eq!(told.failures().collect::<Vec<_>>(), ["failures:", "test a::x ... ok"]);
    }

    #[test]
    fn a_binary_that_ends_badly_after_good_tests_is_a_fault() {
        let bad = GOOD.replace("exit status: 0", "signal: 11");
        assert_eq!(faults(&bad, &["a::x"]), ["p/one ended badly: after 3 s: signal: 11"]);
        let hung = GOOD.replace("vm: ended after 3 s: exit status: 0\r\n", "");
        assert_eq!(faults(&hung, &["a::x"]), ["p/one did not end"]);
    }

    #[test]
    fn a_machine_that_ends_early_or_is_not_as_it_should_be_is_a_fault() {
        let early = GOOD.replace("vm: done", "vm: ");
        assert_eq!(faults(&early, &["a::x"]).len(), 1);
        // Of what did not even start all is told.
        assert_eq!(faults("", &["a::x"]).len(), 2);
        let broken = GOOD.replace("vm: suite", "vm: broken ip_tables is there\r\nvm: suite");
        assert!(faults(&broken, &["a::x"])[0].ends_with("ip_tables is there"));
    }
}
