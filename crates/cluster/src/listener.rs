//! Hearing of what the kernel tells unasked, in the loop's runtime.

use std::future::pending;
use std::io;
use std::os::fd::AsRawFd;

use netlink::{Error, Event};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::chain;

/// A subscription that is waited on.
#[derive(Debug)]
pub struct Listener<T: AsRawFd> {
    subscription: AsyncFd<T>,
    /// What it hears of, for the log.
    what: &'static str,
}

impl<T: AsRawFd> Listener<T> {
    /// Of what was subscribed to, which must keep its descriptor for as long as it lives.
    ///
    /// # Errors
    /// It could not be opened, or not be waited on.
    pub fn new(what: &'static str, opened: Result<T, Error>) -> io::Result<Self> {
        #[expect(
            deprecated,
            reason = "the new way is unsafe: subscriptions keep their descriptor open for as long as they live"
        )]
        let register = |it| AsyncFd::with_interest(it, Interest::READABLE);
        let subscription = opened.map_err(io::Error::other).and_then(register)?;
        Ok(Self { subscription, what })
    }

    /// Waits until something is told. `receive` reads it, and gives `None` when there is nothing.
    pub async fn next<E>(
        &mut self,
        receive: impl Fn(&mut T) -> Result<Option<Vec<Event<E>>>, Error>,
    ) -> Vec<Event<E>> {
        loop {
            let Ok(mut ready) = self.subscription.readable_mut().await else {
                return pending().await;
            };
            match receive(ready.get_inner_mut()) {
                Ok(Some(events)) => return events,
                Ok(None) => ready.clear_ready(),
                Err(error) => {
                    tracing::warn!(error = chain(&error), "{} cannot be heard of", self.what);
                    ready.clear_ready();
                    return vec![Event::Missed];
                }
            }
        }
    }
}
