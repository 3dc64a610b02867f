//! What the agent shows of itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::work::Outcome;
use crate::metrics::Metrics;

/// After this long without a heartbeat the loop is held to be dead.
const LONGEST_SILENCE: Duration = Duration::from_secs(30);

/// Whether the node's policy is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Not all objects are known yet.
    Syncing,
    /// What was known is in the kernel.
    Ready,
    /// Addresses of new pods cannot be kept closed.
    NoGate(String),
    /// The kernel refused what it should enforce.
    Failing(String),
}

/// Read by the health endpoints, written by the loop.
#[derive(Debug)]
pub struct Status {
    started: Instant,
    /// Milliseconds from the start to the last heartbeat.
    last_beat: AtomicU64,
    readiness: Mutex<Readiness>,
    /// Why some packets of pods are not shown to the rules, or come by them: what a survey could not see to.
    unseen: Mutex<Option<String>>,
    /// Why the node's network is not in place.
    network: Mutex<Option<String>>,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
}

impl Status {
    /// That of an agent that knows nothing yet.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self {
            started: Instant::now(),
            last_beat: AtomicU64::new(0),
            readiness: Mutex::new(Readiness::Syncing),
            unseen: Mutex::new(None),
            network: Mutex::new(None),
            metrics: Arc::new(metrics),
        }
    }

    /// Whether the loop goes round; not whether it could do anything.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let last = Duration::from_millis(self.last_beat.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(last) < LONGEST_SILENCE
    }

    /// Whether the node's policy is in force.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let unseen = || self.unseen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match self.lock().clone() {
            Readiness::Ready => unseen().map_or(Readiness::Ready, Readiness::Failing),
            held => held,
        }
    }

    /// Tells why rules do not see some packets; `None`: they see all.
    pub(super) fn set_unseen(&self, problem: Option<String>) {
        *self.unseen.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    /// Why the node's network is not in place, where policyd keeps it.
    #[must_use]
    pub fn network_problem(&self) -> Option<String> {
        self.network.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells why the node's network is not in place; `None`: it is.
    pub fn set_network(&self, problem: Option<String>) {
        *self.network.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    fn lock(&self) -> MutexGuard<'_, Readiness> {
        // A value is replaced as a whole: it is good whoever panicked.
        self.readiness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows that the loop is alive.
    pub fn beat(&self) {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_beat.store(elapsed, Ordering::Relaxed);
    }

    /// Tells why policy is not in force.
    pub fn set_unready(&self, readiness: Readiness) {
        let mut held = self.lock();
        if *held != readiness {
            tracing::error!(?readiness, "not ready");
            *held = readiness;
        }
    }

    pub(super) fn committed(
        &self,
        outcome: &Outcome,
        in_programs: Duration,
        took: Duration,
        waited: Option<Duration>,
    ) {
        if !outcome.is_commit {
            return;
        }
        *self.lock() = Readiness::Ready;
        self.metrics.flows_cut.inc_by(u64::try_from(outcome.cut).unwrap_or(u64::MAX));
        self.metrics.committed(&outcome.counts, in_programs, took, waited);
    }

    pub(super) fn failed(&self, why: String) {
        self.metrics.apply_failures.inc();
        *self.lock() = Readiness::Failing(why);
    }
}
