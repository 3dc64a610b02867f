//! The report.

use std::fmt::Write;
use std::time::Duration;

use measuring::{Bound, Target, number, spread, table};

use crate::contestant::Contestant::{self, Nftables, Proxyd};
use crate::measured::Measured;
use crate::objects::{Size, Sizes};
use crate::path::{Beside, Path};

const HEAD: &str = "# Services: proxyd beside kube-proxy\n\n\
Made by `make bench-proxy`: one run, the same objects of a real kube-apiserver 1.37 and etcd, each contestant on a node of its own. \
\"First sync\" is the time from the start of the program until each of some 18 services, early and late ones by number and by name, leads to \
its endpoint. An addition and an exchange are timed from the API server's answer until a connection is answered by who should. \
\"Others wait\" is the longest that a transaction of somebody else on the same node took during the first sync, tried every 5 ms.\n\n";

/// All that was measured.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) facts: Vec<(&'static str, String)>,
    pub(crate) sizes: Sizes,
    pub(crate) measured: Vec<Measured>,
    pub(crate) paths: Vec<Path>,
    pub(crate) beside: Vec<Beside>,
}

/// The whole report.
pub(crate) fn render(results: &Results) -> String {
    let mut text = HEAD.to_owned();
    for (name, value) in &results.facts {
        let _ = writeln!(text, "- {name}: {value}");
    }
    text.push_str("\n## Targets\n\n");
    table(&mut text, &Target::HEAD, &targets(results).iter().map(Target::row).collect::<Vec<_>>());
    push_measured(&mut text, &results.measured);
    push_paths(&mut text, &results.paths);
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn push_measured(text: &mut String, measured: &[Measured]) {
    text.push_str("## First sync, changes and memory\n\nMilliseconds; of changes the median / the longest of so many.\n\n");
    let row = |it: &Measured| {
        let times = |series: &measuring::Series| {
            format!(
                "{} / {} of {}",
                number(series.median()),
                number(series.longest()),
                series.len()
            )
        };
        vec![
            format!("{}, {}", it.contestant.name(), it.size),
            number(Some(millis(it.first_sync))),
            number(Some(millis(it.others))),
            times(&it.added),
            times(&it.changed),
            format!("{} / {}", number(Some(it.memory.now)), number(Some(it.memory.peak))),
        ]
    };
    let head = [
        "",
        "first sync",
        "others wait",
        "a service added",
        "its endpoint exchanged",
        "RSS / peak, MB",
    ];
    table(text, &head, &measured.iter().map(row).collect::<Vec<_>>());
}

fn push_paths(text: &mut String, paths: &[Path]) {
    text.push_str("## New connections\n\nOne after the other between two pods of the node, through one of so many services, the contestants' programs ended; in turns.\n\n");
    let micros = |value: Option<f64>| number(value.map(|it| it * 1000.0));
    let row = |it: &Path| {
        vec![
            format!("{}, {}", it.contestant.name(), it.size),
            number(it.rate()),
            micros(it.connect.median()),
            micros(it.connect.p99()),
        ]
    };
    let head = ["", "connections/s", "connect, us", "99th percentile"];
    table(text, &head, &paths.iter().map(row).collect::<Vec<_>>());
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn targets(results: &Results) -> Vec<Target> {
    let Sizes { both, large, wide, .. } = results.sizes;
    // The worse of two runs counts.
    let of = |contestant: Contestant, size: Size, figure: fn(&Measured) -> Option<f64>| {
        let runs = results.measured.iter();
        let runs = runs.filter(|it| it.contestant == contestant && it.size == size);
        runs.filter_map(figure).reduce(f64::max)
    };
    let times = |size, figure: fn(&Measured) -> Option<f64>| {
        Some(of(Nftables, size, figure)? / of(Proxyd, size, figure)?)
    };
    let first_sync: fn(&Measured) -> Option<f64> = |it| Some(it.first_sync.as_secs_f64());
    let added: fn(&Measured) -> Option<f64> = |it| it.added.median();
    let changed: fn(&Measured) -> Option<f64> = |it| it.changed.median();
    let rss: fn(&Measured) -> Option<f64> = |it| Some(it.memory.now);
    let peak: fn(&Measured) -> Option<f64> = |it| Some(it.memory.peak);
    let share = |figure| times(both, figure).map(|it| 1.0 / it);
    let than = "kube-proxy by nftables";
    let mut all = Vec::new();
    let mut target = |work: String, bound, measured| all.push(Target { work, bound, measured });
    target(format!("{both}: first sync"), Bound::Faster(20.0, than), times(both, first_sync));
    for (what, figure) in [("a service added", added), ("an endpoint exchanged", changed)] {
        let median = of(Proxyd, both, figure);
        target(format!("{both}: {what}, median"), Bound::AtMost(10.0, "ms"), median);
        target("the same".to_owned(), Bound::Faster(10.0, than), times(both, figure));
    }
    target(
        format!("{both}: memory (RSS)"),
        Bound::AtMost(0.333, "of kube-proxy's by nftables"),
        share(rss),
    );
    target("the same: peak".to_owned(), Bound::AtMost(0.333, "of that"), share(peak));
    target(format!("{large}: first sync"), Bound::AtMost(15.0, "s"), of(Proxyd, large, first_sync));
    for (what, figure) in [("a service added", added), ("an endpoint exchanged", changed)] {
        let median = of(Proxyd, large, figure);
        target(format!("{large}: {what}, median"), Bound::AtMost(20.0, "ms"), median);
    }
    target(format!("{wide}: first sync"), Bound::AtMost(30.0, "s"), of(Proxyd, wide, first_sync));
    target(
        format!("{wide}: others wait"),
        Bound::AtMost(1.0, "s"),
        of(Proxyd, wide, |it| Some(it.others.as_secs_f64())),
    );
    all.extend(targets_of_paths(&results.paths, results.sizes));
    all.extend(results.beside.iter().map(|it| Target {
        work: format!(
            "{}: connections/s, both contestants' tables on one node, one awake",
            it.size
        ),
        bound: Bound::AtLeast(0.98, "of kube-proxy's by nftables"),
        measured: it.share(),
    }));
    all
}

fn targets_of_paths(paths: &[Path], sizes: Sizes) -> Vec<Target> {
    let Sizes { few, both, large, .. } = sizes;
    let of = |contestant: Contestant, size: Size, figure: fn(&Path) -> Option<f64>| {
        let mut runs = paths.iter().filter(|it| (it.contestant, it.size) == (contestant, size));
        figure(runs.next()?)
    };
    let rate: fn(&Path) -> Option<f64> = Path::rate;
    let connect: fn(&Path) -> Option<f64> = |it| it.connect.median();
    let mut all = Vec::new();
    for (what, figure) in [("connections/s", rate), ("a connection's first answer", connect)] {
        let figures = [few, both, large].map(|size| of(Proxyd, size, figure));
        let known: Vec<_> = figures.into_iter().flatten().collect();
        all.push(Target {
            work: format!("{what} through {few}, {both}, {large}: the slowest against the fastest"),
            bound: Bound::AtMost(10.0, "%"),
            measured: (known.len() == 3).then(|| spread(&known)).flatten(),
        });
    }
    all
}
