//! One directory of leases, used by both suites at once.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;

use lab::{Call, Node, Suite};
use serde_json::{Value, json};

/// Calls at once; half of them of each suite.
const CALLS: usize = 50;

#[test]
fn no_address_is_given_twice() {
    let node = Node::quick();
    let suites = [Suite::podwire(), Suite::reference()];
    let directory = node.data().join("net1");
    // Twice, so that the second round finds the directory as the first left it.
    for round in 0..2 {
        let given = at_once(|number| {
            let suite = &suites[number % 2];
            let reply = call("ADD", number).conf(&conf(&node)).run(&node, suite);
            let ips = reply.ok()["ips"].as_array().expect("ips").clone();
            ips.iter().map(|ip| ip["address"].as_str().expect("address").to_owned()).collect()
        });
        let all: Vec<&String> = given.iter().flatten().collect();
        let distinct: BTreeSet<_> = all.iter().collect();
        assert_eq!(all.len(), 2 * CALLS, "round {round}: an address of each family for each call");
        assert_eq!(distinct.len(), all.len(), "round {round}: an address was given twice: {all:?}");
        assert_eq!(leases(&directory), 2 * CALLS, "round {round}: a lease for each address");
        must_be_the_last(&directory, &all);
        // Each is deleted by the other suite.
        at_once(|number| {
            let suite = &suites[(number + 1) % 2];
            let _ = call("DEL", number).conf(&conf(&node)).run(&node, suite).ok();
            Vec::new()
        });
        assert_eq!(leases(&directory), 0, "round {round}: leases are left");
    }
}

/// ADDs of one suite among DELs of the other.
#[test]
fn adds_and_deletes_do_not_disturb_each_other() {
    let node = Node::quick();
    let suites = [Suite::podwire(), Suite::reference()];
    let directory = node.data().join("net1");
    at_once(|number| {
        let (add, del) = (&suites[number % 2], &suites[(number / 2) % 2]);
        for _ in 0..3 {
            let _ = call("ADD", number).conf(&conf(&node)).run(&node, add).ok();
            let _ = call("CHECK", number).conf(&conf(&node)).run(&node, del).ok();
            let _ = call("DEL", number).conf(&conf(&node)).run(&node, del).ok();
        }
        Vec::new()
    });
    assert_eq!(leases(&directory), 0, "leases are left");
}

fn conf(node: &Node) -> Value {
    json!({"cniVersion": "1.0.0", "name": "net1", "type": "host-local", "ipam": {"type": "host-local",
        "dataDir": node.data(), "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]}})
}

fn call(command: &str, number: usize) -> Call {
    // host-local never enters the namespace; the environment only has to name one.
    Call::new("host-local", command)
        .container(&format!("cid{number}"))
        .netns(Path::new("/run/netns/unused"))
}

/// Runs `f` for each number at once.
fn at_once(f: impl Fn(usize) -> Vec<String> + Sync) -> Vec<Vec<String>> {
    thread::scope(|scope| {
        let f = &f;
        let threads: Vec<_> = (0..CALLS).map(|number| scope.spawn(move || f(number))).collect();
        threads.into_iter().map(|t| t.join().expect("the call is as it should be")).collect()
    })
}

/// Files that are named as addresses.
fn leases(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).expect("the directory is there");
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.parse::<std::net::IpAddr>().is_ok()).count()
}

/// `last_reserved_ip.N` names an address of range set N that was given.
fn must_be_the_last(directory: &Path, given: &[&String]) {
    for set in 0..2 {
        let file = directory.join(format!("last_reserved_ip.{set}"));
        let last = fs::read_to_string(&file).expect("the file is there");
        assert!(last.parse::<std::net::IpAddr>().is_ok(), "{} holds {last:?}", file.display());
        let is_it = |address: &&&String| address.split('/').next() == Some(last.as_str());
        assert!(given.iter().any(|address| is_it(&address)), "{last} was never given");
    }
}
