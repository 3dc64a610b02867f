//! A bound on how often something is told.

use std::time::{Duration, Instant};

/// Lets `burst` through at once, and one more each `interval`. It counts what it holds back.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    burst: u32,
    interval: Duration,
    tokens: u32,
    /// The time up to which tokens have been given.
    filled: Instant,
    suppressed: u64,
}

impl TokenBucket {
    /// A full one.
    pub(crate) const fn new(burst: u32, interval: Duration, now: Instant) -> Self {
        Self { burst, interval, tokens: burst, filled: now, suppressed: 0 }
    }

    /// Takes a token: how many were refused since the last one that was given; `None` when there
    /// is none now.
    pub(crate) fn take(&mut self, now: Instant) -> Option<u64> {
        self.fill(now);
        let Some(left) = self.tokens.checked_sub(1) else {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        };
        self.tokens = left;
        Some(std::mem::take(&mut self.suppressed))
    }

    fn fill(&mut self, now: Instant) {
        while self.tokens < self.burst {
            let next = self.filled + self.interval;
            if next > now {
                return;
            }
            self.tokens += 1;
            self.filled = next;
        }
        // Time that passes while it is full buys nothing.
        self.filled = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_passes_and_then_one_each_interval() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(3, SECOND, start);
        let taken: Vec<_> = (0..5).map(|_| bucket.take(start)).collect();
        assert_eq!(taken, [Some(0), Some(0), Some(0), None, None]);
        assert_eq!(bucket.take(start + SECOND / 2), None);
        assert_eq!(bucket.take(start + SECOND), Some(3));
        assert_eq!(bucket.take(start + SECOND * 3 / 2), None);
        assert_eq!(bucket.take(start + SECOND * 2), Some(1));
    }

    #[test]
    fn what_is_not_used_is_not_saved_up() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(2, SECOND, start);
        let later = start + SECOND * 1000;
        let taken: Vec<_> = (0..3).map(|_| bucket.take(later)).collect();
        assert_eq!(taken, [Some(0), Some(0), None]);
    }
}
