//! Transactions that are larger than what a socket may be written at once.

use std::env::{current_exe, var_os};
use std::net::Ipv4Addr;

use netlink::Error;
use netlink::nftables::{Change, Client};
use ruleset::nft::{Element, Family, Key, Set, Table, Value};

use crate::space::run;

const TABLE: Table<'_> = Table { family: Family::Inet, name: "t" };
/// Set where the test goes on, in a user namespace, which only a process of one thread can enter.
const INSIDE: &str = "PODWIRE_TEST_INSIDE";
const NAME: &str = "large::what_is_too_large_at_once_is_refused_with_the_limit_and_who_sets_it";

#[test]
fn what_is_too_large_at_once_is_refused_with_the_limit_and_who_sets_it() {
    if var_os(INSIDE).is_none() {
        let program = current_exe().unwrap();
        let within = ["--user", "--map-root-user", "--net", "env", &format!("{INSIDE}=1")];
        let test = [program.to_str().unwrap(), "--exact", NAME];
        let printed = run("unshare", &[&within[..], &test[..]].concat(), "");
        assert!(printed.contains("1 passed"), "{printed}");
        return;
    }
    let mut client = Client::open().unwrap().expect("the kernel has nf_tables");
    let set = Set::new("s", [Key::Ipv4]);
    let comment = "c".repeat(200);
    let elements = |count: u32| -> Vec<_> {
        let addresses = (0..count).map(|it| Value::Address(Ipv4Addr::from_bits(it).into()));
        addresses.flat_map(|it| set.encode(&Element::new([it]).commented(&comment))).collect()
    };
    let mut write = |count| {
        let elements = elements(count);
        let made = [Change::Table(None), Change::Set(&set), Change::Elements("s", &elements)];
        client.change(TABLE, &made)
    };
    // Twice `net.core.wmem_max` is 8 MiB at most, as nodes have it.
    write(600).unwrap();
    let error = write(60_000).unwrap_err();
    let Error::TooLarge { bytes, limit, .. } = error else { panic!("{error}") };
    assert!(bytes > limit && limit >= 128 << 10, "{bytes} of {limit}");
    let told = error.to_string();
    assert!(told.contains(&bytes.to_string()) && told.contains("net.core.wmem_max"), "{told}");
    assert_eq!(client.elements(TABLE, "s").unwrap().len(), 600);
}
