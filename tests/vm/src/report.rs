//! What is told to people.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is the program's answer")]

use std::time::Duration;

use crate::error::Error;
use crate::machine::{Machine, Went};
use crate::plan::{Plan, Planned};
use crate::results::{Fault, Told};
use crate::table::Lane;

/// So many lines of a console tell how it ended.
const LAST: usize = 40;

/// Tells why something failed.
pub(crate) fn complain(error: &Error) {
    eprintln!("vm: {}", error.chain());
}

/// A lane without any of the suites that were asked for.
pub(crate) fn nothing(kernel: &str, lane: &Lane) {
    println!("{kernel}, {}: none of these suites runs there", lane.name);
}

/// A virtual machine is about to start.
pub(crate) fn begins(kernel: &str, lane: &Lane, plan: &Plan, machine: &Machine) {
    let tests: usize = plan.suites.iter().map(|it| it.tests.len()).sum();
    println!(
        "{kernel}, {}: {tests} tests; it tells of them in {}",
        lane.name,
        machine.results().display()
    );
}

/// A virtual machine has ended.
pub(crate) fn ended(told: &Told, plan: &Plan, faults: &[Fault], went: &Went, took: Duration) {
    told.failures().for_each(|line| println!("    {line}"));
    if !told.is_done() {
        println!("the last lines of its console:");
        let lines: Vec<_> = went.console.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(LAST)).for_each(|it| println!("    {it}"));
    }
    for note in &told.notes {
        println!("  {note}");
    }
    for fault in faults {
        println!("  FAULT: {fault}");
    }
    if let Some(trouble) = &went.trouble {
        println!("  FAULT: {}", trouble.chain());
    }
    let (passed, count) = (told.passed(&plan.suites), count(&plan.suites));
    println!("  {passed} of {count} tests passed, in {} s\n", took.as_secs());
}

fn count(suites: &[Planned]) -> usize {
    suites.iter().map(|it| it.tests.len()).sum()
}
