//! Noticing that somebody else changed what is ours.

use std::future::pending;
use std::time::{Duration, Instant};

use cluster::Listener;
use netlink::Event;
use netlink::nftables::{Changes, Client, Generation};

use crate::nftables::TABLE;

/// Comparing all services with the kernel takes long where there are many: not more often than this, however often
/// others write.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// Not all that can happen is told.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// The kernel's word that our tables were changed.
#[derive(Debug)]
pub(super) struct Drift {
    /// `None` while the kernel is compared and written: it would tell of each element, and be slower by that.
    changes: Option<Listener<Changes>>,
    is_suspected: bool,
    compared: Instant,
}

impl Drift {
    pub(super) const fn new(now: Instant) -> Self {
        Self { changes: None, is_suspected: false, compared: now }
    }

    /// Listens from now on, the kernel having been compared and written. Others have changed something meanwhile unless its
    /// generation is still the one after our last change.
    pub(super) fn listen(&mut self, after_ours: Option<u32>) {
        let changes = Listener::new("changes of nf_tables", Changes::open());
        let changes = changes.inspect_err(|error| {
            tracing::warn!(
                error = cluster::chain(error),
                "changes of nf_tables are not told by the kernel; they are looked for once an hour"
            );
        });
        self.changes = changes.ok();
        let now =
            Client::open().and_then(|client| client.map_or(Ok(None), |mut it| it.generation()));
        self.is_suspected |= now.map_or(true, |now| now != after_ours);
    }

    /// Waits until somebody, perhaps ourselves, changed something.
    pub(super) async fn changed(&mut self) -> Vec<Event<Generation>> {
        let Some(changes) = &mut self.changes else { return pending().await };
        changes.next(Changes::receive).await
    }

    /// Takes in what was told; changes from the port `own` are our own.
    pub(super) fn hear(&mut self, events: &[Event<Generation>], own: Option<u32>) {
        self.is_suspected |= events.iter().any(|event| match event {
            Event::Heard(it) => {
                let is_of_ours = it.tables.is_empty() || it.tables.contains(TABLE);
                is_of_ours && Some(it.port) != own
            }
            // A large change of ours has as many words as one of others.
            Event::Missed => true,
        });
    }

    /// When it is time to compare.
    pub(super) fn due(&self) -> Instant {
        self.compared + if self.is_suspected { LEAST_PAUSE } else { LONGEST_PAUSE }
    }

    /// A comparison begins.
    pub(super) fn begin(&mut self, now: Instant) {
        *self = Self::new(now);
    }
}
