//! What namespaces have, as lines that can be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

/// Facts.
pub(crate) type World = BTreeSet<String>;

const ROUTES: [&[&str]; 2] =
    [&["route", "show", "table", "all"], &["-6", "route", "show", "table", "all"]];
/// Per-interface parameters that plugins write.
const SYSCTLS: [&str; 6] = [
    "ipv6/accept_ra",
    "ipv6/accept_dad",
    "ipv6/keep_addr_on_down",
    "ipv6/disable_ipv6",
    "ipv4/arp_notify",
    "ipv4/forwarding",
];

/// Panics with the differences unless both are the same; `what` says whose the first one is.
pub(crate) fn must_be_alike(what: &str, one: &World, other: &World) {
    let more: Vec<_> = one.difference(other).collect();
    let missing: Vec<_> = other.difference(one).collect();
    assert!(missing.is_empty() && more.is_empty(), "{what}: lacks {missing:#?} and has {more:#?}");
}

/// What plugins make on a node: links, routes, rules and queueing disciplines.
pub(crate) fn node() -> World {
    let mut world = rules();
    let links = fs::read_to_string("/proc/thread-self/net/dev").expect("/proc is mounted");
    world.extend(links.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())));
    for args in ROUTES {
        // Addresses of IPv6 get those to themselves once nobody else has them.
        let is_made = |line: &String| is_ours(line) && !line.starts_with("local ");
        world.extend(lines("ip", args).into_iter().filter(is_made));
    }
    world.extend(lines("tc", &["qdisc", "show"]));
    world.extend(tables());
    world
}

/// The tables of nf_tables, but for those of iptables: [`rules`] tells what is in them, and empty ones stay.
fn tables() -> World {
    let mut is_of_iptables = false;
    let listed = lines("nft", &["--stateless", "list", "ruleset"]).into_iter();
    let others = listed.filter(|line| {
        if let Some(table) = line.strip_prefix("table ") {
            let words = table.split(' ').take(2).collect::<Vec<_>>();
            is_of_iptables = matches!(words[..], ["ip" | "ip6", "filter" | "mangle" | "nat"]);
        }
        !is_of_iptables
    });
    others.collect()
}

/// Addresses, routes, and the rules that lead to their tables.
pub(crate) fn network() -> World {
    let mut world = World::new();
    let looks: [&[&str]; 3] = [&["-o", "address"], &["rule"], &["-6", "rule"]];
    for args in looks.into_iter().chain(ROUTES) {
        world.extend(lines("ip", args).iter().filter(|line| is_ours(line)).map(|line| mask(line)));
    }
    world
}

/// The parameters of all interfaces.
pub(crate) fn parameters() -> World {
    let mut world = World::new();
    for key in SYSCTLS {
        let (family, name) = key.split_once('/').expect("every key has one");
        let folder = fs::read_dir(format!("/proc/sys/net/{family}/conf")).expect("it is Linux");
        for interface in folder.filter_map(Result::ok) {
            let value = fs::read_to_string(interface.path().join(name)).unwrap_or_default();
            let interface = interface.file_name();
            world.insert(mask(&format!("{key} {} {}", interface.to_string_lossy(), value.trim())));
        }
    }
    world
}

/// The rules of iptables, numbered within their chains, and the chains that it does not have by itself.
pub(crate) fn rules() -> World {
    let mut world = World::new();
    for program in ["iptables-save", "ip6tables-save"] {
        let mut table = String::new();
        let mut numbers = BTreeMap::<String, usize>::new();
        for line in lines(program, &[]) {
            if let Some(name) = line.strip_prefix('*') {
                table = format!("{program} {name}");
                numbers.clear();
            } else if line.starts_with("-A ") {
                let chain = line.split(' ').nth(1).unwrap_or_default();
                let number = numbers.entry(chain.to_owned()).or_default();
                *number += 1;
                world.insert(format!("{table} {number} {line}"));
            } else if let Some((chain, _)) = line.split_once(" - ") {
                world.insert(format!("{table} {chain}"));
            }
        }
    }
    world
}

/// The token buckets.
pub(crate) fn token_buckets() -> World {
    let all = lines("tc", &["qdisc", "show"]);
    let buckets = all.iter().filter(|line| line.starts_with("qdisc tbf "));
    // How often a discipline is referred to depends on the number of a link's queues.
    let without_references = |line: &String| {
        let mut words: Vec<_> = line.split_whitespace().collect();
        if let Some(place) = words.iter().position(|word| *word == "refcnt") {
            words.drain(place..(place + 2).min(words.len()));
        }
        mask(&words.join(" "))
    };
    buckets.map(without_references).collect()
}

/// Link-local addresses come a moment later, or not at all.
fn is_ours(line: &str) -> bool {
    !["fe80:", "multicast", "anycast"].iter().any(|word| line.contains(word))
}

/// Replaces what differs from one run to the next: names and indexes of links.
fn mask(line: &str) -> String {
    let word = |word: &str| {
        if word.starts_with("veth") {
            "veth*".to_owned()
        } else if word.trim_end_matches(':').bytes().all(|byte| byte.is_ascii_digit()) {
            if word.ends_with(':') { String::new() } else { word.to_owned() }
        } else {
            word.to_owned()
        }
    };
    let words: Vec<String> = line.split_whitespace().map(word).collect();
    words.join(" ")
}

/// What a program prints.
fn lines(program: &str, args: &[&str]) -> Vec<String> {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}
