//! Noticing that somebody else changed what is ours.

use std::future::pending;
use std::time::{Duration, Instant};

use cluster::Listener;
use netlink::Event;
use netlink::nftables::{Changes, Generation};

use crate::nftables::TABLE;

/// Comparing all services with the kernel takes long where there are many: not more often than this, however often
/// others write.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// Not all that can happen is told.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// The kernel's word that our tables were changed.
#[derive(Debug)]
pub(super) struct Drift {
    changes: Option<Listener<Changes>>,
    is_suspected: bool,
    compared: Instant,
}

impl Drift {
    pub(super) fn new(now: Instant) -> Self {
        let changes = Listener::new("changes of nf_tables", Changes::open());
        let changes = changes
            .inspect_err(|error| {
                tracing::warn!(error = cluster::chain(error), "changes of nf_tables are not told by the kernel; they are looked for once an hour");
            })
            .ok();
        Self { changes, is_suspected: false, compared: now }
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
        (self.is_suspected, self.compared) = (false, now);
    }
}
