//! The report.

use std::fmt::Write;

use measuring::{Series, number, ratio, table};
use testbed::settings::Family;

use crate::Results;
use crate::contestant::Plugins;

const HEAD: &str = "# Cluster: pods wired by podwire and by the Go reference plugins\n\n\
Made by `make bench-cluster`: one run, a whole cluster of one node for each family, with kube-proxy, CoreDNS and policyd. Between the \
pods, or the crowds of them, `ptp`, `host-local` and `loopback` are exchanged on the same node, in turns. The list of plugins stays as policyd writes it, and with it \
podwire-policy at its end, which waits until a pod's rules are in place. Times are milliseconds: from the event that tells of a pod's creation to the one that tells that it is \
ready. \"ADD\" is what containerd's own metrics say that wiring took, all plugins together, podwire-policy's wait among them.\n\n";

/// The whole report.
pub(crate) fn render(facts: &[(&'static str, String)], pods: u32, results: &[Results]) -> String {
    let mut text = HEAD.to_owned();
    for (name, value) in facts {
        let _ = writeln!(text, "- {name}: {value}");
    }
    push_one_by_one(&mut text, results);
    push_at_once(&mut text, pods, results);
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn push_one_by_one(text: &mut String, results: &[Results]) {
    let pods = results.iter().flat_map(|it| &it.one_by_one).map(|it| it.1.ready.len()).max();
    let pods = pods.unwrap_or_default();
    let _ =
        writeln!(text, "\n## One pod after the other\n\nMedian / longest of {pods} pods each.\n");
    let rows: Vec<_> = results
        .iter()
        .flat_map(|it| {
            let go = it.one_by_one.iter().find(|it| it.0 == Plugins::Go).map(|it| &it.1);
            it.one_by_one.iter().map(move |(plugins, own)| {
                vec![
                    title(it.family, *plugins),
                    times(&own.ready),
                    times(&own.add),
                    share(&own.add, &own.ready),
                    ratio(go.and_then(|it| it.ready.median()), own.ready.median()),
                    ratio(go.and_then(|it| it.add.median()), own.add.median()),
                ]
            })
        })
        .collect();
    let head =
        ["", "creation to Ready", "ADD", "ADD's share", "Ready: Go / this", "ADD: Go / this"];
    table(text, &head, &rows);
}

fn push_at_once(text: &mut String, pods: u32, results: &[Results]) {
    let crowds = results.iter().flat_map(|it| &it.at_once).map(|it| it.1.add.len()).max();
    let crowds = crowds.unwrap_or_default();
    let _ = writeln!(
        text,
        "## {pods} pods at once\n\nMedians over {crowds} crowds each; ADD and DEL are the mean of a crowd's pods. Gone is when the last lease is free and the last pod's object has gone.\n"
    );
    let rows: Vec<_> = results
        .iter()
        .flat_map(|it| {
            let go = it.at_once.iter().find(|it| it.0 == Plugins::Go).map(|it| &it.1);
            it.at_once.iter().map(move |(plugins, own)| {
                vec![
                    title(it.family, *plugins),
                    times(&own.ready),
                    number(own.all_ready.median()),
                    number(own.add.median()),
                    ratio(go.and_then(|it| it.ready.median()), own.ready.median()),
                    number(own.all_gone.median()),
                    number(own.del.median()),
                ]
            })
        })
        .collect();
    let head = ["", "creation to Ready", "all Ready", "ADD", "Ready: Go / this", "all gone", "DEL"];
    table(text, &head, &rows);
}

fn title(family: Family, plugins: Plugins) -> String {
    let family = match family {
        Family::Ipv4 => "IPv4",
        Family::Ipv6 => "IPv6",
        Family::Dual => "dual-stack",
    };
    format!("{family}, {}", plugins.name())
}

fn times(series: &Series) -> String {
    format!("{} / {}", number(series.median()), number(series.longest()))
}

fn share(part: &Series, whole: &Series) -> String {
    let share = part.median().zip(whole.median()).map(|(part, whole)| part / whole * 100.0);
    format!("{} %", number(share))
}
