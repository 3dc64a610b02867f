//! `bench-cluster`: how long pods of a whole cluster take until they are ready, wired by podwire and
//! by the reference plugins, in turns on the same node.
//!
//! `--quick` shows in few minutes that all works, and writes no results.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement that fails ends with the reason, and the report goes to stdout"
)]

mod contestant;
mod report;
mod rounds;
mod watch;

use std::fs;
use std::time::Instant;

use e2e::{Bed, state};
use testbed::bring_up;
use testbed::settings::{Backend, Family, Proxy, Settings};

use contestant::Plugins;
use rounds::{AtOnce, OneByOne};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Options {
    /// Pods of each contestant, one after the other and at once.
    pods: u32,
    /// How often so many come one after the other.
    times: u32,
    /// How often so many come at once.
    crowds: u32,
    is_quick: bool,
}

impl Options {
    fn parse() -> Self {
        let arguments: Vec<_> = std::env::args().skip(1).collect();
        match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [] => Self { pods: 50, times: 2, crowds: 8, is_quick: false },
            ["--quick"] => Self { pods: 4, times: 1, crowds: 1, is_quick: true },
            _ => panic!("usage: bench-cluster [--quick]"),
        }
    }
}

/// What was measured in a cluster.
#[derive(Debug)]
struct Results {
    family: Family,
    one_by_one: [(Plugins, OneByOne); 2],
    at_once: [(Plugins, AtOnce); 2],
}

fn main() {
    let (options, started) = (Options::parse(), Instant::now());
    let mut facts = facts();
    let results = [Family::Ipv4, Family::Dual].map(|family| measure(family, options));
    facts.push(("load after", measuring::load()));
    let report = report::render(&facts, options.pods, &results);
    println!("{report}");
    if !options.is_quick {
        fs::write("benches/results/cluster.md", report).expect("this is the root of the checkout");
    }
    eprintln!("took {} s", started.elapsed().as_secs());
}

fn facts() -> Vec<(&'static str, String)> {
    let mut facts = measuring::machine();
    let podwire = std::env::var("PODWIRE_BIN").expect("`make bench-cluster` sets it");
    facts.push(("Go plugins", "v1.9.1".to_owned()));
    facts.push(("podwire", measuring::output(&podwire, &["--version"])));
    facts
}

fn measure(family: Family, options: Options) -> Results {
    bring_up::down(&state()).expect("what was there can be taken down");
    let bed =
        Bed::up(Settings { nodes: 1, family, proxy: Proxy::Iptables, backend: Backend::Auto });
    contestant::prepare(&bed);
    eprintln!("{family:?}: one pod after the other ...");
    let one_by_one = rounds::one_by_one(&bed, options.pods, options.times);
    eprintln!("{family:?}: {} pods at once ...", options.pods);
    let at_once = rounds::at_once(&bed, options.pods, options.crowds);
    bed.down();
    Results { family, one_by_one, at_once }
}
