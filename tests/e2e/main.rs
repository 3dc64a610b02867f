//! podwire on whole clusters, as its users have it. Arguments are parts of names: only tests with one
//! of them run.

mod cases;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use e2e::{Bed, machine};
use testbed::bring_up;
use testbed::settings::{Backend, Family, Proxy, Settings};

/// A test, and what it is called.
type Case = (&'static str, fn(&Bed));

/// A cluster, and what is tested on it.
struct Suite {
    name: &'static str,
    settings: Settings,
    end: End,
    cases: &'static [Case],
}

/// How a cluster ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It is taken down.
    Down,
    /// Its first process is killed, and what is left is taken down.
    Crash,
}

const fn settings(nodes: u8, family: Family, proxy: Proxy, backend: Backend) -> Settings {
    Settings { nodes, family, proxy, backend }
}

/// What `make e2e` runs. The first one is the shortest that shows whether all works together.
const SUITES: &[Suite] = &[
    Suite {
        name: "smoke",
        settings: settings(1, Family::Ipv4, Proxy::Iptables, Backend::Auto),
        end: End::Down,
        cases: cases::SMOKE,
    },
    Suite {
        name: "nodes",
        settings: settings(3, Family::Dual, Proxy::Proxyd, Backend::Auto),
        end: End::Crash,
        cases: cases::NODES,
    },
    Suite {
        name: "crowd",
        settings: settings(1, Family::Ipv4, Proxy::Nftables, Backend::Iptables),
        end: End::Down,
        cases: cases::CROWD,
    },
    Suite {
        name: "ipv6",
        settings: settings(1, Family::Ipv6, Proxy::Proxyd, Backend::Nftables),
        end: End::Down,
        cases: cases::IPV6,
    },
];

#[derive(Debug, Default)]
struct Tally {
    passed: u32,
    failed: Vec<String>,
}

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let mut tally = Tally::default();
    for suite in SUITES {
        suite.run(&wanted, &mut tally);
    }
    let Tally { passed, failed } = &tally;
    for name in failed {
        println!("failed: {name}");
    }
    println!("\n{passed} passed, {} failed", failed.len());
    // A filter that nothing matches is a mistake, not a success.
    if failed.is_empty() && *passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Suite {
    fn run(&self, wanted: &[String], tally: &mut Tally) {
        let name = |case: &Case| format!("{}::{}", self.name, case.0);
        let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|it| name.contains(it));
        let cases: Vec<_> = self.cases.iter().filter(|case| is_wanted(&name(case))).collect();
        if cases.is_empty() {
            return;
        }
        // What a run left behind that was killed.
        bring_up::down(&e2e::state()).expect("cannot take down what was there");
        let before = machine::dump();
        let up = || Bed::up(self.settings);
        let mut bed = None;
        tally.count(&format!("{}::up", self.name), || bed = Some(up()));
        let Some(bed) = bed else { return };
        for case in cases {
            let is_good = tally.count(&name(case), || case.1(&bed));
            if !is_good {
                bed.tell();
            }
        }
        tally.count(&format!("{}::{}", self.name, self.end.name()), || {
            if self.end == End::Crash {
                bed.crash();
            }
            bed.down();
            let after = machine::dump();
            let of_one = |one: &[String], other: &[String]| -> Vec<_> {
                one.iter().filter(|line| !other.contains(line)).cloned().collect()
            };
            let (gone, new) = (of_one(&before, &after), of_one(&after, &before));
            assert!(
                gone.is_empty() && new.is_empty(),
                "of the machine gone: {gone:?}; new: {new:?}"
            );
        });
    }
}

impl End {
    fn name(self) -> &'static str {
        match self {
            Self::Down => "down_leaves_nothing",
            Self::Crash => "down_leaves_nothing_after_a_crash",
        }
    }
}

impl Tally {
    fn count(&mut self, name: &str, test: impl FnOnce()) -> bool {
        let started = Instant::now();
        let is_good = catch_unwind(AssertUnwindSafe(test)).is_ok();
        let verdict = if is_good { "ok" } else { "FAILED" };
        println!("test {name} ... {verdict} ({:.1} s)", started.elapsed().as_secs_f64());
        if is_good {
            self.passed += 1;
        } else {
            self.failed.push(name.to_owned());
        }
        is_good
    }
}
