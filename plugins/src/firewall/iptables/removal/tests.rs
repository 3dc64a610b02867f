use super::super::tests::{applied, rules_of};
use super::*;
use serde_json::json;

const ADDRESS: &str = "10.1.0.2";

/// The DEL of a container whose result has these addresses, where ours is leased to another.
fn del<'a>(
    container_id: &str,
    addresses: &'a [IpAddr],
    leased_to: Option<&'static str>,
) -> Removal<'a> {
    let removal = Removal::of_attachment("n1", (container_id, "eth0"), addresses);
    leased(removal, leased_to)
}

fn leased<'a>(removal: Removal<'a>, to: Option<&'static str>) -> Removal<'a> {
    let leased_to = move |address: IpAddr| {
        to.filter(|_| address.to_string() == ADDRESS).map(|it| record("n1", it, "eth0"))
    };
    Removal { leased_to: Box::new(leased_to), ..removal }
}

fn added(saved: &str, container_id: &str, address: &str) -> String {
    let rules = rules_of(container_id, &json!({}), &format!("{address}/24"));
    applied(saved, &rules.lines(saved, &del(container_id, &[], None)))
}

/// By the reference: no record, and no second time.
fn added_by_reference(saved: &str, address: &str) -> String {
    let missing = accepting(address.parse().unwrap()).map(|it| it.to_string());
    let missing = missing.into_iter().filter(|rule| !rules(saved).any(|it| it == rule));
    applied(saved, &missing.map(|it| format!("-A {it}")).collect::<Vec<_>>())
}

fn deleted_by_reference(saved: &str, address: &str) -> String {
    applied(saved, &accepting(address.parse().unwrap()).map(|it| format!("-D {it}")))
}

fn removed(saved: &str, removal: &Removal<'_>) -> String {
    applied(saved, &removal.lines(saved))
}

/// How many pairs of rules let an address' packets pass.
fn pairs(saved: &str, address: &str) -> usize {
    let [first, second] = accepting(address.parse().unwrap()).map(|it| it.to_string());
    let count = |rule: &str| rules(saved).filter(|it| *it == rule).count();
    assert_eq!(count(&first), count(&second), "{saved}");
    count(&first)
}

fn valid(container_id: &str) -> Attachment {
    Attachment { container_id: container_id.to_owned(), ifname: "eth0".to_owned() }
}

#[test]
fn an_address_that_is_anothers_by_now_is_left_to_it() {
    let saved = added(&added("", "first", ADDRESS), "second", ADDRESS);
    let result = [ADDRESS.parse().unwrap()];
    // Whose DEL comes late; whose other it is, the records tell as well as the lease.
    for leased_to in [None, Some("second")] {
        let left = removed(&saved, &del("first", &result, leased_to));
        assert_eq!(pairs(&left, ADDRESS), 1, "{left}");
        assert!(!left.contains(&record("n1", "first", "eth0")), "{left}");
        // And again.
        let left = removed(&left, &del("first", &result, leased_to));
        assert_eq!(pairs(&left, ADDRESS), 1, "{left}");
        // It gets another address.
        let moved = added(&left, "second", "10.1.0.3");
        assert_eq!((pairs(&moved, ADDRESS), pairs(&moved, "10.1.0.3")), (0, 1));
        let left = removed(&moved, &del("second", &[], None));
        assert!(!left.contains("10.1.0.") && !left.contains(RECORD_PREFIX), "{left}");
    }
}

/// The reference's DEL of what we added leaves the record.
#[test]
fn a_record_whose_rules_are_gone_takes_no_rules_of_others() {
    let stale = deleted_by_reference(&added("", "first", ADDRESS), ADDRESS);
    let result = [ADDRESS.parse().unwrap()];
    let by_us = (added(&stale, "second", ADDRESS), None);
    // Of these only the lease tells.
    let by_reference = (added_by_reference(&stale, ADDRESS), Some("second"));
    for (saved, leased_to) in [by_us, by_reference] {
        let garbage = leased(Removal::of_garbage("n1", &[valid("second")]), leased_to);
        for removal in [garbage, del("first", &result, leased_to), del("first", &[], leased_to)] {
            let left = removed(&saved, &removal);
            assert_eq!(pairs(&left, ADDRESS), 1, "{left}");
            assert!(!left.contains(&record("n1", "first", "eth0")), "{left}");
            let left = removed(&left, &del("second", &result, leased_to));
            assert!(!left.contains("10.1.0."), "{left}");
        }
        // The other's goes while the record still is there.
        let left = removed(&saved, &del("second", &result, Some("second")));
        assert_eq!(pairs(&left, ADDRESS), 0, "{left}");
    }
}

#[test]
fn what_the_record_says_goes_and_what_the_result_says() {
    let stale = deleted_by_reference(&added("", "first", ADDRESS), ADDRESS);
    let saved = added_by_reference(&stale, "10.1.0.8");
    let left = removed(&saved, &del("first", &["10.1.0.8".parse().unwrap()], None));
    assert!(!left.contains("10.1.0.") && !left.contains(RECORD_PREFIX), "{left}");
}

#[test]
fn without_a_record_the_rules_go_once() {
    let saved = added("", "a", ADDRESS);
    let by_reference = accepting(ADDRESS.parse().unwrap()).map(|rule| format!("-A {rule}"));
    let both = applied(&saved, &by_reference);
    let result = [ADDRESS, "10.1.0.9"].map(|it| it.parse().unwrap());
    let left = removed(&both, &del("b", &result, None));
    assert_eq!(left.lines().count(), saved.lines().count(), "{left}");
    assert_eq!(removed(&left, &del("b", &result, None)), left);
}

#[test]
fn an_address_may_be_anothers_in_another_network() {
    let saved = added("", "first", ADDRESS);
    let other = record("n2", "second", "eth0");
    let of_other = [format!("-N {other}"), format!("-A {other} -s {ADDRESS}/32 -j RETURN")];
    let saved = applied(&saved, &of_other);
    // One pair for two records: one of them is of nobody, and who knows which.
    assert_eq!(pairs(&removed(&saved, &del("first", &[], Some("first"))), ADDRESS), 1);
    let pair = accepting(ADDRESS.parse().unwrap()).map(|rule| format!("-A {rule}"));
    let saved = applied(&saved, &pair);
    assert_eq!(pairs(&removed(&saved, &del("first", &[], Some("first"))), ADDRESS), 1);
}

/// A container that the reference added, and podwire once more: by its lease all that its address has is its own.
#[test]
fn what_the_reference_added_before_goes_too() {
    let saved = added(&added_by_reference("", ADDRESS), "first", ADDRESS);
    assert_eq!(pairs(&saved, ADDRESS), 2);
    let left = removed(&saved, &del("first", &[], Some("first")));
    assert_eq!(pairs(&left, ADDRESS), 0, "{left}");
    // Those with a record in another network have it still.
    let other = applied(
        &saved,
        &[format!("-N {RECORD_PREFIX}x"), format!("-A {RECORD_PREFIX}x -s {ADDRESS}/32 -j RETURN")],
    );
    let left = removed(&other, &del("first", &[], Some("first")));
    assert_eq!(pairs(&left, ADDRESS), 1, "{left}");
}
