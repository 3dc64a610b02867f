//! When what failed is tried again.

use std::time::{Duration, Instant};

/// The pauses after failures: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// How often something has failed in a row, and until when it rests.
#[derive(Debug, Default)]
pub(super) struct Retry {
    failures: u32,
    next: Option<Instant>,
}

impl Retry {
    /// It has failed; how long it rests now.
    pub(super) fn fail(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let pause = PAUSES.0.saturating_mul(1 << self.failures.min(10)).min(PAUSES.1);
        self.next = Some(Instant::now() + pause);
        pause
    }

    /// It has succeeded.
    pub(super) const fn succeed(&mut self) {
        (self.failures, self.next) = (0, None);
    }

    /// Whether it rests.
    pub(super) fn rests(&self) -> bool {
        self.next.is_some_and(|time| Instant::now() < time)
    }

    /// When it is tried again, if it has failed.
    pub(super) const fn next(&self) -> Option<Instant> {
        self.next
    }
}
