//! What is to be reached, and whether it was.

use crate::contestant::Contestant::{Floor, Go, Podwire};
use crate::crowd::Crowd;
use crate::machine::PODWIRE;
use crate::rate::Way;
use crate::results::Results;
use crate::results::Verb::{Add, Del};
use crate::work::{
    BRIDGE, BRIDGE_MASQUERADE, BRIDGE_NFTABLES, CHAIN_IPTABLES, CHAIN_NFTABLES, FEW_LEASES,
    FIREWALL_IPTABLES, FIREWALL_NFTABLES, MANY_LEASES, PORTMAP_CROWDED, PORTMAP_IPTABLES,
    PORTMAP_NFTABLES, PORTMAP_QUIET, PTP_DUAL, Work,
};
use measuring::Series;

/// A bound on what was measured.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    /// So many times faster than Go, or more.
    Faster(f64),
    /// So many times of what it is compared with, or less.
    Times(f64),
    /// So many times of what it is compared with, or more.
    AtLeast(f64),
    /// As much as what it is compared with, but for such a share of it.
    Within(f64),
    /// So many KiB, or less.
    KiB(f64),
    /// So many millions of bytes, or less.
    MB(f64),
}

/// One target.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) work: &'static str,
    /// What it is compared with.
    pub(crate) against: &'static str,
    pub(crate) bound: Bound,
    pub(crate) measured: Option<f64>,
}

impl Target {
    /// Whether it was reached; `None` when it was not measured.
    pub(crate) fn is_reached(&self) -> Option<bool> {
        let measured = self.measured?;
        Some(match self.bound {
            Bound::Faster(bound) | Bound::AtLeast(bound) => measured >= bound,
            Bound::Within(bound) => (measured - 1.0).abs() <= bound,
            Bound::Times(bound) | Bound::KiB(bound) | Bound::MB(bound) => measured <= bound,
        })
    }
}

/// The targets.
pub(crate) fn all(results: &Results) -> Vec<Target> {
    let mut targets = of_calls(results);
    targets.extend(of_chained(results));
    targets.extend(of_crowds(results));
    let peak = results.memory.iter().filter_map(|memory| memory.peaks[Podwire as usize]).max();
    targets.push(Target {
        work: "peak RSS of an ADD (the largest of all)",
        against: "",
        bound: Bound::KiB(2.5 * 1024.0),
        measured: peak.map(|kib| kib as f64),
    });
    let size = results.sizes.iter().find(|(name, _)| *name == PODWIRE);
    targets.push(Target {
        work: PODWIRE,
        against: "",
        bound: Bound::MB(3.5),
        measured: size.map(|(_, bytes)| *bytes as f64 / 1e6),
    });
    targets
}

fn of_calls(results: &Results) -> Vec<Target> {
    let ratio = |over: Option<f64>, under: Option<f64>| Some(over? / under?);
    let go =
        |work, verb| ratio(results.median(work, verb, Go), results.median(work, verb, Podwire));
    let floor =
        |work, verb| ratio(results.median(work, verb, Podwire), results.median(work, verb, Floor));
    let leases = |verb| {
        let median = |work| results.median(work, verb, Podwire);
        ratio(median(MANY_LEASES), median(FEW_LEASES))
    };
    let faster = |work, bound, measured| Target {
        work,
        against: "than Go",
        bound: Bound::Faster(bound),
        measured,
    };
    let times = |work, against, bound, measured| Target {
        work,
        against,
        bound: Bound::Times(bound),
        measured,
    };
    vec![
        faster("bridge + host-local v4, ADD", 12.0, go(BRIDGE, Add)),
        times("bridge + host-local v4, ADD", "the floor", 2.0, floor(BRIDGE, Add)),
        times("bridge + host-local v4, DEL", "the floor", 1.15, floor(BRIDGE, Del)),
        faster("bridge + host-local v4 + ipMasq by iptables, ADD", 5.0, go(BRIDGE_MASQUERADE, Add)),
        faster("bridge + host-local v4 + ipMasq by nf_tables, ADD", 15.0, go(BRIDGE_NFTABLES, Add)),
        times(
            "bridge + host-local v4 + ipMasq by nf_tables, ADD",
            "its time without ipMasq",
            1.5,
            ratio(
                results.median(BRIDGE_NFTABLES, Add, Podwire),
                results.median(BRIDGE, Add, Podwire),
            ),
        ),
        faster("ptp dual-stack, ADD", 300.0, go(PTP_DUAL, Add)),
        times("ptp dual-stack, ADD", "the floor", 2.0, floor(PTP_DUAL, Add)),
        times("host-local with 10,000 leases, ADD", "its time with 10", 1.5, leases(Add)),
        times("host-local with 10,000 leases, DEL", "its time with 10", 1.5, leases(Del)),
    ]
}

fn of_chained(results: &Results) -> Vec<Target> {
    let ratio = |over: Option<f64>, under: Option<f64>| Some(over? / under?);
    let target = |work, against, bound, measured| Target { work, against, bound, measured };
    let go =
        |work, verb| ratio(results.median(work, verb, Go), results.median(work, verb, Podwire));
    let of_faster_go = {
        let of_go = |work| results.median(work, Add, Go);
        let fastest = of_go(CHAIN_IPTABLES).zip(of_go(CHAIN_NFTABLES)).map(|(a, b)| a.min(b));
        ratio(fastest, results.median(CHAIN_NFTABLES, Add, Podwire))
    };
    let published = |of: fn(&Results, Work) -> Option<f64>| {
        ratio(of(results, PORTMAP_CROWDED), of(results, PORTMAP_QUIET))
    };
    let add = published(|results, work| results.median(work, Add, Podwire));
    let connections = published(|results, work| results.connections(work, Podwire));
    let rate = |way| results.rate(way, Podwire).and_then(crate::rate::Rate::median);
    let (than_go, with_one) = ("than Go", "with one");
    let by_iptables = |verb| go(PORTMAP_IPTABLES, verb);
    let by_nftables = |verb| go(PORTMAP_NFTABLES, verb);
    let firewall_by_iptables = |verb| go(FIREWALL_IPTABLES, verb);
    let firewall_by_nftables = |verb| go(FIREWALL_NFTABLES, verb);
    let asked = "what was asked for";
    vec![
        target("portmap by iptables, ADD", than_go, Bound::Faster(8.0), by_iptables(Add)),
        target("portmap by iptables, DEL", than_go, Bound::Faster(8.0), by_iptables(Del)),
        target("portmap by nf_tables, ADD", than_go, Bound::Faster(25.0), by_nftables(Add)),
        target("portmap by nf_tables, DEL", than_go, Bound::Faster(25.0), by_nftables(Del)),
        target("portmap with 2,000 ports published, ADD", with_one, Bound::Times(1.2), add),
        target("connections through one of them", with_one, Bound::AtLeast(0.8), connections),
        target("firewall by iptables, ADD", than_go, Bound::Faster(8.0), firewall_by_iptables(Add)),
        target("firewall by iptables, DEL", than_go, Bound::Faster(4.0), firewall_by_iptables(Del)),
        target(
            "firewall by nf_tables, ADD",
            "than Go by iptables",
            Bound::Faster(20.0),
            firewall_by_nftables(Add),
        ),
        target(
            "firewall by nf_tables, DEL",
            "than Go by iptables",
            Bound::Faster(20.0),
            firewall_by_nftables(Del),
        ),
        target(
            "the usual chain by iptables, ADD",
            "than Go's by iptables (its default)",
            Bound::Faster(10.0),
            go(CHAIN_IPTABLES, Add),
        ),
        target(
            "the usual chain by nf_tables, ADD",
            "than Go's faster one",
            Bound::Faster(10.0),
            of_faster_go,
        ),
        target("bandwidth, to the pod", asked, Bound::Within(0.1), rate(Way::ToPod)),
        target("bandwidth, from the pod", asked, Bound::Within(0.1), rate(Way::FromPod)),
    ]
}

fn of_crowds(results: &Results) -> Vec<Target> {
    let ratio = |crowds: &Option<(usize, [Crowd; 2])>, series: fn(&Crowd) -> &Series| {
        let (_, [go, podwire]) = crowds.as_ref()?;
        Some(series(go).median()? / series(podwire).median()?)
    };
    let faster = |work, bound, measured| Target {
        work,
        against: "than Go",
        bound: Bound::Faster(bound),
        measured,
    };
    let (small, large) = (&results.small_crowd, &results.large_crowd);
    vec![
        faster(
            "110 pods at once, ADDs then DELs: wall time",
            5.0,
            ratio(large, |crowd| &crowd.wall),
        ),
        faster("110 pods at once, ADDs then DELs: CPU time", 5.0, ratio(large, |crowd| &crowd.cpu)),
        faster("30 parallel bridge + ipMasq ADDs", 6.0, ratio(small, |crowd| &crowd.add_wall)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faster_is_more_and_times_is_less() {
        let target = |bound, measured| Target { work: "", against: "", bound, measured };
        assert_eq!(target(Bound::Faster(5.0), Some(5.1)).is_reached(), Some(true));
        assert_eq!(target(Bound::Times(2.0), Some(2.1)).is_reached(), Some(false));
        assert_eq!(target(Bound::KiB(2560.0), None).is_reached(), None);
        assert_eq!(target(Bound::AtLeast(0.8), Some(0.81)).is_reached(), Some(true));
        assert_eq!(target(Bound::Within(0.1), Some(0.95)).is_reached(), Some(true));
        assert_eq!(target(Bound::Within(0.1), Some(1.11)).is_reached(), Some(false));
    }
}
