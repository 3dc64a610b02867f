//! The same calls through podwire and through the reference plugins, in twin nodes: exit status,
//! answer, kernel state and files must be equal, but for the listed differences.

mod case;
mod cases;
mod compare;
mod cross;
mod shared_store;
mod twin;
mod wanted;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use lab::{Suite, workspace};

use case::Case;
use wanted::Wanted;

/// A DEL waits about 20 ms for the kernel: more workers than processors pay.
const WORKERS: usize = 6;

#[test]
fn podwire_does_what_the_reference_does() {
    let list = workspace().join("tests/differential/wanted-differences.toml");
    let wanted = Wanted::read(&list);
    let cases = chosen(cases::all());
    assert!(cases.len() >= 150 || filtered(), "the table has only {} cases", cases.len());
    let faults = compare_all(&cases, &Suite::podwire(), &Suite::reference(), &wanted);
    let unused = if filtered() { Vec::new() } else { wanted.unused() };
    report(&cases, &faults, &unused);
}

/// The reference compared with itself shows that what chance makes is masked, and nothing else can
/// be at fault when podwire differs.
#[test]
fn the_reference_does_not_differ_from_itself() {
    let step = if std::env::var_os("LAB_ALL").is_some() { 1 } else { 5 };
    let cases: Vec<Case> = chosen(cases::all()).into_iter().step_by(step).collect();
    let reference = Suite::reference();
    let faults = compare_all(&cases, &reference, &reference, &Wanted::default());
    report(&cases, &faults, &[]);
}

/// A harness that cannot see a difference proves nothing.
#[test]
fn a_difference_is_seen() {
    let all = cases::all();
    let reference = Suite::reference();
    let find = |name: &str| all.iter().find(|case| case.name == name).expect("the case exists");
    let case = find("bridge/plain");
    let mut other = case.clone();
    other.conf["mtu"] = serde_json::json!(1400);
    let (left, right) = (twin::run(case, &reference), twin::run(&other, &reference));
    let found = lab::difference(&left.outcomes[0].world.lines, &right.outcomes[0].world.lines);
    assert!(found.left.contains(&"pod1 link eth0 mtu=1500".to_owned()), "{found}");
    assert!(found.right.contains(&"pod1 link eth0 mtu=1400".to_owned()), "{found}");
}

#[test]
fn names_of_cases_are_unique() {
    let mut names: Vec<_> = cases::all().into_iter().map(|case| case.name).collect();
    names.sort();
    let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

/// `LAB_CASES` narrows a run by hand to the cases whose names contain it.
fn chosen(cases: Vec<Case>) -> Vec<Case> {
    let Some(part) = std::env::var("LAB_CASES").ok() else { return cases };
    cases.into_iter().filter(|case| case.name.contains(&part)).collect()
}

fn filtered() -> bool {
    std::env::var_os("LAB_CASES").is_some()
}

/// Compares all cases over a few threads; returns the faults by case.
fn compare_all(
    cases: &[Case],
    left: &Suite,
    right: &Suite,
    wanted: &Wanted,
) -> Vec<(String, String)> {
    let next = AtomicUsize::new(0);
    let faults = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let compared = catch_unwind(AssertUnwindSafe(|| {
                        compare::compare(case, left, right, wanted)
                    }));
                    let found = compared.unwrap_or_else(|cause| vec![panic_text(&*cause)]);
                    let named = found.into_iter().map(|fault| (case.name.clone(), fault));
                    faults.lock().unwrap().extend(named);
                }
            });
        }
    });
    let mut faults = faults.into_inner().unwrap();
    faults.sort();
    faults
}

fn panic_text(cause: &(dyn std::any::Any + Send)) -> String {
    let text = cause.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| cause.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a text")
        .to_owned()
}

fn report(cases: &[Case], faults: &[(String, String)], unused: &[&str]) {
    let text: String = faults.iter().map(|(case, fault)| format!("{case}: {fault}\n")).collect();
    let mut names: Vec<&String> = faults.iter().map(|(case, _)| case).collect();
    names.dedup();
    assert!(
        faults.is_empty() && unused.is_empty(),
        "{text}\n{} of {} cases differ: {names:?}\nwanted differences that no case shows: {unused:?}",
        names.len(),
        cases.len()
    );
    println!("{} cases, no unwanted difference", cases.len());
}
