//! The report, as Markdown that also reads well on a terminal.

use std::fmt::Write;

use measuring::{Series, number, ratio, table};

use crate::connections::Connections;
use crate::contestant::Contestant::{Go, Podwire};
use crate::crowd::Crowd;
use crate::rate::Way;
use crate::results::{Results, Verb};
use crate::targets::{self, Bound, Target};

/// The whole report.
pub(crate) fn render(results: &Results) -> String {
    let mut text = String::from("# CNI: podwire beside the Go reference plugins and the floor\n\n");
    text.push_str(
        "Made by `make bench-cni`. All times are milliseconds, side by side in one run and in turns; \
         what counts are the ratios, not the figures. The floor is a bare static program that does \
         nothing but the same netlink requests, sysctl writes and lease-file calls.\n\n",
    );
    for (name, value) in &results.facts {
        let _ = writeln!(text, "- {name}: {value}");
    }
    text.push_str("\n## Targets\n\n");
    push_targets(&mut text, &targets::all(results));
    text.push_str("## One call at a time\n\nFrom the start of the process to its end, its output read; median / 99th percentile. Of a chain, the calls of its plugins are added, made one after the other as a runtime makes them. \
         What is chained and named alone is so without the bridge, which prepares the pod. Where it says nf_tables, so does the reference's configuration, but for firewall, which it has by iptables alone.\n\n");
    push_calls(&mut text, results);
    text.push_str("## Connections through a published port\n\nAs many as a client beside the node can make one after the other, to a server in a pod, by portmap with nf_tables: connections a second, medians.\n\n");
    push_connections(&mut text, results);
    text.push_str("## What comes through bandwidth\n\niperf3 between the node and a limited pod, as shares of the rate that was asked for: median (least to most). What iperf3 counts is without headers.\n\n");
    push_rates(&mut text, results);
    text.push_str("## Many pods at once (bridge + host-local, IPv4, ipMasq)\n\nMedians; CPU time is user and system time of all processes, those included that plugins start.\n\n");
    push_crowds(&mut text, results);
    text.push_str("## Peak memory of an ADD\n\nKiB, `VmHWM` of the plugin's own process (Go's delegates not included).\n\n");
    push_memory(&mut text, results);
    text.push_str("## Size of the programs\n\n");
    push_sizes(&mut text, results);
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn push_targets(text: &mut String, targets: &[Target]) {
    let row = |target: &Target| {
        let Target { work, against, bound, measured } = target;
        let (wanted, unit) = match bound {
            Bound::Faster(bound) => (format!(">= {bound}x faster {against}"), "x"),
            Bound::Times(bound) => (format!("<= {bound}x {against}"), "x"),
            Bound::AtLeast(bound) => (format!(">= {bound}x {against}"), "x"),
            Bound::Within(bound) => (format!("within {:.0} % of {against}", bound * 100.0), "x"),
            Bound::KiB(bound) => (format!("<= {bound} KiB"), " KiB"),
            Bound::MB(bound) => (format!("<= {bound} MB"), " MB"),
        };
        let measured = measured
            .map_or("not measured".into(), |value| format!("{}{unit}", number(Some(value))));
        let reached = match target.is_reached() {
            Some(true) => "reached",
            Some(false) => "**not reached**",
            None => "–",
        };
        vec![(*work).to_owned(), wanted, measured, reached.to_owned()]
    };
    let rows: Vec<_> = targets.iter().map(row).collect();
    table(text, &["work", "to reach", "measured", ""], &rows);
}

fn push_calls(text: &mut String, results: &Results) {
    let mut rows = Vec::new();
    for measured in &results.calls {
        for (verb, name) in [(Verb::Add, "ADD"), (Verb::Del, "DEL")] {
            let [go, podwire, floor] = measured.of(verb);
            let both = |series: &Series| match series.len() {
                0 => "–".into(),
                _ => format!("{} / {}", number(series.median()), number(series.p99())),
            };
            rows.push(vec![
                format!("{}: {name}", measured.work.title),
                both(go),
                both(podwire),
                both(floor),
                ratio(go.median(), podwire.median()),
                ratio(podwire.median(), floor.median()),
                format!("{} / {}", go.len(), podwire.len()),
            ]);
        }
    }
    let head = [
        "work",
        "Go",
        "podwire",
        "floor",
        "Go / podwire",
        "podwire / floor",
        "calls (Go / podwire)",
    ];
    table(text, &head, &rows);
}

/// Which of a crowd's series.
type PartOfCrowd = fn(&Crowd) -> &Series;

fn push_crowds(text: &mut String, results: &Results) {
    let kinds: [(&str, PartOfCrowd); 4] = [
        ("all ADDs, wall time", |crowd| &crowd.add_wall),
        ("all DELs, wall time", |crowd| &crowd.del_wall),
        ("ADDs and DELs, wall time", |crowd| &crowd.wall),
        ("ADDs and DELs, CPU time", |crowd| &crowd.cpu),
    ];
    let mut rows = Vec::new();
    for (pods, [go, podwire]) in [&results.small_crowd, &results.large_crowd].into_iter().flatten()
    {
        for (name, series) in kinds {
            let (go, podwire) = (series(go), series(podwire));
            rows.push(vec![
                format!("{pods} pods: {name}"),
                number(go.median()),
                number(podwire.median()),
                ratio(go.median(), podwire.median()),
                go.len().to_string(),
            ]);
        }
    }
    table(text, &["work", "Go", "podwire", "Go / podwire", "times"], &rows);
}

fn push_connections(text: &mut String, results: &Results) {
    let row = |of: &Connections| {
        let [go, podwire] = [Go, Podwire].map(|it| results.connections(of.work, it));
        let times = of.per_second.len().to_string();
        vec![of.work.title.to_owned(), number(go), number(podwire), ratio(podwire, go), times]
    };
    let of_podwire = results.connections.iter().filter(|it| it.contestant == Podwire);
    let rows: Vec<_> = of_podwire.map(row).collect();
    table(text, &["work", "Go", "podwire", "podwire / Go", "times"], &rows);
}

fn push_rates(text: &mut String, results: &Results) {
    let row = |(way, name): (Way, &str)| {
        let cell = |contestant| {
            let rate = results.rate(way, contestant)?;
            let (least, most) = rate.range()?;
            Some(format!("{:.3} ({least:.3} to {most:.3})", rate.median()?))
        };
        let mut row = vec![name.to_owned(), (way.asked() / 1_000_000).to_string()];
        row.extend([Go, Podwire].map(|it| cell(it).unwrap_or_else(|| "–".into())));
        row
    };
    let rows = [(Way::ToPod, "to the pod"), (Way::FromPod, "from the pod")].map(row);
    table(text, &["way", "asked, Mbit/s", "Go", "podwire"], &rows);
}

fn push_memory(text: &mut String, results: &Results) {
    let row = |memory: &crate::memory::Memory| {
        let cell = |peak: &Option<u64>| peak.map_or("–".into(), |peak| peak.to_string());
        let mut row = vec![memory.title.to_owned()];
        row.extend(memory.peaks.iter().map(cell));
        row
    };
    let rows: Vec<_> = results.memory.iter().map(row).collect();
    table(text, &["work", "Go", "podwire", "floor"], &rows);
}

fn push_sizes(text: &mut String, results: &Results) {
    let mib = |bytes: u64| format!("{:.2} MB", bytes as f64 / 1e6);
    let rows: Vec<_> =
        results.sizes.iter().map(|(name, bytes)| vec![(*name).to_owned(), mib(*bytes)]).collect();
    table(text, &["programs", "size"], &rows);
}
