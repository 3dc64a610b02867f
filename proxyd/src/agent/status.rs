//! How it goes.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::dataplane::Written;
use crate::metrics::Metrics;

/// The loop stands still if it has not gone round for so long.
const STANDS_STILL: Duration = Duration::from_secs(30);

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
}

impl Status {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        let (readiness, alive) = (Mutex::new(Readiness::Syncing), Mutex::new(Instant::now()));
        Self { metrics, readiness, alive }
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

    pub(super) fn beat(&self) {
        *lock(&self.alive) = Instant::now();
    }

    pub(super) fn set(&self, readiness: Readiness) {
        *lock(&self.readiness) = readiness;
    }

    /// Something was written, so long after the first event of it came.
    pub(super) fn wrote(&self, written: &Written, delay: Option<Duration>, took: Duration) {
        self.metrics.wrote(written, delay, took);
    }
}

/// A lock of which no holder panics.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
