//! The ipset client against sets that the program made.

use std::net::IpAddr;

use netlink::ipset::{Client, Element, Outcome, Set};

use crate::space::{move_away, run};

/// In a namespace of its own.
fn client() -> Client {
    move_away();
    Client::open().unwrap().expect("the kernel has netfilter")
}

fn ipset(args: &[&str], input: &str) -> String {
    run("ipset", args, input)
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The elements of a set as the program lists them.
fn elements(set: &str) -> Vec<String> {
    let prefix = format!("add {set} ");
    let mut found: Vec<String> = ipset(&["save", set], "")
        .lines()
        .filter_map(|line| line.strip_prefix(&prefix))
        .map(str::to_owned)
        .collect();
    found.sort();
    found
}

#[test]
fn elements_come_and_go_and_are_found() {
    let mut client = client();
    ipset(&["restore"], "create v4 hash:ip\ncreate v6 hash:ip family inet6\nadd v4 10.1.0.9\n");
    for (set, text, before) in [("v4", "10.1.0.2", vec!["10.1.0.9"]), ("v6", "fd00::2", vec![])] {
        let address = address(text);
        assert_eq!(client.contains(set, address).unwrap(), Some(false));
        for _ in 0..2 {
            assert_eq!(client.add(set, address).unwrap(), Outcome::Done);
        }
        assert_eq!(client.contains(set, address).unwrap(), Some(true));
        assert_eq!(elements(set), [&[text], &before[..]].concat());
        for _ in 0..2 {
            assert_eq!(client.delete(set, address).unwrap(), Outcome::Done);
        }
        assert_eq!(client.contains(set, address).unwrap(), Some(false));
        assert_eq!(elements(set), before);
    }
}

#[test]
fn ports_come_and_go() {
    let mut client = client();
    ipset(&["restore"], "create v4 hash:ip,port\ncreate v6 hash:ip,port family inet6\n");
    for (set, text) in [("v4", "10.1.0.2"), ("v6", "fd00::2")] {
        for (protocol, name) in [(6, "tcp"), (17, "udp"), (132, "sctp")] {
            let element = Element::AddressPort { address: address(text), protocol, port: 8080 };
            for _ in 0..2 {
                assert_eq!(client.add(set, element).unwrap(), Outcome::Done);
            }
            assert_eq!(elements(set), [format!("{text},{name}:8080")]);
            for _ in 0..2 {
                assert_eq!(client.delete(set, element).unwrap(), Outcome::Done);
            }
            assert!(elements(set).is_empty());
        }
        client.add(set, address(text)).unwrap_err();
    }
}

#[test]
fn a_missing_set_is_told() {
    let mut client = client();
    for address in ["10.1.0.2", "fd00::2"].map(address) {
        assert_eq!(client.add("gate", address).unwrap(), Outcome::NoSuchSet);
        assert_eq!(client.delete("gate", address).unwrap(), Outcome::NoSuchSet);
        assert_eq!(client.contains("gate", address).unwrap(), None);
    }
    assert_eq!(client.sets().unwrap(), []);
}

#[test]
fn refusals_say_why() {
    let mut client = client();
    ipset(&["restore"], "create v4 hash:ip maxelem 1\nadd v4 10.1.0.9\n");
    let full = client.add("v4", address("10.1.0.2")).unwrap_err().to_string();
    assert_eq!(full, "cannot add 10.1.0.2 to ipset \"v4\": the set is full");
    assert_eq!(client.add("v4", address("10.1.0.9")).unwrap(), Outcome::Done);
    let other = client.delete("v4", address("fd00::2")).unwrap_err().to_string();
    let expected =
        "cannot delete fd00::2 from ipset \"v4\": the set has elements of another kind or family";
    assert_eq!(other, expected);
    assert_eq!(elements("v4"), ["10.1.0.9"]);
}

#[test]
fn sets_are_listed_with_their_sizes() {
    let mut client = client();
    let mut input = String::from("create empty hash:net,port\ncreate nets hash:net family inet6\n");
    input.push_str("add nets fd00::/64\nadd nets fd01::/64\n");
    for number in 0..1000 {
        input.push_str(&format!("create set-{number:03} hash:ip\nadd set-{number:03} 10.1.0.1\n"));
    }
    ipset(&["restore"], &input);
    let mut sets = client.sets().unwrap();
    sets.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(sets.len(), 1002);
    let set =
        |name: &str, kind: &str, elements| Set { name: name.into(), kind: kind.into(), elements };
    assert_eq!(sets[0], set("empty", "hash:net,port", 0));
    assert_eq!(sets[1], set("nets", "hash:net", 2));
    assert_eq!(sets[1001], set("set-999", "hash:ip", 1));
    client.delete("set-999", address("10.1.0.1")).unwrap();
    assert!(client.sets().unwrap().contains(&set("set-999", "hash:ip", 0)));
}

#[test]
fn sets_that_are_used_are_told_from_others() {
    let mut client = client();
    assert!(!client.is_referenced("used").unwrap());
    ipset(&["restore"], "create used hash:ip\ncreate other hash:ip\ncreate all list:set\n");
    assert!(!client.is_referenced("used").unwrap());
    ipset(&["restore"], "add all used\nadd used 10.1.0.1\n");
    assert!(client.is_referenced("used").unwrap());
    assert!(!client.is_referenced("other").unwrap());
    ipset(&["restore"], "del all used\n");
    assert!(!client.is_referenced("used").unwrap());
}
