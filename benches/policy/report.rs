//! The report.

use std::fmt::Write;

use measuring::{Series, number, table};

use crate::Results;
use crate::changes::Changes;
use crate::contestant::Contestant;

const HEAD: &str = "# Policy: policyd beside kube-router\n\n\
Made by `make bench-policy`: one run, the same objects of a real kube-apiserver 1.37 and etcd, each \
contestant on a node of its own with 150 local pods. kube-router runs with its firewall alone. \
\"Event to kernel\" is the time from the API server's answer to a write until a UDP packet, sent every 0.3 ms, \
comes through; before, none may come. \"First sync\" is the time from the start of the program until nothing comes through any more that no policy \
allows, while what one allows does.\n\n";

/// The whole report.
pub(crate) fn render(results: &Results) -> String {
    let mut text = HEAD.to_owned();
    for (name, value) in &results.facts {
        let _ = writeln!(text, "- {name}: {value}");
    }
    text.push_str("\n## Targets\n\n");
    let rows: Vec<_> = targets(results).iter().map(Target::row).collect();
    table(&mut text, &["work", "to reach", "measured", ""], &rows);
    text.push_str("## Changes and memory\n\nMilliseconds: median / 99th percentile (or longest) of so many. policyd runs before and after kube-router.\n\n");
    push_changes(&mut text, results);
    push_writes(&mut text, results);
    push_stream(&mut text, results);
    push_path(&mut text, results);
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn push_changes(text: &mut String, results: &Results) {
    let times = |series: &Series| {
        let (median, p99) = (number(series.median()), number(series.p99()));
        format!("{median} / {p99} of {}", series.len())
    };
    let rows: Vec<_> = results
        .changes
        .iter()
        .chain(&results.large)
        .map(|it| {
            vec![
                format!("{}, {} pods and policies", it.contestant.name(), it.size),
                times(&it.policies),
                times(&it.pods),
                number(Some(it.first_sync.as_secs_f64() * 1000.0)),
                format!("{} / {}", number(Some(it.memory.now)), number(Some(it.memory.peak))),
            ]
        })
        .collect();
    let head =
        ["", "a policy added or changed", "a remote pod added", "first sync", "RSS / peak, MB"];
    table(text, &head, &rows);
    text.push_str("## First sync\n\nMilliseconds, over 1,000 pods and policies: the starts above, and others in turns, each on a new node.\n\n");
    let rows: Vec<_> = results
        .first_syncs
        .iter()
        .map(|(contestant, it)| {
            let name = contestant.name().to_owned();
            vec![name, number(it.median()), number(it.longest()), it.len().to_string()]
        })
        .collect();
    table(text, &["", "median", "longest", "starts"], &rows);
}

fn push_writes(text: &mut String, results: &Results) {
    let writes = results.changes.iter().chain(&results.large);
    let rows: Vec<_> = writes
        .filter_map(|it| {
            let (whole, programs) = it.writes?;
            let name = format!("{} pods and policies", it.size);
            Some(vec![name, number(Some(whole)), number(Some(programs))])
        })
        .collect();
    text.push_str("## The programs' share\n\npolicyd's writes for a policy that was added, changed or removed, by its own metrics (mean, ms).\n\n");
    table(text, &["", "the whole write", "iptables-restore and ipset"], &rows);
}

fn push_stream(text: &mut String, results: &Results) {
    let Some(it) = &results.stream else { return };
    let _ = writeln!(
        text,
        "## A stream of changes\n\nFrom a recorded watch, {} s: {} changes of pods a second, one in fifty of them looked for \
         in the kernel's set until it is there ({} of them).\n\n\
         - event to kernel: median {} ms, 99th percentile {} ms, longest {} ms\n\
         - processor time of policyd and its programs: {:.0} % of one processor\n\
         - memory: {:.0} MB, at most {:.0} MB",
        it.seconds,
        number(Some(it.rate)),
        it.event_to_kernel.len(),
        number(it.event_to_kernel.median()),
        number(it.event_to_kernel.p99()),
        number(it.event_to_kernel.longest()),
        it.processor * 100.0,
        it.memory.now,
        it.memory.peak,
    );
    if let Some(rate) = results.server_rate {
        let _ = writeln!(
            text,
            "- beside: the real API server on this machine takes {rate:.0} writes a second, 32 at once"
        );
    }
    text.push('\n');
}

fn push_path(text: &mut String, results: &Results) {
    text.push_str("## The packet path\n\nTCP between two pods of one node, both isolated by so many policies of which the last lets it through (with 0: by none).\n\n");
    let rows: Vec<_> = results
        .path
        .iter()
        .map(|it| {
            vec![
                format!(
                    "{}, {} policies",
                    it.contestant.map_or("no agent", Contestant::name),
                    it.policies
                ),
                number(it.median_rate()),
                number(it.connect.median().map(|it| it * 1000.0)),
                number(it.connect.p99().map(|it| it * 1000.0)),
                number(it.round_trip.median().map(|it| it * 1000.0)),
            ]
        })
        .collect();
    let head = ["", "connections/s", "connect, us", "99th percentile", "round trip, us"];
    table(text, &head, &rows);
}

enum Bound {
    /// So many times faster than kube-router, or more.
    Faster(f64),
    AtMost(f64, &'static str),
}

struct Target {
    work: &'static str,
    bound: Bound,
    measured: Option<f64>,
}

impl Target {
    fn row(&self) -> Vec<String> {
        let measured = self.measured.map_or("not measured".to_owned(), |it| number(Some(it)));
        let (wanted, measured, is_reached) = match self.bound {
            Bound::Faster(bound) => (
                format!(">= {bound}x faster than kube-router"),
                format!("{measured}x"),
                self.measured.map(|it| it >= bound),
            ),
            Bound::AtMost(bound, unit) => (
                format!("<= {bound} {unit}"),
                format!("{measured} {unit}"),
                self.measured.map(|it| it <= bound),
            ),
        };
        let verdict = match is_reached {
            Some(true) => "reached",
            Some(false) => "**not reached**",
            None => "–",
        };
        vec![self.work.to_owned(), wanted, measured, verdict.to_owned()]
    }
}

fn targets(results: &Results) -> Vec<Target> {
    let of = |contestant: Contestant| {
        // The worse of two runs counts.
        let runs: Vec<_> =
            results.changes.iter().filter(|it| it.contestant == contestant).collect();
        move |figure: fn(&Changes) -> Option<f64>| {
            runs.iter().filter_map(|it| figure(it)).reduce(f64::max)
        }
    };
    let (policyd, other) = (of(Contestant::Policyd), of(Contestant::KubeRouter));
    let first_sync = |contestant| {
        let mut series = results.first_syncs.iter().filter(|it| it.0 == contestant);
        series.next()?.1.median()
    };
    let large = |figure: fn(&Changes) -> Option<f64>| results.large.first().and_then(figure);
    let faster = |figure| Some(other(figure)? / policyd(figure)?);
    let stream = results.stream.as_ref();
    let target = |work, bound, measured| Target { work, bound, measured };
    vec![
        target(
            "1,000 / 1,000: a policy added or changed, event to kernel",
            Bound::Faster(500.0),
            faster(|it| it.policies.median()),
        ),
        target(
            "1,000 / 1,000: a remote pod added, median",
            Bound::AtMost(10.0, "ms"),
            policyd(|it| it.pods.median()),
        ),
        target(
            "1,000 / 1,000: a new pod's address to its first packet at an isolated one, 99th percentile",
            Bound::AtMost(200.0, "ms"),
            policyd(|it| it.pods.p99()),
        ),
        target(
            "1,000 / 1,000: first sync",
            Bound::Faster(20.0),
            first_sync(Contestant::KubeRouter)
                .zip(first_sync(Contestant::Policyd))
                .map(|(other, policyd)| other / policyd),
        ),
        target(
            "1,000 / 1,000: memory (peak)",
            Bound::AtMost(60.0, "MB"),
            policyd(|it| Some(it.memory.peak)),
        ),
        target(
            "10,000 / 10,000: first sync",
            Bound::AtMost(10.0, "s"),
            large(|it| Some(it.first_sync.as_secs_f64())),
        ),
        target(
            "10,000 / 10,000: a policy added or changed, median",
            Bound::AtMost(150.0, "ms"),
            large(|it| it.policies.median()),
        ),
        target(
            "10,000 / 10,000: memory (peak)",
            Bound::AtMost(200.0, "MB"),
            large(|it| Some(it.memory.peak)),
        ),
        target(
            "500 changes of pods a second: event to kernel, 99th percentile",
            Bound::AtMost(1000.0, "ms"),
            stream.and_then(|it| it.event_to_kernel.p99()),
        ),
    ]
}
