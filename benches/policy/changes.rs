//! From a write to the API server to the kernel, and from a start to policy being in force.

use std::time::{Duration, Instant};

use lab::cluster::Cluster;
use measuring::{Memory, Series};
use serde_json::json;

use crate::contestant::{Contestant, Running};
use crate::probe::Probe;
use crate::site::{Site, peer_address};
use crate::world::{CLOSED, OPEN, open, peer};

/// What was denied before has been so for long enough to have ended.
const SILENCE: Duration = Duration::from_secs(3);
/// The policy that is changed again and again.
const CHANGED: &str = "changed";
/// The number of the pod of another node that is there from the start.
pub(crate) const FIRST_PEER: usize = 0;

/// One contestant's figures over the same objects.
#[derive(Debug)]
pub(crate) struct Changes {
    pub(crate) contestant: Contestant,
    pub(crate) size: usize,
    pub(crate) first_sync: Duration,
    pub(crate) policies: Series,
    pub(crate) pods: Series,
    pub(crate) memory: Memory,
    /// What policyd itself says of its writes that change rules: how long they took, and how long
    /// of that the programs did (ms).
    pub(crate) writes: Option<(f64, f64)>,
}

/// How often each change is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rounds {
    pub(crate) policies: usize,
    pub(crate) pods: usize,
}

/// Starts the contestant on the site, makes changes, and ends it; its rules stay.
pub(crate) fn run(
    contestant: Contestant,
    size: usize,
    site: &Site,
    cluster: &Cluster<'_>,
    rounds: Rounds,
) -> Changes {
    let (running, first_sync) = first_sync(contestant, site, cluster);
    let mut changes = Changes {
        contestant,
        size,
        first_sync,
        policies: Series::default(),
        pods: Series::default(),
        memory: Memory::default(),
        writes: None,
    };
    let before = contestant.is_policyd().then(|| writes(site));
    for round in 0..rounds.policies {
        changes.policies.push(policy(contestant, site, cluster, round));
    }
    cluster.delete(&open(CHANGED, OPEN));
    changes.writes = before.map(|before| {
        let after = writes(site);
        let mean = |which: usize| {
            let [before, after] = [before, after].map(|it| it[which]);
            (after.0 - before.0) / (after.1 - before.1) * 1000.0
        };
        (mean(0), mean(1))
    });
    for round in 0..rounds.pods {
        changes.pods.push(pod(contestant, site, cluster, round));
    }
    changes.memory = running.memory();
    running.end();
    changes
}

/// Starts the contestant on a site that holds nothing yet: how long until policy is in force.
pub(crate) fn first_sync(
    contestant: Contestant,
    site: &Site,
    cluster: &Cluster<'_>,
) -> (Running, Duration) {
    let user = if contestant.is_policyd() { "agent" } else { "admin" };
    let kubeconfig = cluster.kubeconfig_at(user, site.control.into());
    let (opened, closed) =
        [OPEN, CLOSED].map(|port| Probe::start(site, peer_address(FIRST_PEER), port)).into();
    let started = Instant::now();
    let running = contestant.start(site, &kubeconfig);
    let in_force = closed.closes("a port that no policy allows", SILENCE, contestant.patience());
    while opened.opens("an open port", contestant.patience()) < in_force {}
    (running, in_force.duration_since(started))
}

fn writes(site: &Site) -> [(f64, f64); 2] {
    ["apply_seconds", "program_seconds"].map(|name| Running::histogram(site, name))
}

/// A policy is added, or changed to open another port; it goes again, unmeasured.
fn policy(contestant: Contestant, site: &Site, cluster: &Cluster<'_>, round: usize) -> Duration {
    let is_new = round % 2 == 1;
    let port = 9000 + round as u16;
    let name = if is_new { format!("new-{round}") } else { CHANGED.to_owned() };
    let what = format!("{}: round {round}", contestant.name());
    let probe = Probe::start(site, peer_address(FIRST_PEER), port);
    probe.must_be_closed(&what);
    cluster.apply(&open(&name, port));
    let answered = Instant::now();
    let opened = probe.opens(&what, contestant.patience());
    if is_new {
        cluster.delete(&open(&name, port));
        probe.closes(&what, Duration::from_millis(100), contestant.patience());
    }
    opened.saturating_duration_since(answered)
}

/// A pod of another node, that a policy lets in, gets its address.
fn pod(contestant: Contestant, site: &Site, cluster: &Cluster<'_>, round: usize) -> Duration {
    let number = 10 + round;
    let object = peer(number);
    let what = format!("{}: pod {number}", contestant.name());
    cluster.apply(&object);
    let probe = Probe::start(site, peer_address(number), OPEN);
    probe.must_be_closed(&what);
    cluster.set_status(&object, &object["status"]);
    let answered = Instant::now();
    let opened = probe.opens(&what, contestant.patience());
    cluster.request(
        "DELETE",
        &format!("/api/v1/namespaces/outside/pods/peer-{number}"),
        &json!({"gracePeriodSeconds": 0}),
    );
    probe.closes(&what, Duration::from_millis(100), contestant.patience());
    opened.saturating_duration_since(answered)
}
