//! Which tests of a suite should run in a lane: pure.

use crate::error::{Error, Result};
use crate::table::{Except, Lane, Suite};

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

/// Whether a test is the named one, or of the named module.
fn is_of(test: &str, name: &str) -> bool {
    test == name || (name.ends_with("::") && test.starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{EXCEPT, FULL, LANES, NFT_ONLY, SUITES};

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
