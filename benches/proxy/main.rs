//! `bench-proxy`: proxyd and kube-proxy over the same objects of a real API server, each on a node (a network namespace) of its
//! own, one after the other in one run.
//!
//! `--quick` shows in few minutes that all works, and writes no results. `--only WORD` measures those whose names have the word,
//! over 10,000 services.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement that fails ends with the reason, and the report goes to stdout"
)]

mod contestant;
mod measured;
mod objects;
mod others;
mod path;
mod report;
mod site;

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use lab::Node;
use lab::cluster::{Cluster, Version};
use serde_json::Value;

use contestant::Contestant::{self, Iptables, Nftables, Proxyd};
use measured::Measured;
use objects::{Size, Sizes};
use report::Results;

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let is_quick = arguments.iter().any(|it| it == "--quick");
    let only = arguments.iter().position(|it| it == "--only").map(|it| arguments[it + 1].as_str());
    let started = Instant::now();
    // `make` has temporary files made in the last.
    measuring::isolate(&["/run", "/var/lib", "/mnt"]);
    let report = report::render(&measure(is_quick, only));
    println!("{report}");
    if !is_quick && only.is_none() {
        fs::write("benches/results/proxy.md", report).expect("this is the root of the checkout");
    }
    eprintln!("took {} s", started.elapsed().as_secs());
}

fn measure(is_quick: bool, only: Option<&str>) -> Results {
    let sizes = if is_quick { Sizes::QUICK } else { Sizes::FULL };
    let mut facts = measuring::machine();
    facts.push(("kube-proxy", "v1.37.2".to_owned()));
    let plan: [(Size, &[Contestant]); 4] = [
        (sizes.few, &[Proxyd, Nftables]),
        // Before and after the others.
        (sizes.both, &[Proxyd, Nftables, Iptables, Proxyd]),
        (sizes.large, &[Proxyd]),
        (sizes.wide, &[Proxyd]),
    ];
    let mut measured = Vec::new();
    for (size, contestants) in plan {
        let is_wanted = |it: &Contestant| {
            only.is_none_or(|word| size == sizes.both && it.name().contains(word))
        };
        let contestants: Vec<_> = contestants.iter().copied().filter(is_wanted).collect();
        if !contestants.is_empty() {
            measured.extend(over(size, &contestants, is_quick));
        }
    }
    eprintln!("the path of packets ...");
    let rounds = if is_quick { 2 } else { 40 };
    let paths = path::run(&measured, rounds);
    let of = |contestant, size| {
        measured.iter().find(|it: &&Measured| (it.contestant, it.size) == (contestant, size))
    };
    let both = |size| of(Proxyd, size).zip(of(Nftables, size));
    let pairs = [sizes.few, sizes.both].into_iter().filter_map(both);
    let beside = pairs.map(|(ours, theirs)| path::beside(ours, theirs, rounds)).collect();
    facts.push(("load after", measuring::load()));
    Results { facts, sizes, measured, paths, beside }
}

/// All contestants over the same objects.
fn over(size: Size, contestants: &[Contestant], is_quick: bool) -> Vec<Measured> {
    let control = Node::quick();
    control.sh("ip link set lo up");
    let cluster = Cluster::start(&control, Version::New);
    eprintln!("{size} ...");
    cluster.store(&objects::stored(size));
    wait(&cluster, size);
    (1..)
        .zip(contestants)
        .map(|(place, contestant)| {
            eprintln!("  {} ...", contestant.name());
            let rounds = if is_quick { 3 } else { contestant.rounds() };
            measured::run(*contestant, &control, &cluster, size, place, rounds)
        })
        .collect()
}

/// Waits until the API server has seen all of what is stored.
fn wait(cluster: &Cluster<'_>, size: Size) {
    let last = size.services - 1;
    for object in [objects::service(last), objects::slice(last, &[])] {
        let path = lab::cluster::path(&object);
        let (all, name) = path.rsplit_once('/').expect("a path has parts");
        let only = format!("{all}?fieldSelector=metadata.name%3D{name}");
        let started = Instant::now();
        while cluster.request("GET", &only, &Value::Null)["items"]
            .as_array()
            .is_none_or(Vec::is_empty)
        {
            assert!(started.elapsed() < Duration::from_mins(2), "{only} is not served");
            sleep(Duration::from_millis(100));
        }
    }
}
