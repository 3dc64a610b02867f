//! `bench-proxy`: proxyd and kube-proxy over the same objects of a real API server, each on a node (a network namespace) of its
//! own, one after the other in one run.
//!
//! `--quick` shows in few minutes that all works, and writes no results.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement that fails ends with the reason, and the report goes to stdout"
)]

mod contestant;
mod measured;
mod objects;
mod site;

use std::fs;
use std::time::Instant;

use lab::Node;
use lab::cluster::{Cluster, Version};
use measuring::{number, ratio, table};

use contestant::Contestant;
use measured::Measured;
use objects::Size;

fn main() {
    let is_quick = std::env::args().skip(1).any(|it| it == "--quick");
    let started = Instant::now();
    // `make` has temporary files made in the last.
    measuring::isolate(&["/run", "/var/lib", "/mnt"]);
    let mut facts = measuring::machine();
    facts.push(("kube-proxy", "v1.37.2".to_owned()));
    let mut report =
        String::from("# proxyd beside kube-proxy\n\nWritten by `make bench-proxy`.\n\n");
    for (name, value) in &facts {
        report += &format!("- {name}: {value}\n");
    }
    let both = if is_quick { 200 } else { 10_000 };
    let size = Size { services: both, endpoints: 2 };
    report +=
        &section(size, &[Contestant::Proxyd, Contestant::Nftables, Contestant::Iptables], is_quick);
    let large = if is_quick { 500 } else { 44_000 };
    report += &section(Size { services: large, endpoints: 2 }, &[Contestant::Proxyd], is_quick);
    let wide = Size { services: if is_quick { 50 } else { 5000 }, endpoints: 50 };
    report += &section(wide, &[Contestant::Proxyd], is_quick);
    report += &format!("\nLoad after: {}\n", measuring::load());
    println!("{report}");
    if !is_quick {
        fs::write("benches/results/proxy.md", report).expect("this is the root of the checkout");
    }
    eprintln!("took {} s", started.elapsed().as_secs());
}

/// All contestants over objects of this size.
fn section(size: Size, contestants: &[Contestant], is_quick: bool) -> String {
    let control = Node::quick();
    control.sh("ip link set lo up");
    let cluster = Cluster::start(&control, Version::New);
    eprintln!("{} services with {} endpoints each ...", size.services, size.endpoints);
    cluster.create_all(&objects::objects(size));
    let rounds = if is_quick { 5 } else { 30 };
    let measured: Vec<Measured> = (1..)
        .zip(contestants)
        .map(|(place, contestant)| {
            eprintln!("  {} ...", contestant.name());
            measured::run(*contestant, &control, &cluster, size, place, rounds)
        })
        .collect();
    text(size, &measured)
}

fn text(size: Size, measured: &[Measured]) -> String {
    let mut text =
        format!("\n## {} services with {} endpoints each\n\n", size.services, size.endpoints);
    let mut head = vec!["work (ms)"];
    head.extend(measured.iter().map(|it| it.name));
    head.extend(measured.iter().skip(1).map(|_| "proxyd is"));
    type Figure = fn(&Measured) -> Option<f64>;
    let works: [(&str, Figure); 8] = [
        ("first sync", |it| it.first_sync.median()),
        ("a service added, with its endpoints: median", |it| it.added.median()),
        ("the same: longest", |it| it.added.longest()),
        ("an endpoint exchanged: median", |it| it.changed.median()),
        ("the same: longest", |it| it.changed.longest()),
        ("memory, MB at most", |it| it.memory),
        ("a new connection: median", |it| it.connection.median()),
        ("the same: 99th percentile", |it| it.connection.p99()),
    ];
    let row = |(work, figure): &(&str, Figure)| {
        let figures = measured.iter().map(|it| number(figure(it)));
        let own = measured.first().and_then(figure);
        let ratios = measured.iter().skip(1).map(|it| ratio(figure(it), own));
        [(*work).to_owned()].into_iter().chain(figures).chain(ratios).collect::<Vec<_>>()
    };
    table(&mut text, &head, &works.iter().map(row).collect::<Vec<_>>());
    text
}
