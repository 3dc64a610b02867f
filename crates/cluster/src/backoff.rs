//! Waiting longer after each failure.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// After the first failure.
const SHORTEST: Duration = Duration::from_millis(200);

/// However many there were.
const LONGEST: Duration = Duration::from_secs(30);

/// Without a failure for this long, the next one counts as the first.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// When to try again.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    failed: Option<Instant>,
    next: Option<Instant>,
}

impl Backoff {
    /// Waits until the next attempt may be made.
    pub(crate) async fn wait(&mut self) {
        if let Some(next) = self.next {
            sleep_until(next).await;
            self.next = None;
        }
    }

    pub(crate) fn failed(&mut self) {
        let now = Instant::now();
        // Success does not reset it: a list that succeeds and a watch that fails, in turns, would
        // ask for all objects five times a second.
        if self.failed.is_none_or(|last| now.duration_since(last) > FORGOTTEN) {
            self.failures = 0;
        }
        self.failed = Some(now);
        self.next = Some(now + jittered(pause(self.failures)));
        self.failures = self.failures.saturating_add(1);
    }
}

fn pause(failures: u32) -> Duration {
    SHORTEST.saturating_mul(2u32.saturating_pow(failures)).min(LONGEST)
}

/// Half of it to all of it: the nodes of a cluster do not come back all at once.
fn jittered(pause: Duration) -> Duration {
    // The hasher's keys are random; this saves a crate for random numbers.
    let random = RandomState::new().build_hasher().finish() % 1000;
    pause.mul_f64(0.5 + random as f64 / 2000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        let pauses: Vec<_> = (0..10).map(|failures| pause(failures).as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
        assert_eq!(pause(u32::MAX), LONGEST);
    }

    #[test]
    fn a_pause_is_shortened_by_half_at_most() {
        for _ in 0..1000 {
            let pause = jittered(Duration::from_secs(2));
            assert!((1.0..=2.0).contains(&pause.as_secs_f64()), "{pause:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_long_time_without_failure_is_forgotten() {
        let mut backoff = Backoff::default();
        backoff.wait().await;
        for _ in 0..10 {
            backoff.failed();
            backoff.wait().await;
        }
        assert_eq!(backoff.failures, 10);
        tokio::time::advance(FORGOTTEN + LONGEST).await;
        backoff.failed();
        assert_eq!(backoff.failures, 1);
    }
}
