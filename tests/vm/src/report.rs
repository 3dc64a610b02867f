//! What is told to people.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is the program's answer")]

use crate::error::Error;
use crate::machine::{Machine, Went};
use crate::plan::{Plan, Planned};
use crate::results::{Fault, Told};
use crate::table::{EXCEPT, Except, Lane};

/// So many lines of a console tell how it ended.
const LAST: usize = 40;

/// So many lines are shown of what failed; all are in the file of results.
const MOST_FAILURES: usize = 400;

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
    let runs = |it: &&Except| plan.suites.iter().any(|suite| suite.name == it.suite);
    let left_out = EXCEPT.iter().filter(|it| it.lane == lane).filter(runs);
    let left_out = left_out.map(|it| format!("  without {} {}: {}\n", it.suite, it.test, it.why));
    let (left_out, count, name) = (left_out.collect::<String>(), count(&plan.suites), lane.name);
    let results = machine.results();
    println!(
        "{kernel}, {name}: {count} tests; it tells of them in {}\n{left_out}",
        results.display()
    );
}

/// A virtual machine has ended. It is told in one piece, as others may end at the same time.
pub(crate) fn ended(name: &str, told: &Told, plan: &Plan, faults: &[Fault], went: &Went) {
    let mut lines: Vec<String> = shortened(told.failures(), MOST_FAILURES);
    if !told.is_done() {
        lines.push("the last lines of its console:".to_owned());
        let console: Vec<_> = went.console.lines().collect();
        let last = console.iter().skip(console.len().saturating_sub(LAST));
        lines.extend(last.map(|line| format!("    {line}")));
    }
    lines.extend(told.notes.iter().map(|note| format!("  {note}")));
    lines.extend(faults.iter().map(|fault| format!("  FAULT: {fault}")));
    lines.extend(went.trouble.iter().map(|trouble| format!("  FAULT: {}", trouble.chain())));
    let (passed, count, took) =
        (told.passed(&plan.suites), count(&plan.suites), went.took.as_secs());
    println!("{}\n{name}: {passed} of {count} tests passed, in {took} s\n", lines.join("\n"));
}

/// The first of these lines.
fn shortened<'a>(lines: impl Iterator<Item = &'a str>, most: usize) -> Vec<String> {
    let mut lines: Vec<_> = lines.map(|line| format!("    {line}")).collect();
    if lines.len() > most {
        lines.truncate(most);
        lines.push("    ... and more".to_owned());
    }
    lines
}

fn count(suites: &[Planned]) -> usize {
    suites.iter().map(|it| it.tests.len()).sum()
}
