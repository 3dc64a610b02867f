//! The floor is only a floor while it does what podwire does: both leave the same world behind.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::contestant::Contestant;
use crate::lane::{Bench, Lane};
use crate::work::Work;

/// What is looked at in the node and in the pod.
const LOOKS: [&[&str]; 3] = [
    &["-o", "address"],
    &["route", "show", "table", "all"],
    &["-6", "route", "show", "table", "all"],
];
/// Per-interface parameters that plugins write.
const SYSCTLS: [&str; 6] = [
    "ipv6/accept_ra",
    "ipv6/accept_dad",
    "ipv6/keep_addr_on_down",
    "ipv6/disable_ipv6",
    "ipv4/arp_notify",
    "ipv4/forwarding",
];

/// Panics with the differences unless podwire and the floor leave the same behind after an ADD.
pub(crate) fn must_hold(bench: &Bench, work: Work) {
    let mut pods = Vec::new();
    let mut worlds = [Contestant::Podwire, Contestant::Floor].map(|contestant| {
        let mut lane = Lane::new(bench, contestant, work, &mut pods);
        let pod = lane.pod();
        lane.call("ADD", &pod);
        let mut world = BTreeSet::new();
        pod.enter();
        look("pod", &mut world);
        pods.push(pod);
        lane.enter();
        look("node", &mut world);
        world
    });
    let [podwire, floor] = &mut worlds;
    let missing: Vec<_> = podwire.difference(floor).collect();
    let more: Vec<_> = floor.difference(podwire).collect();
    assert!(
        missing.is_empty() && more.is_empty(),
        "{}: the floor does not do what podwire does; it lacks {missing:#?} and has {more:#?}",
        work.title
    );
}

/// Adds what the current namespace has.
fn look(place: &str, world: &mut BTreeSet<String>) {
    for args in LOOKS {
        let output = Command::new("ip").args(args).output().expect("iproute2 is needed");
        let text = String::from_utf8_lossy(&output.stdout);
        world.extend(text.lines().filter(|line| is_ours(line)).map(|line| mask(place, line)));
    }
    for key in SYSCTLS {
        let (family, name) = key.split_once('/').expect("every key has one");
        let folder = fs::read_dir(format!("/proc/sys/net/{family}/conf")).expect("it is Linux");
        for interface in folder.filter_map(Result::ok) {
            let value = fs::read_to_string(interface.path().join(name)).unwrap_or_default();
            let interface = interface.file_name();
            let line = format!("{key} {} {}", interface.to_string_lossy(), value.trim());
            world.insert(mask(place, &line));
        }
    }
}

/// Link-local addresses come a moment later, or not at all.
fn is_ours(line: &str) -> bool {
    !["fe80:", "multicast", "anycast"].iter().any(|word| line.contains(word))
}

/// Replaces what differs from one run to the next: names and indexes of links.
fn mask(place: &str, line: &str) -> String {
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
    format!("{place} {}", words.join(" "))
}
