//! The difference of two dumps: lines that only one of them has.

use std::collections::BTreeMap;
use std::fmt;

/// Lines that only the left or only the right dump has; a line twice counts twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Only the left has them.
    pub left: Vec<String>,
    /// Only the right has them.
    pub right: Vec<String>,
}

/// Compares two dumps as multisets of lines.
#[must_use]
pub fn difference(left: &[String], right: &[String]) -> Difference {
    let mut balance: BTreeMap<&str, isize> = BTreeMap::new();
    for line in left {
        *balance.entry(line).or_default() += 1;
    }
    for line in right {
        *balance.entry(line).or_default() -= 1;
    }
    let mut found = Difference::default();
    for (line, count) in balance {
        let side = if count > 0 { &mut found.left } else { &mut found.right };
        side.extend(std::iter::repeat_n(line.to_owned(), count.unsigned_abs()));
    }
    found
}

impl Difference {
    /// Whether the dumps are equal.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.left.is_empty() && self.right.is_empty()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.left {
            writeln!(f, "  - {line}")?;
        }
        for line in &self.right {
            writeln!(f, "  + {line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn equal_dumps_have_no_difference_whatever_their_order() {
        assert!(difference(&lines("a b b"), &lines("b a b")).is_empty());
    }

    #[test]
    fn a_line_that_is_there_twice_counts_twice() {
        let found = difference(&lines("a b b"), &lines("a b c"));
        assert_eq!(found, Difference { left: lines("b"), right: lines("c") });
        assert_eq!(found.to_string(), "  - b\n  + c\n");
    }
}
