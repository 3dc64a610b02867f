//! Answers that take long to make: a client that goes away ends nothing of what it has asked for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Answer;

/// The longest that the next one waits after one that took long.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// Makes one answer at a time, for all who ask meanwhile, whether they wait for it or not; and then rests for as long as that
/// took: who asks all the time is to take no more than half of a processor.
#[derive(Debug, Clone, Default)]
pub struct OneAtATime(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Where the answer comes that is being made.
    coming: Option<watch::Receiver<Option<Answer>>>,
    /// The next one is not begun before.
    not_before: Option<Instant>,
}

impl OneAtATime {
    /// None is being made.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The answer that is being made; where none is, the one that `make` makes.
    pub async fn answer(&self, make: impl Future<Output = Answer> + Send + 'static) -> Answer {
        let mut coming = self.coming(make);
        match coming.wait_for(Option::is_some).await.map(|it| it.clone()) {
            Ok(Some(answer)) => answer,
            // A panic, which is a bug, and told.
            _ => Answer::unavailable("it could not be made\n"),
        }
    }

    fn coming(
        &self,
        make: impl Future<Output = Answer> + Send + 'static,
    ) -> watch::Receiver<Option<Answer>> {
        let mut state = self.lock();
        // Who panicked has left nobody who sends.
        if let Some(coming) = state.coming.as_ref().filter(|it| it.has_changed().is_ok()) {
            return coming.clone();
        }
        let (sender, coming) = watch::channel(None);
        state.coming = Some(coming.clone());
        let (not_before, own) = (state.not_before, self.clone());
        tokio::spawn(async move {
            if let Some(not_before) = not_before {
                sleep_until(not_before).await;
            }
            let begun = Instant::now();
            let answer = make.await;
            let mut state = own.lock();
            // It is kept no longer than for those who wait.
            state.coming = None;
            state.not_before = Instant::now().checked_add(begun.elapsed().min(LONGEST_REST));
            drop(state);
            sender.send_replace(Some(answer));
        });
        coming
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No holder panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::{sleep, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_is_made_for_all_who_ask_meanwhile_though_they_do_not_wait() {
        let (answers, begun) = (OneAtATime::new(), Arc::new(AtomicUsize::new(0)));
        let ask = || {
            let begun = Arc::clone(&begun);
            answers.answer(async move {
                let number = begun.fetch_add(1, Ordering::Relaxed) + 1;
                sleep(Duration::from_millis(500)).await;
                Answer::ok(number.to_string())
            })
        };
        for _ in 0..100 {
            assert!(timeout(Duration::from_millis(1), ask()).await.is_err());
        }
        assert_eq!(begun.load(Ordering::Relaxed), 1);
        let (one, other) = tokio::join!(ask(), ask());
        assert_eq!((one, other), (Answer::ok("1"), Answer::ok("1")));
        // Then it rests, and those who ask meanwhile get the next one.
        let started = Instant::now();
        let (one, other) = tokio::join!(ask(), async {
            sleep(Duration::from_millis(400)).await;
            ask().await
        });
        assert_eq!((one, other), (Answer::ok("2"), Answer::ok("2")));
        assert_eq!(started.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test]
    async fn after_a_panic_the_next_one_is_made() {
        let answers = OneAtATime::new();
        let failed = answers.answer(async { panic!("on purpose") }).await;
        assert_eq!(failed.code(), 503);
        assert_eq!(answers.answer(async { Answer::ok("ok\n") }).await, Answer::ok("ok\n"));
    }
}
