//! Members of sets, as people are told of them.

use std::net::IpAddr;

use super::report::Live;

/// So many members are named, and the others counted.
const MOST_NAMED: usize = 5;

/// A member of a set.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// As the program shows it that people look at the set by.
    pub(super) text: String,
    /// The address in it.
    pub(super) address: Option<IpAddr>,
}

/// Tells which members a set lacks and which ones it should not hold; `call` tells what people call who has an
/// address.
pub(super) fn tell(
    place: &str,
    [missing, stale]: [Vec<Member>; 2],
    live: &mut Live,
    call: &impl Fn(IpAddr) -> Option<String>,
) {
    for (members, word) in [(missing, "lacks"), (stale, "should not hold")] {
        if !members.is_empty() {
            live.differ(place, format!("it {word} {}", list(&members, call)));
        }
    }
}

fn list(members: &[Member], call: &impl Fn(IpAddr) -> Option<String>) -> String {
    let named = members.iter().take(MOST_NAMED).map(|Member { text, address }| {
        let name = address.and_then(call).map(|it| format!(" ({it})")).unwrap_or_default();
        format!("{text}{name}")
    });
    let named = named.collect::<Vec<_>>().join(", ");
    match members.len().saturating_sub(MOST_NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_named_and_the_others_counted() {
        let member = |it: u8| {
            let address = IpAddr::from([10, 0, 0, it]);
            Member { text: address.to_string(), address: Some(address) }
        };
        let mut live = Live::new("n", Vec::new());
        let call = |it: IpAddr| (it == IpAddr::from([10, 0, 0, 2])).then(|| "d/a".to_owned());
        tell("set s", [(1..=6).map(member).collect(), vec![member(2)]], &mut live, &call);
        let problems: Vec<_> = live.differences.iter().map(|it| it.problem.as_str()).collect();
        assert_eq!(
            problems,
            [
                "it lacks 10.0.0.1, 10.0.0.2 (d/a), 10.0.0.3, 10.0.0.4, 10.0.0.5 and 1 more",
                "it should not hold 10.0.0.2 (d/a)"
            ]
        );
    }
}
