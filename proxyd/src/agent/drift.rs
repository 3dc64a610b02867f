//! Noticing that somebody else changed what is ours.

use std::future::pending;
use std::time::{Duration, Instant};

use cluster::Listener;
use netlink::Event;
use netlink::nftables::{Changes, Client, Generation};

use crate::nftables::TABLE;

/// However often others write, all services are not compared with the kernel more often than this, and not for more than a fifth of the time.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
const SHARE: u32 = 5;
/// Not all that can happen is told.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// The kernel's word that our tables were changed.
#[derive(Debug)]
pub(super) struct Drift {
    /// `None` until all was written for the first time: the kernel would tell of each element, and be slower by that.
    changes: Option<Listener<Changes>>,
    is_suspected: bool,
    /// When a comparison last began, and how long it took.
    compared: Instant,
    took: Duration,
}

impl Drift {
    pub(super) const fn new(now: Instant) -> Self {
        Self { changes: None, is_suspected: false, compared: now, took: Duration::ZERO }
    }

    /// A comparison, with what was written by it, has ended after so long.
    ///
    /// From the first on the kernel is listened to. Others have changed something before that unless its generation
    /// is still the one after our last change.
    pub(super) fn end(&mut self, took: Duration, after_ours: Option<u32>) {
        self.took = took;
        if self.changes.is_some() {
            return;
        }
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
        let pause = LEAST_PAUSE.max(self.took.saturating_mul(SHARE));
        self.compared + if self.is_suspected { pause.min(LONGEST_PAUSE) } else { LONGEST_PAUSE }
    }

    /// A comparison begins.
    pub(super) const fn begin(&mut self, now: Instant) {
        self.is_suspected = false;
        self.compared = now;
    }
}
