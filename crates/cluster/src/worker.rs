//! What blocks, in a thread of its own while the loop goes on: one thing at a time.

use std::future::pending;

use tokio::task::{JoinHandle, spawn_blocking};

/// Who does one thing after the other with the same state, which is in the other thread meanwhile.
#[derive(Debug)]
pub struct Worker<S, D> {
    idle: Option<S>,
    running: Option<JoinHandle<(S, D)>>,
}

impl<S: Send + 'static, D: Send + 'static> Worker<S, D> {
    /// With this state, and nothing to do yet.
    #[must_use]
    pub const fn new(state: S) -> Self {
        Self { idle: Some(state), running: None }
    }

    /// Whether something is being done.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The state, while nothing is being done.
    #[must_use]
    pub const fn idle(&self) -> Option<&S> {
        self.idle.as_ref()
    }

    /// Begins to do this, unless something is being done: then nothing comes of it.
    pub fn start(&mut self, job: impl FnOnce(&mut S) -> D + Send + 'static) {
        let Some(mut state) = self.idle.take() else { return };
        self.running = Some(spawn_blocking(move || {
            let done = job(&mut state);
            (state, done)
        }));
    }

    /// What came of it, at its end; for ever when nothing is being done. When the future is dropped, nothing is lost.
    ///
    /// # Panics
    /// Where what was done has: its state is lost, and only a fresh start is safe.
    pub async fn finished(&mut self) -> D {
        let Some(running) = &mut self.running else { return pending().await };
        match running.await {
            Ok((state, done)) => {
                self.running = None;
                self.idle = Some(state);
                done
            }
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Waits until nothing is being done.
    pub async fn wait(&mut self) {
        if self.is_running() {
            self.finished().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn one_thing_is_done_at_a_time_and_the_state_comes_back() {
        let mut worker = Worker::new(1);
        worker.wait().await;
        let (end, ended) = mpsc::channel::<()>();
        worker.start(move |state| {
            *state += 1;
            // It goes on until it is told to end.
            ended.recv().is_ok()
        });
        // What comes while it is at that is not done.
        worker.start(|_| unreachable!());
        assert!(worker.is_running());
        assert_eq!(worker.idle(), None);
        end.send(()).unwrap();
        assert!(worker.finished().await);
        assert!(!worker.is_running());
        assert_eq!(worker.idle(), Some(&2));
        worker.start(|state| *state == 2);
        worker.wait().await;
        assert!(!worker.is_running());
    }
}
