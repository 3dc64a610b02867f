//! How it goes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cluster::health::Answer;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use crate::metrics::Metrics;

/// The loop stands still if it has not gone round for so long.
const STANDS_STILL: Duration = Duration::from_secs(30);
/// What the kernel has is of no use after writes have failed for so long: twice kube-proxy's `syncPeriod`.
const STALE: Duration = Duration::from_secs(60);

/// Whether services are as they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Not all objects are known yet.
    Syncing,
    /// They are.
    Ready,
    /// The last write failed.
    Failing(String),
}

/// What others may ask.
#[derive(Debug)]
pub struct Status {
    /// What is counted.
    pub metrics: Metrics,
    readiness: Mutex<Readiness>,
    alive: Mutex<Instant>,
    /// Since when writes fail.
    failing: Mutex<Option<Instant>>,
    /// When the last write ended that did not fail.
    updated: Mutex<Timestamp>,
    is_eligible: AtomicBool,
}

impl Status {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        let (readiness, alive) = (Mutex::new(Readiness::Syncing), Mutex::new(Instant::now()));
        let (failing, updated) = (Mutex::new(None), Mutex::new(Timestamp::now()));
        Self { metrics, readiness, alive, failing, updated, is_eligible: AtomicBool::new(true) }
    }

    /// Whether services are as they should be.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        lock(&self.readiness).clone()
    }

    /// Whether the loop goes round.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        lock(&self.alive).elapsed() < STANDS_STILL
    }

    /// Whether what the kernel has can be relied upon.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.is_alive() && lock(&self.failing).is_none_or(|it| it.elapsed() < STALE)
    }

    /// Whether load balancers are to send new connections by this node (KEP-3836).
    pub fn set_eligible(&self, is_eligible: bool) {
        self.is_eligible.store(is_eligible, Ordering::Relaxed);
    }

    /// What kube-proxy answers at `/healthz`.
    #[must_use]
    pub fn health(&self) -> Answer {
        let (is_healthy, is_eligible) =
            (self.is_healthy(), self.is_eligible.load(Ordering::Relaxed));
        let now = Timestamp::now();
        let updated = if is_healthy { now } else { *lock(&self.updated) };
        let document = json!({
            "lastUpdated": updated.to_string(),
            "currentTime": now.to_string(),
            "nodeEligible": is_eligible,
        });
        Answer::json(is_healthy && is_eligible, &document)
    }

    /// The loop goes round.
    pub fn beat(&self) {
        *lock(&self.alive) = Instant::now();
    }

    /// Services are so by now.
    pub fn set(&self, readiness: Readiness) {
        match &readiness {
            Readiness::Failing(_) => _ = lock(&self.failing).get_or_insert_with(Instant::now),
            Readiness::Ready => {
                *lock(&self.failing) = None;
                *lock(&self.updated) = Timestamp::now();
            }
            Readiness::Syncing => {}
        }
        *lock(&self.readiness) = readiness;
    }
}

/// A lock of which no holder panics.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_unhealthy_once_writes_have_failed_for_long_or_the_loop_stands_still() {
        let status = Status::new(Metrics::new());
        assert!(status.is_healthy());
        status.set(Readiness::Failing("why".to_owned()));
        assert!(status.is_healthy());
        *lock(&status.failing) = Instant::now().checked_sub(STALE);
        // The next failure is of the same trouble.
        status.set(Readiness::Failing("why".to_owned()));
        assert!(!status.is_healthy() && status.is_alive());
        status.set(Readiness::Ready);
        assert!(status.is_healthy());
        *lock(&status.alive) = Instant::now().checked_sub(STANDS_STILL).unwrap();
        assert!(!status.is_healthy() && !status.is_alive());
    }
}
