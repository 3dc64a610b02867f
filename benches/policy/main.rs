//! `bench-policy`: policyd and kube-router over the same objects of a real API server, each on a
//! node (a network namespace) of its own, one after the other in one run.
//!
//! `--quick` shows in few minutes that all works, and writes no results. `--only WORD` measures
//! the parts whose names have the word: `changes`, `large`, `stream`, `path`, `crowd`.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement that fails ends with the reason, and the report goes to stdout"
)]

mod changes;
mod contestant;
mod crowd;
mod path;
mod probe;
mod report;
mod server;
mod site;
mod stream;
mod world;

use std::fs;
use std::time::Instant;

use lab::Node;
use lab::cluster::{Cluster, Version};

use changes::{Changes, FIRST_PEER, Rounds};
use contestant::Contestant::{self, Iptables, KubeRouter, Nftables};
use measuring::Series;
use site::Site;
use world::Size;

/// How much is measured.
#[derive(Debug)]
struct Options {
    is_quick: bool,
    only: Option<String>,
}

impl Options {
    fn parse() -> Self {
        let mut options = Self { is_quick: false, only: None };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--quick" => options.is_quick = true,
                "--only" => options.only = Some(args.next().expect("--only needs a word")),
                _ => panic!("usage: bench-policy [--quick] [--only WORD]"),
            }
        }
        options
    }

    fn wants(&self, part: &str) -> bool {
        self.only.as_ref().is_none_or(|word| part.contains(word.as_str()))
    }

    fn times(&self, times: usize, quick: usize) -> usize {
        if self.is_quick { quick } else { times }
    }
}

/// All that was measured.
#[derive(Debug, Default)]
struct Results {
    facts: Vec<(&'static str, String)>,
    changes: Vec<Changes>,
    /// Of each contestant, over the objects of `changes`.
    first_syncs: Vec<(Contestant, Series)>,
    large: Vec<Changes>,
    streams: Vec<stream::Streamed>,
    /// Writes a second that the API server took while objects were loaded.
    server_rate: Option<f64>,
    path: Vec<path::Path>,
    crowds: Vec<crowd::Crowd>,
}

fn main() {
    let options = Options::parse();
    let started = Instant::now();
    // `make` has temporary files made in the last.
    measuring::isolate(&["/run", "/var/lib", "/mnt"]);
    let results = measure(&options);
    let report = report::render(&results);
    println!("{report}");
    if !options.is_quick && options.only.is_none() {
        fs::write("benches/results/policy.md", report).expect("this is the root of the checkout");
    }
    eprintln!("took {} s", started.elapsed().as_secs());
}

fn measure(options: &Options) -> Results {
    let mut facts = measuring::machine();
    facts.push(("iptables", measuring::output("iptables", &["--version"])));
    facts.push(("kube-router", "v2.10.0".to_owned()));
    let mut results = Results { facts, ..Results::default() };
    if options.wants("changes") {
        (results.changes, results.first_syncs) = changes(options);
    }
    if options.wants("large") {
        let (large, rate) = large(options);
        results.large = large;
        results.server_rate = Some(rate);
    }
    if options.wants("stream") {
        let size = Size(options.times(1000, 200));
        let seconds = if options.is_quick { 5 } else { 60 };
        results.streams = [(Iptables, 500), (Nftables, 500), (Nftables, 1000)]
            .map(|(contestant, rate)| {
                eprintln!("{}: {rate} changes a second for {seconds} s ...", contestant.name());
                // Each with a server of its own.
                let control = Node::quick();
                let site = Site::new(&control, 1);
                stream::run(contestant, rate, &site, &control, size, seconds)
            })
            .into();
    }
    if options.wants("path") {
        results.path = paths(options);
    }
    if options.wants("crowd") {
        let policies: &[usize] = if options.is_quick { &[10, 100] } else { &[100, 1000, 10_000] };
        results.crowds = crowd::run(policies, &[10, 250], options.times(30, 1));
    }
    results.facts.push(("load after", measuring::load()));
    results
}

/// All contestants over the same objects; policyd by either way once before and once after the other. Then
/// they are started in turns, each time on a new node, as no start takes as long as another.
fn changes(options: &Options) -> (Vec<Changes>, Vec<(Contestant, Series)>) {
    let size = Size(options.times(1000, 100));
    let control = Node::quick();
    let (cluster, _) = load(&control, size);
    let many = || Rounds { policies: options.times(20, 4), pods: options.times(100, 4) };
    let plan = [
        (Nftables, many()),
        (Iptables, many()),
        (KubeRouter, Rounds { policies: options.times(4, 1), pods: options.times(2, 1) }),
        (Iptables, many()),
        (Nftables, many()),
    ];
    let mut all = Vec::new();
    for (number, (contestant, rounds)) in (1..).zip(plan) {
        eprintln!("{} over {} pods and policies ...", contestant.name(), size.0);
        let site = Site::new(&control, number);
        all.push(changes::run(contestant, size.0, &site, &cluster, rounds));
    }
    let mut first_syncs: Vec<_> =
        [Nftables, Iptables, KubeRouter].map(|it| (it, Series::default())).into();
    let mut numbers = 6..;
    for turn in 1..=options.times(5, 1) {
        eprintln!("first sync, turn {turn} ...");
        for ((contestant, series), number) in first_syncs.iter_mut().zip(&mut numbers) {
            let site = Site::new(&control, number);
            let (running, took) = changes::first_sync(*contestant, &site, &cluster);
            running.end();
            series.push(took);
        }
    }
    for (contestant, series) in &mut first_syncs {
        let runs = all.iter().filter(|it| it.contestant == *contestant);
        runs.for_each(|it| series.push(it.first_sync));
    }
    (all, first_syncs)
}

/// policyd alone over ten times as many, by either way, and how fast they could be created.
fn large(options: &Options) -> (Vec<Changes>, f64) {
    let size = Size(options.times(10_000, 1000));
    let control = Node::quick();
    let (cluster, rate) = load(&control, size);
    let runs = [(Iptables, 1), (Nftables, 2)].map(|(contestant, number)| {
        eprintln!("{} over {} pods and policies ...", contestant.name(), size.0);
        let site = Site::new(&control, number);
        let rounds = Rounds { policies: options.times(100, 4), pods: options.times(20, 4) };
        changes::run(contestant, size.0, &site, &cluster, rounds)
    });
    (runs.into(), rate)
}

fn paths(options: &Options) -> Vec<path::Path> {
    let control = Node::quick();
    let cluster = Cluster::start(&control, Version::New);
    let sites = [(None, 1), (Some(Nftables), 2), (Some(Iptables), 3), (Some(KubeRouter), 4)]
        .map(|(contestant, number)| (contestant, Site::new(&control, number)));
    let numbers: &[usize] = if options.is_quick { &[0, 20] } else { &[0, 100, 1000] };
    eprintln!("the path of packets with {numbers:?} policies ...");
    path::run(&cluster, &sites, numbers, options.times(9, 1))
}

/// A cluster with these objects, and how many writes a second it took.
fn load(control: &Node, size: Size) -> (Cluster<'_>, f64) {
    let cluster = Cluster::start(control, Version::New);
    let resources = ["pods", "namespaces", "nodes", "networking.k8s.io/networkpolicies"];
    cluster.allow("agent", &["get", "list", "watch"], &resources);
    let mut objects = world::objects(size);
    objects.push(world::peer(FIRST_PEER));
    let with_status = objects.iter().filter(|object| !object["status"].is_null()).count();
    eprintln!("{} objects are created ...", objects.len());
    let started = Instant::now();
    let (namespaces, rest): (Vec<_>, Vec<_>) =
        objects.into_iter().partition(|object| object["kind"] == "Namespace");
    cluster.create_all(&namespaces);
    cluster.create_all(&rest);
    let writes = namespaces.len() + rest.len() + with_status;
    (cluster, writes as f64 / started.elapsed().as_secs_f64())
}
