//! Which tests of a suite should run in a lane: pure.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::table::{Except, Lane, LeftOut, Suite};

/// The tests of a suite that should run in a lane, of all that its binary has.
///
/// # Errors
/// The table names a test that is not there, or leaves none.
pub(crate) fn chosen(
    suite: &Suite,
    lane: &Lane,
    excepts: &[Except],
    mut tests: Vec<String>,
) -> Result<Vec<String>> {
    // One that is of no lane that the suite runs in would never be looked at otherwise.
    let excepts: Vec<_> = excepts.iter().filter(|it| it.suite == suite.name).collect();
    let named = excepts.iter().map(|it| it.test).chain(suite.only.iter().copied());
    let names: Vec<_> = named
        .filter(|name| !tests.iter().any(|test| is_of(test, name)))
        .map(str::to_owned)
        .collect();
    if !names.is_empty() {
        return Err(Error::Unmatched { suite: suite.name.to_owned(), names });
    }
    let is_wanted =
        |test: &str| suite.only.is_empty() || suite.only.iter().any(|it| is_of(test, it));
    let is_excepted = |test: &str| excepts.iter().any(|it| it.lane == lane && is_of(test, it.test));
    tests.retain(|test| is_wanted(test) && !is_excepted(test));
    if tests.is_empty() {
        return Err(Error::NoTests(format!("{} in lane {}", suite.name, lane.name)));
    }
    Ok(tests)
}

/// Looks whether the table tells of all tests of these binaries, by their names, either that they run somewhere or why they
/// do not.
///
/// # Errors
/// Of some it tells nothing, or both, or of what is not there.
pub(crate) fn all_told(
    binaries: &[(&str, Vec<String>)],
    suites: &[Suite],
    left_out: &[LeftOut],
) -> Result<()> {
    let of_binaries = binaries.iter().flat_map(|(name, tests)| {
        let modules: BTreeSet<_> = tests.iter().map(|it| module(it)).collect();
        modules.into_iter().map(move |module| (*name, module))
    });
    let of_binaries: BTreeSet<_> = of_binaries.collect();
    let runs = |(name, of): &(&str, &str)| {
        suites
            .iter()
            .filter(|it| it.name == *name)
            .any(|suite| suite.only.is_empty() || suite.only.iter().any(|it| module(it) == *of))
    };
    let covers = |it: &LeftOut, (name, of): &(&str, &str)| {
        it.suite == *name && (it.module.is_empty() || it.module == *of)
    };
    let is_left_out = |it: &(&str, &str)| left_out.iter().any(|left| covers(left, it));
    let untold = of_binaries.iter().filter(|it| runs(it) == is_left_out(it));
    let untold = untold.map(|(name, module)| format!("{name} {module}"));
    let is_of_none = |left: &&LeftOut| !of_binaries.iter().any(|it| covers(left, it));
    let gone = left_out.iter().filter(is_of_none);
    let gone = gone.map(|it| format!("{} {}", it.suite, it.module).trim_end().to_owned());
    let all: Vec<_> = untold.chain(gone).collect();
    if all.is_empty() { Ok(()) } else { Err(Error::Untold(all)) }
}

/// The module at the top that a test is of; its own name where it is of none.
fn module(test: &str) -> &str {
    test.split("::").next().unwrap_or(test)
}

/// Whether a test is the named one, or of the named module.
fn is_of(test: &str, name: &str) -> bool {
    test == name || (name.ends_with("::") && test.starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{EXCEPT, FULL, LANES, LEFT_OUT, NFT_ONLY, SUITES};

    fn except(lane: &'static Lane, test: &'static str) -> Except {
        Except { lane, suite: "p/s", test, why: "a reason" }
    }

    fn choose(
        only: &'static [&'static str],
        excepts: &[Except],
        lane: &Lane,
    ) -> Result<Vec<String>> {
        let suite = Suite { name: "p/s", lanes: LANES, only };
        chosen(&suite, lane, excepts, ["a::x", "a::y", "ab::x", "b::x"].map(str::to_owned).to_vec())
    }

    #[test]
    fn all_run_but_those_that_do_not_apply_in_the_lane() {
        let excepts = [except(&NFT_ONLY, "a::"), except(&NFT_ONLY, "b::x")];
        assert_eq!(choose(&[], &excepts, &NFT_ONLY).unwrap(), ["ab::x"]);
        assert_eq!(choose(&[], &excepts, &FULL).unwrap().len(), 4);
        assert_eq!(choose(&["a::", "b::x"], &[], &FULL).unwrap(), ["a::x", "a::y", "b::x"]);
    }

    #[test]
    fn a_name_that_no_test_has_is_told_in_every_lane() {
        let told = |found: Result<Vec<String>>| found.unwrap_err().to_string();
        // A test's name is no prefix.
        assert!(told(choose(&[], &[except(&NFT_ONLY, "a::z")], &FULL)).contains("a::z"));
        assert!(told(choose(&[], &[except(&NFT_ONLY, "a:")], &FULL)).contains("a:"));
        assert!(told(choose(&["c::"], &[], &NFT_ONLY)).contains("c::"));
    }

    #[test]
    fn a_suite_of_which_nothing_is_left_is_told() {
        assert!(choose(&["b::"], &[except(&FULL, "b::x")], &FULL).is_err());
    }

    #[test]
    fn of_each_test_that_is_built_it_is_told_where_it_runs_or_why_it_does_not() {
        let tests = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let binaries = [
            ("lab/whole", tests(&["a::x", "b"])),
            ("lab/part", tests(&["a::x", "b::y::z", "alone"])),
            ("lab/none", tests(&["a::x"])),
        ];
        let suite = |name, only| Suite { name, lanes: LANES, only };
        let suites = [
            suite("lab/whole", &[]),
            suite("lab/part", &["b::y::"]),
            suite("lab/part", &["alone"]),
        ];
        let left_out = |suite, module| LeftOut { suite, module, why: "a reason" };
        let told = |list: &[LeftOut]| {
            all_told(&binaries, &suites, list).map_err(|error| error.to_string())
        };
        let told_all = [left_out("lab/part", "a"), left_out("lab/none", "")];
        assert_eq!(told(&told_all), Ok(()));
        let missing = |list: &[LeftOut], name: &str| {
            let told = told(list).unwrap_err();
            assert!(told.contains(&format!("[{name:?}]")), "{told}");
        };
        missing(&told_all[..1], "lab/none a");
        missing(&told_all[1..], "lab/part a");
        let [one, other] = told_all;
        let [both, gone] = [left_out("lab/part", "b"), left_out("lab/part", "c")];
        missing(&[one, other, both], "lab/part b");
        let told_all = [left_out("lab/part", "a"), left_out("lab/none", ""), gone];
        missing(&told_all, "lab/part c");
    }

    #[test]
    fn the_table_is_in_order() {
        for it in EXCEPT {
            let mut suites = SUITES.iter().filter(|suite| suite.name == it.suite);
            assert!(
                suites.any(|suite| suite.lanes.contains(&it.lane)),
                "{} does not run in {}",
                it.suite,
                it.lane.name
            );
            assert!(!it.why.is_empty());
        }
        assert!(LEFT_OUT.iter().all(|it| !it.why.is_empty()));
        for lane in LANES {
            let of_lane = SUITES.iter().filter(|it| it.lanes.contains(lane));
            let mut names: Vec<_> = of_lane.map(|suite| suite.name).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{}", lane.name);
        }
    }
}
