//! Words for lists.

use std::fmt::Display;

/// As many of a list are named.
const MOST_NAMED: usize = 5;

/// "a, b and c"; of many the first, and how many more there are.
pub(crate) fn all_of(all: &[impl Display]) -> String {
    let named = all.iter().take(MOST_NAMED).map(ToString::to_string);
    let mut words: Vec<_> = named.collect();
    if all.len() > MOST_NAMED {
        words.push(format!("{} more", all.len() - MOST_NAMED));
    }
    match words.as_slice() {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        _ => words.concat(),
    }
}

/// "1 endpoint", "2 endpoints".
pub(crate) fn count(number: usize, of: &str) -> String {
    if number == 1 { format!("1 {of}") } else { format!("{number} {of}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_the_first_are_named() {
        assert_eq!(all_of(&["a"]), "a");
        assert_eq!(all_of(&["a", "b", "c"]), "a, b and c");
        let many: Vec<_> = (0..9).collect();
        assert_eq!(all_of(&many), "0, 1, 2, 3, 4 and 4 more");
        assert_eq!(all_of(&[""; 0]), "");
    }
}
