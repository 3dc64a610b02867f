//! `bench-cni`: podwire, the Go reference plugins and the floor, side by side in one run.
//!
//! Everything happens in namespaces of this program's own: each contestant has a node (a network
//! namespace) for each work, every attachment a fresh pod. `/run` is a private one.
//!
//! `--quick` shows in two minutes that all works, and writes no results. `--only WORD` measures the
//! works whose titles have the word; `at once`, `connections`, `rate` and `memory` are the others.
#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement that fails ends with the reason, the report goes to stdout, and starting programs is what is measured"
)]

mod connections;
mod contestant;
mod crowd;
mod lane;
mod machine;
mod memory;
mod netns;
mod parity;
mod process;
mod rate;
mod report;
mod results;
mod rounds;
mod targets;
mod work;
mod world;

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Instant;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use contestant::Programs;
use lane::Bench;
use results::Results;
use rounds::Plan;

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
                _ => panic!("usage: bench-cni [--quick] [--only WORD]"),
            }
        }
        options
    }

    /// Whether something of this name is measured.
    fn wants(&self, title: &str) -> bool {
        self.only.as_ref().is_none_or(|word| title.contains(word.as_str()))
    }

    /// So many, or few.
    fn times(&self, times: usize, quick: usize) -> usize {
        if self.is_quick { quick } else { times }
    }
}

fn main() {
    let options = Options::parse();
    let started = Instant::now();
    isolate();
    let home = tempfile::tempdir().expect("a directory for temporary files is needed");
    let log_file = home.path().join("log");
    let bench = Bench {
        programs: Programs::find(),
        home: home.path().to_owned(),
        log: File::options().append(true).create(true).open(&log_file).expect("it is ours"),
        namespaces: netns::count(),
    };
    tell_complaints_of_a_failure(log_file, home.path().to_owned());
    let results = measure(&bench, &options);
    let report = report::render(&results);
    println!("{report}");
    if !options.is_quick && options.only.is_none() {
        fs::write("benches/results/cni.md", report).expect("this is the root of the checkout");
    }
    eprintln!("took {} s", started.elapsed().as_secs());
}

/// A failure ends this process at once: what the programs said is shown, and the directory goes.
fn tell_complaints_of_a_failure(log: PathBuf, home: PathBuf) {
    let inner = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        inner(info);
        eprintln!("the programs complained:\n{}", fs::read_to_string(&log).unwrap_or_default());
        // Nothing can be done about a directory that stays.
        let _ = fs::remove_dir_all(&home);
    }));
}

/// Gives this process a private `/run` (lock files of iptables and podwire) and many descriptors.
fn isolate() {
    measuring::isolate(&["/run"]);
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("it cannot fail");
    setrlimit(Resource::RLIMIT_NOFILE, most.min(65536), most).expect("up to the hard limit");
}

fn measure(bench: &Bench, options: &Options) -> Results {
    let plan = |works, rounds, go_every: usize| Plan {
        works,
        rounds: options.times(rounds, 5),
        go_every: if options.is_quick { go_every.min(3) } else { go_every },
    };
    let plans = [
        plan(&[work::BRIDGE, work::BRIDGE_NFTABLES], 200, 1),
        plan(&[work::BRIDGE_DUAL], 150, 1),
        plan(&[work::BRIDGE_MASQUERADE], 100, 1),
        plan(&[work::PTP], 150, 1),
        plan(&[work::PTP_DUAL], 200, 10),
        plan(&[work::LOOPBACK], 150, 1),
        plan(&[work::FEW_LEASES, work::MANY_LEASES], 100, 1),
        plan(&[work::PORTMAP_IPTABLES, work::PORTMAP_NFTABLES], 100, 1),
        plan(&[work::PORTMAP_QUIET, work::PORTMAP_CROWDED], 60, 4),
        plan(&[work::FIREWALL_IPTABLES, work::FIREWALL_NFTABLES], 100, 1),
        plan(&[work::TUNING], 100, 1),
        plan(&[work::BANDWIDTH], 100, 1),
        plan(&[work::SBR], 100, 1),
        plan(&[work::CHAIN_IPTABLES, work::CHAIN_NFTABLES], 60, 1),
    ];
    let mut results = Results {
        facts: machine::facts(bench),
        sizes: machine::sizes(&bench.programs),
        ..Results::default()
    };
    for plan in plans.iter().filter(|plan| plan.works.iter().any(|work| options.wants(work.title)))
    {
        let titles: Vec<_> = plan.works.iter().map(|work| work.title).collect();
        eprintln!("{} ({} rounds) ...", titles.join(" and "), plan.rounds);
        plan.works.iter().for_each(|work| parity::must_hold(bench, *work));
        results.calls.extend(rounds::run(bench, plan));
    }
    if options.wants("at once") {
        eprintln!("many pods at once ...");
        let (pods, times) = (options.times(30, 10), options.times(9, 1));
        results.small_crowd = Some((pods, crowd::run(bench, pods, times)));
        let (pods, times) = (options.times(110, 20), options.times(3, 1));
        results.large_crowd = Some((pods, crowd::run(bench, pods, times)));
    }
    if options.wants("connections") {
        eprintln!("connections through a published port ...");
        let works = [work::PORTMAP_QUIET, work::PORTMAP_CROWDED];
        results.connections = connections::run(bench, &works, options.times(20, 2));
    }
    if options.wants("rate") {
        eprintln!("rates of bandwidth ...");
        let (times, seconds) = if options.is_quick { (1, 1) } else { (3, 3) };
        results.rates = rate::run(bench, times, seconds);
    }
    if options.wants("memory") {
        eprintln!("peak memory ...");
        results.memory = memory::run(bench);
    }
    results.facts.push(("load after", measuring::load()));
    results
}
