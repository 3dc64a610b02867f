//! What is measured: pods that come one after the other, and many at once.

use std::time::{Duration, Instant};

use e2e::{Bed, await_that, objects};
use measuring::Series;

use crate::contestant::{Plugins, Work};
use crate::watch::Watch;

const NAMESPACE: &str = "bench";

/// Many pods may take this long to go.
const GONE: Duration = Duration::from_secs(600);

/// Pods that came one after the other.
#[derive(Debug, Default)]
pub(crate) struct OneByOne {
    /// From its creation until a pod was ready.
    pub(crate) ready: Series,
    /// Of that, what the plugins took.
    pub(crate) add: Series,
}

/// Pods that came at once.
#[derive(Debug, Default)]
pub(crate) struct AtOnce {
    /// From its creation until a pod was ready.
    pub(crate) ready: Series,
    /// Until all were.
    pub(crate) all_ready: Series,
    /// Of each crowd, what the plugins took for a pod on the average.
    pub(crate) add: Series,
    /// From the end of a crowd until the last lease was free.
    pub(crate) all_gone: Series,
    /// Of each crowd, what the plugins took for a pod that goes, on the average.
    pub(crate) del: Series,
}

/// A pod of one and of the other, as often as `pods` says, and all that so many times; who is first changes. As they
/// stay until the end of their time, there are no more of them than a node takes.
pub(crate) fn one_by_one(bed: &Bed, pods: u32, times: u32) -> [(Plugins, OneByOne); 2] {
    let mut results = Plugins::BOTH.map(|it| (it, OneByOne::default()));
    for time in 0..times {
        bed.namespace(NAMESPACE);
        let watch = Watch::of(bed, NAMESPACE);
        for round in 0..pods {
            for turn in 0..2 {
                let which = usize::from((time + round + turn) % 2 == 1);
                let Some((plugins, result)) = results.get_mut(which) else { continue };
                plugins.take_over(bed);
                let before = Work::Add.spent(bed);
                let name = format!("pod-{}", round * 2 + turn);
                bed.apply(&objects::idle(NAMESPACE, &name));
                let seen = watch.await_ready((round * 2 + turn + 1) as usize);
                let took = seen.get(&name).and_then(|it| it.took()).expect("it is ready");
                result.ready.push(took);
                result.add.push(Work::Add.spent(bed).mean_since(before));
            }
        }
        drop(watch);
        Plugins::Podwire.take_over(bed);
        bed.remove_namespace(NAMESPACE);
        await_that("the pods have gone", GONE, || bed.leases(1) == bed.wired(1));
    }
    results
}

/// A crowd of one and of the other, as often as `crowds` says; who is first changes.
pub(crate) fn at_once(bed: &Bed, pods: u32, crowds: u32) -> [(Plugins, AtOnce); 2] {
    let mut results = Plugins::BOTH.map(|it| (it, AtOnce::default()));
    for round in 0..crowds {
        for turn in 0..2 {
            let which = usize::from((round + turn) % 2 == 1);
            let Some((plugins, result)) = results.get_mut(which) else { continue };
            plugins.take_over(bed);
            crowd(bed, pods, result);
        }
    }
    Plugins::Podwire.take_over(bed);
    results
}

fn crowd(bed: &Bed, pods: u32, result: &mut AtOnce) {
    bed.namespace(NAMESPACE);
    let watch = Watch::of(bed, NAMESPACE);
    let (adds, dels) = (Work::Add.spent(bed), Work::Del.spent(bed));
    bed.apply(&objects::crowd(NAMESPACE, pods));
    let seen = watch.await_ready(pods as usize);
    drop(watch);
    seen.values().filter_map(|it| it.took()).for_each(|it| result.ready.push(it));
    let first = seen.values().map(|it| it.created).min();
    let last = seen.values().filter_map(|it| it.ready).max();
    let all = first.zip(last).map(|(first, last)| last - first);
    result.all_ready.push(all.expect("there were pods"));
    result.add.push(Work::Add.spent(bed).mean_since(adds));
    let started = Instant::now();
    bed.kubectl(&[
        "delete",
        "deployment",
        "-n",
        NAMESPACE,
        "crowd",
        "--cascade=foreground",
        "--wait=false",
    ]);
    await_that("the crowd has gone", GONE, || {
        bed.leases(1) == bed.wired(1) && bed.pods(NAMESPACE).is_empty()
    });
    result.all_gone.push(started.elapsed());
    result.del.push(Work::Del.spent(bed).mean_since(dels));
}
