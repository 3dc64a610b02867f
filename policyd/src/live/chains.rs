//! Chains, by what their rules carry.

use std::fmt::Display;

/// What is wrong with a chain of these rules, of which this is held: of each rule what tells which one it is, but
/// of those that are somebody else's.
pub(super) fn problem<M: PartialEq, R: Display>(wanted: &[(M, R)], held: &[Option<M>]) -> String {
    let mut others: Vec<_> = held.iter().flatten().collect();
    let mut missing = Vec::new();
    for (mark, rule) in wanted {
        match others.iter().position(|it| *it == mark) {
            Some(place) => _ = others.remove(place),
            None => missing.push(rule),
        }
    }
    let mut parts = Vec::new();
    if let Some(first) = missing.first() {
        let (count, of) = (missing.len(), wanted.len());
        parts.push(format!("{count} of its {of} rules are missing, the first: {first}"));
    }
    if !others.is_empty() {
        parts.push(format!("{} rules of policyd's are there that should not be", others.len()));
    }
    let foreign = held.iter().filter(|it| it.is_none()).count();
    if foreign > 0 {
        parts.push(format!("{foreign} rules of others are in it"));
    }
    if parts.is_empty() { "its rules are in another order".to_owned() } else { parts.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_are_missing_and_those_that_are_too_many_are_told() {
        let problem = |held: &[Option<u8>]| problem(&[(1, "one"), (2, "two"), (2, "two")], held);
        assert_eq!(problem(&[Some(2), Some(1), Some(2)]), "its rules are in another order");
        assert_eq!(problem(&[]), "3 of its 3 rules are missing, the first: one");
        assert_eq!(
            problem(&[Some(1), None, Some(2), Some(3)]),
            "1 of its 3 rules are missing, the first: two; 1 rules of policyd's are there that should not be; 1 rules of others are in it"
        );
    }
}
