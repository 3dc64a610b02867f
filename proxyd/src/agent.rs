//! The agent of a node: events only mark what changed, and one loop writes. While it writes, what happens next is taken in; so a
//! burst is one write, and a single change waits for nothing.

mod addresses;
mod cutting;
mod drift;
mod health_checks;
mod status;
#[cfg(test)]
mod tests;
mod work;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::{self, MissedTickBehavior};

use crate::counters::{Increase, Reading};
use crate::dataplane::Dataplane;
use crate::index::{Event, Index};
use crate::nftables::Local;
pub use addresses::Addresses;
use addresses::NodeAddresses;
use cutting::{Cut, Cutting};
use drift::Drift;
use health_checks::HealthChecks;
pub use status::{Readiness, Status};
use work::{Done, Job, Kind, Work};

/// How often the loop shows that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// As many events are taken in before the loop looks at anything else.
const MOST_EVENTS_AT_ONCE: usize = 4096;
/// The pauses after failed writes: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// Chains that nothing leads to go some time after the last change.
const QUIET: Duration = Duration::from_secs(5);

/// What the agent is told.
#[derive(Debug)]
pub struct Inputs {
    /// How the objects change.
    pub events: mpsc::Receiver<Event>,
    /// How often somebody has connected to places: it is counted for the services that have them.
    pub readings: mpsc::Receiver<Reading>,
    /// Changes when it shall end.
    pub shutdown: watch::Receiver<bool>,
}

/// Keeps the kernel at what the inputs tell until `shutdown` changes. The kernel stays as it is then. Of the node's
/// addresses those have node ports that are `node_ports`.
pub async fn run(
    dataplane: Dataplane,
    node_ports: Vec<Addresses>,
    inputs: Inputs,
    status: Arc<Status>,
) {
    let Inputs { mut events, mut readings, mut shutdown } = inputs;
    let mut agent = Agent::new(dataplane, node_ports, status);
    let mut heartbeat = time::interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        agent.start_work(Instant::now());
        agent.cutting.start(&agent.index, Instant::now());
        let due = agent.next_due().into_iter().chain(agent.cutting.due()).min();
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => agent.take_in(event, &mut events),
                // A source ends only with us.
                None => break,
            },
            done = agent.work.finished() => agent.finish(done, Instant::now()),
            cut = agent.cutting.finished() => agent.finish_cutting(cut, Instant::now()),
            heard = agent.drift.changed() => agent.drift.hear(&heard, agent.own_port),
            () = agent.addresses.changed() => agent.renew_addresses(),
            Some((increases, taken)) = readings.recv() => {
                agent.count(&increases);
                // Who asked may not wait any more.
                _ = taken.send(());
            }
            () = until(due) => {}
            _ = heartbeat.tick() => {
                agent.status.beat();
                agent.health_checks.retry(Instant::now());
            }
            _ = shutdown.changed() => break,
        }
    }
    // Whatever is being written is written to its end.
    agent.work.wait().await;
    agent.cutting.wait().await;
}

/// Waits until then; without end where there is nothing to wait for.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

struct Agent {
    index: Index,
    work: Work,
    status: Arc<Status>,
    /// What has been listed.
    has_services: bool,
    has_slices: bool,
    has_node: bool,
    /// What the kernel has is not known, or not what it was left as, or all of it is to be otherwise.
    is_astray: bool,
    failures: u32,
    /// Not before this time.
    next_try: Option<Instant>,
    drift: Drift,
    cutting: Cutting,
    addresses: NodeAddresses,
    health_checks: HealthChecks,
    /// By what our own changes are known.
    own_port: Option<u32>,
    /// When chains that nothing leads to go; `None`: nothing was written since they went.
    next_tidying: Option<Instant>,
    /// When the first event came that is not in the kernel yet.
    waiting_since: Option<Instant>,
    /// What happened before this says nothing of how long it takes to the kernel.
    started: Timestamp,
    /// When that happened which is on its way to the kernel.
    triggers: Vec<Timestamp>,
}

impl Agent {
    fn new(dataplane: Dataplane, node_ports: Vec<Addresses>, status: Arc<Status>) -> Self {
        Self {
            index: Index::default(),
            work: Work::new(dataplane),
            health_checks: HealthChecks::new(Arc::clone(&status)),
            status,
            has_services: false,
            has_slices: false,
            has_node: false,
            is_astray: true,
            failures: 0,
            next_try: None,
            drift: Drift::new(Instant::now()),
            cutting: Cutting::new(),
            addresses: NodeAddresses::new(node_ports),
            own_port: None,
            next_tidying: None,
            waiting_since: None,
            started: Timestamp::now(),
            triggers: Vec::new(),
        }
    }

    /// Takes in an event, and those that have come with it.
    fn take_in(&mut self, first: Event, events: &mut mpsc::Receiver<Event>) {
        self.waiting_since.get_or_insert_with(Instant::now);
        self.take(first);
        for _ in 1..MOST_EVENTS_AT_ONCE {
            let Ok(event) = events.try_recv() else { break };
            self.take(event);
        }
        self.status.metrics.queued(self.index.arrivals());
    }

    fn take(&mut self, mut event: Event) {
        match &mut event {
            Event::Services(cluster::Change::Listed(_)) => self.has_services = true,
            Event::Slices(cluster::Change::Listed(_)) => self.has_slices = true,
            Event::Node(node) => {
                self.has_node = true;
                *node = self.addresses.of(std::mem::take(node));
                self.listen_at(&node.addresses);
                // Rules are others where pods are known by others.
                self.is_astray |= node.pod_ranges != self.index.node().pod_ranges;
            }
            Event::Together(events) => {
                return std::mem::take(events).into_iter().for_each(|it| self.take(it));
            }
            Event::Services(_) | Event::Slices(_) => {}
        }
        self.index.apply(event);
    }

    /// Health checks are answered at these addresses of the node.
    fn listen_at(&mut self, addresses: &BTreeSet<IpAddr>) {
        self.health_checks.listen_at(addresses, self.addresses.are_all(), Instant::now());
    }

    /// The node may have other addresses.
    fn renew_addresses(&mut self) {
        if let Some(node) = self.addresses.renewed() {
            self.waiting_since.get_or_insert_with(Instant::now);
            self.listen_at(&node.addresses);
            self.index.apply(Event::Node(node));
        }
    }

    /// Takes in how often somebody has connected to places.
    fn count(&self, increases: &[Increase]) {
        for (at, more) in increases {
            // Whose place it was may have gone.
            if let Some((service, frontend)) = self.index.claimants(at).next() {
                let port = (frontend.port, at.protocol);
                self.status.metrics.counters.add(service, port, *more);
            }
        }
    }

    /// Starts to write, when there is something to write and nothing is being written.
    fn start_work(&mut self, now: Instant) {
        if !self.can_work() || self.next_try.is_some_and(|it| now < it) {
            return;
        }
        let changes = self.index.take_changes();
        let arrivals = self.index.take_arrivals();
        let metrics = &self.status.metrics;
        metrics.took_in(&arrivals);
        metrics.counters.know(&changes.plans);
        let is_of_ours = |it: &Timestamp| *it >= self.started;
        self.triggers.extend(arrivals.triggers.into_iter().filter(is_of_ours));
        self.health_checks.plan(&changes.plans);
        self.cutting.expect(changes.datagrams);
        if self.is_astray || self.drift.due() <= now {
            self.is_astray = false;
            self.drift.begin(now);
            let started = self.waiting_since.take();
            let local = self.index.node().pod_ranges.clone().map(Local::Ranges);
            let job = Job::Adopt { plans: self.index.plans(), local };
            return self.work.start(job.since(started));
        }
        let started = self.waiting_since.take();
        if !changes.plans.is_empty() {
            return self.work.start(Job::Apply(changes.plans).since(started));
        }
        // What has come is nothing new to the kernel.
        self.triggers.clear();
        if self.next_tidying.is_some_and(|it| it <= now) {
            self.next_tidying = None;
            self.work.start(Job::Tidy.since(None));
        }
    }

    /// Whether all objects are known, and nothing is being written.
    const fn can_work(&self) -> bool {
        self.has_services && self.has_slices && self.has_node && !self.work.is_running()
    }

    /// When there is something to do though nothing happens; `None`: not before something does.
    fn next_due(&self) -> Option<Instant> {
        if !self.can_work() {
            return None;
        }
        let due = self.next_tidying.into_iter().fold(self.drift.due(), Instant::min);
        Some(match self.next_try {
            // After a failure the kernel is read, whatever else is due.
            Some(next_try) if self.is_astray => next_try,
            Some(next_try) => next_try.max(due),
            None => due,
        })
    }

    fn finish(&mut self, done: Done, now: Instant) {
        let Done { result, kind, generation, own_port, started, took, left } = done;
        self.own_port = own_port;
        self.cutting.expect(left);
        if kind == Kind::Adoption {
            self.drift.end(took, generation);
        }
        let metrics = &self.status.metrics;
        match result {
            Ok(written) => {
                self.failures = 0;
                self.next_try = None;
                metrics.wrote(&written, took, kind == Kind::Adoption);
                started.iter().for_each(|it| metrics.waited(now.duration_since(*it)));
                if matches!(kind, Kind::Adoption | Kind::Change) {
                    self.next_tidying = now.checked_add(QUIET);
                    self.triggers.drain(..).for_each(|it| metrics.programmed(it));
                    metrics.services.set(i64::try_from(self.index.services()).unwrap_or(i64::MAX));
                    metrics.know_without_local(self.index.without_local());
                }
                self.health_checks.publish(now);
                self.cutting.is_written(kind == Kind::Adoption, now);
                self.set_readiness();
            }
            Err(error) => {
                let error = cluster::chain(&error);
                tracing::warn!("{error}; it is tried again");
                self.is_astray = true;
                let pause = PAUSES.0.saturating_mul(1 << self.failures.min(10)).min(PAUSES.1);
                self.failures += 1;
                self.next_try = now.checked_add(pause);
                metrics.failures.inc();
                self.status.set(Readiness::Failing(error));
            }
        }
    }

    /// Flows were looked at.
    fn finish_cutting(&mut self, cut: Cut, now: Instant) {
        match self.cutting.finish(cut, now) {
            Some((count, took)) => self.status.metrics.reconciled(took, count),
            None => _ = self.status.metrics.failures.inc(),
        }
        if !self.is_astray {
            self.set_readiness();
        }
    }

    /// Services are in the kernel.
    fn set_readiness(&self) {
        let failure = self.cutting.failure().map(str::to_owned);
        self.status.set(failure.map_or(Readiness::Ready, Readiness::Failing));
    }
}
