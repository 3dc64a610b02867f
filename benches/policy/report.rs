//! The report.

use std::fmt::Write;

use measuring::{Bound, Series, Target, number, spread, table};

use crate::Results;
use crate::changes::Changes;
use crate::contestant::Contestant;
use crate::crowd::Crowd;

const HEAD: &str = "# Policy: policyd beside kube-router\n\n\
Made by `make bench-policy`: one run, the same objects of a real kube-apiserver 1.37 and etcd, each \
contestant on a node of its own with 150 local pods. kube-router runs with its firewall alone. \
\"Event to kernel\" is the time from the API server's answer to a write until a UDP packet, sent every 0.3 ms, \
comes through; before, none may come. \"First sync\" is the time from the start of the program until nothing comes through any more that no policy \
allows, while what one allows does.\n\n";

const KUBE_ROUTER: &str = Contestant::KubeRouter.name();

/// The whole report.
pub(crate) fn render(results: &Results) -> String {
    let mut text = HEAD.to_owned();
    for (name, value) in &results.facts {
        let _ = writeln!(text, "- {name}: {value}");
    }
    text.push_str("\n## Targets\n\n");
    let rows: Vec<_> = targets(results).iter().map(Target::row).collect();
    table(&mut text, &Target::HEAD, &rows);
    text.push_str("## Changes and memory\n\nMilliseconds: median / 99th percentile (or longest) of so many. policyd runs before and after kube-router, by either way.\n\n");
    push_changes(&mut text, results);
    push_writes(&mut text, results);
    push_stream(&mut text, results);
    push_path(&mut text, results);
    push_crowds(&mut text, results);
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
            let name = format!("{}, {} pods and policies", it.contestant.name(), it.size);
            Some(vec![name, number(Some(whole)), number(Some(programs))])
        })
        .collect();
    text.push_str("## The programs' share\n\npolicyd's writes for a policy that was added, changed or removed, by its own metrics (mean, ms).\n\n");
    table(text, &["", "the whole write", "iptables-restore, ipset"], &rows);
}

fn push_stream(text: &mut String, results: &Results) {
    let Some(first) = results.streams.first() else { return };
    let _ = writeln!(
        text,
        "## A stream of changes\n\nFrom a recorded watch, {} s: changes of pods, one in fifty of them looked for in the kernel's set until \
         it is there. Event to kernel in milliseconds; the processor time of policyd and its programs as a part of one processor.\n",
        first.seconds,
    );
    let rows: Vec<_> = results
        .streams
        .iter()
        .map(|it| {
            vec![
                it.contestant.name().to_owned(),
                number(Some(it.rate)),
                number(it.event_to_kernel.median()),
                number(it.event_to_kernel.p99()),
                number(it.event_to_kernel.longest()),
                format!("{:.0} %", it.processor * 100.0),
                format!("{} / {}", number(Some(it.memory.now)), number(Some(it.memory.peak))),
            ]
        })
        .collect();
    let head =
        ["", "changes/s", "median", "99th percentile", "longest", "processor", "RSS / peak, MB"];
    table(text, &head, &rows);
    if let Some(rate) = results.server_rate {
        let _ = writeln!(
            text,
            "Beside: the real API server on this machine takes {rate:.0} writes a second, 32 at once"
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

fn push_crowds(text: &mut String, results: &Results) {
    text.push_str("## Among others\n\nBy nf_tables: TCP between two pods that have one policy, on nodes with so many other pods, and policies of those, in turns. \
        \"Of those without rules\": of the connections a second on the same node while all tables sleep, right before or after.\n\n");
    let rows: Vec<_> = results
        .crowds
        .iter()
        .map(|it| {
            let Crowd { pods, path, .. } = it;
            vec![
                format!("{} policies of {pods} others", path.policies),
                number(path.median_rate()),
                number(it.share()),
                number(path.connect.median().map(|it| it * 1000.0)),
                number(path.round_trip.median().map(|it| it * 1000.0)),
            ]
        })
        .collect();
    table(
        text,
        &["", "connections/s", "of those without rules", "connect, us", "round trip, us"],
        &rows,
    );
}

fn targets(results: &Results) -> Vec<Target> {
    // The worse of two runs counts.
    let of = |contestant: Contestant, figure: fn(&Changes) -> Option<f64>| {
        let runs = results.changes.iter().filter(|it| it.contestant == contestant);
        runs.filter_map(figure).reduce(f64::max)
    };
    let first_sync = |contestant| {
        let mut series = results.first_syncs.iter().filter(|it| it.0 == contestant);
        series.next()?.1.median()
    };
    let large = |contestant: Contestant, figure: fn(&Changes) -> Option<f64>| {
        results.large.iter().find(|it| it.contestant == contestant).and_then(figure)
    };
    let streamed = |contestant: Contestant, least: f64| {
        let mut streams = results.streams.iter();
        streams.find(|it| it.contestant == contestant && it.rate > least)?.event_to_kernel.p99()
    };
    let mut all = Vec::new();
    let mut target = |contestant: Contestant, work: &str, bound, measured| {
        let work = format!("{}: {work}", contestant.name());
        all.push(Target { work, bound, measured });
    };
    let bounds = [
        (Contestant::Iptables, 500.0, None, 10.0, ("median", 150.0), 500),
        (Contestant::Nftables, 2000.0, Some(5.0), 5.0, ("99th percentile", 20.0), 1000),
    ];
    for (it, times, median, large_sync, (what, change), rate) in bounds {
        let policy: fn(&Changes) -> Option<f64> = |it| it.policies.median();
        let faster = of(Contestant::KubeRouter, policy).zip(of(it, policy)).map(|(a, b)| a / b);
        target(
            it,
            "1,000 / 1,000: a policy added or changed, event to kernel",
            Bound::Faster(times, KUBE_ROUTER),
            faster,
        );
        if let Some(median) = median {
            target(it, "the same, median", Bound::AtMost(median, "ms"), of(it, policy));
        }
        target(
            it,
            "1,000 / 1,000: a remote pod added, median",
            Bound::AtMost(10.0, "ms"),
            of(it, |it| it.pods.median()),
        );
        target(
            it,
            "1,000 / 1,000: a new pod's address to its first packet at an isolated one, 99th percentile",
            Bound::AtMost(200.0, "ms"),
            of(it, |it| it.pods.p99()),
        );
        let syncs = first_sync(Contestant::KubeRouter).zip(first_sync(it)).map(|(a, b)| a / b);
        target(it, "1,000 / 1,000: first sync", Bound::Faster(20.0, KUBE_ROUTER), syncs);
        let memory: fn(&Changes) -> Option<f64> = |it| Some(it.memory.peak);
        target(it, "1,000 / 1,000: memory (peak)", Bound::AtMost(60.0, "MB"), of(it, memory));
        target(
            it,
            "10,000 / 10,000: first sync",
            Bound::AtMost(large_sync, "s"),
            large(it, |it| Some(it.first_sync.as_secs_f64())),
        );
        let changed: fn(&Changes) -> Option<f64> = match it {
            Contestant::Nftables => |it| it.policies.p99(),
            _ => |it| it.policies.median(),
        };
        target(
            it,
            &format!("10,000 / 10,000: a policy added or changed, {what}"),
            Bound::AtMost(change, "ms"),
            large(it, changed),
        );
        target(it, "10,000 / 10,000: memory (peak)", Bound::AtMost(200.0, "MB"), large(it, memory));
        target(
            it,
            &format!("{rate} changes of pods a second: event to kernel, 99th percentile"),
            Bound::AtMost(1000.0, "ms"),
            streamed(it, f64::from(rate) * 0.9),
        );
    }
    all.extend(targets_among(&results.crowds));
    all
}

fn targets_among(crowds: &[Crowd]) -> [Target; 2] {
    let share: fn(&Crowd) -> Option<f64> = Crowd::share;
    let round_trip: fn(&Crowd) -> Option<f64> = |it| it.path.round_trip.median();
    [("connections/s of those without rules", share), ("round trip", round_trip)].map(
        |(what, figure)| Target {
            work: format!(
                "{}: {what}, from 100 policies of 10 other pods to 10,000 of 250, the slowest against the fastest",
                Contestant::Nftables.name()
            ),
            bound: Bound::AtMost(5.0, "%"),
            measured: spread(&crowds.iter().filter_map(figure).collect::<Vec<_>>()),
        },
    )
}
