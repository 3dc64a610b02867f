//! Noticing that somebody else changed what is ours.

use std::collections::BTreeSet;
use std::future::pending;
use std::mem::take;
use std::time::{Duration, Instant};

use attachment::CLOSED_TABLE;
use netlink::Event;
use netlink::nftables::{Changes, Generation};

use cluster::Listener;

use crate::{frames, ingress};

/// Comparing costs tens of milliseconds: not more often than this, however often others write.
const LEAST_PAUSE: Duration = Duration::from_millis(500);
/// Nor for more than one part in so many of the time.
const SHARE: u32 = 5;
/// Not all that can happen to sets and to the tables that iptables had before nf_tables is seen at a glance.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// Nobody tells of changes to them, and a glance takes a millisecond.
const GLANCE_PAUSE: Duration = Duration::from_secs(2);

/// The tables that a survey sees to.
const SURVEYED: [&str; 3] = [frames::TABLE, CLOSED_TABLE, ingress::TABLE];

/// The kernel's word that rules were changed.
#[derive(Debug)]
pub(super) struct Drift {
    changes: Option<Listener<Changes>>,
    /// The netlink ports that unexplained changes came from: those of programs are their process
    /// ids.
    heard: BTreeSet<u32>,
    /// The same of changes to the tables that a survey sees to.
    heard_of_surveyed: BTreeSet<u32>,
    missed: bool,
    /// The same, for a survey.
    missed_of_surveyed: bool,
    compared: Instant,
    /// How long the last comparison took.
    took: Duration,
    glanced: Instant,
    /// Those that rules of ours are in.
    tables: BTreeSet<&'static str>,
}

impl Drift {
    pub(super) fn new(tables: Vec<&'static str>) -> Self {
        let changes = Listener::new("changes of the rules", Changes::open());
        let changes = changes
            .inspect_err(|error| {
                tracing::warn!(error = crate::chain(error), "changes of the rules are not told by the kernel; they are looked for once a minute");
            })
            .ok();
        let now = Instant::now();
        Self {
            changes,
            heard: BTreeSet::new(),
            heard_of_surveyed: BTreeSet::new(),
            missed: false,
            missed_of_surveyed: false,
            compared: now,
            took: Duration::ZERO,
            glanced: now,
            tables: tables.into_iter().collect(),
        }
    }

    /// Waits until somebody, perhaps ourselves, changed rules.
    pub(super) async fn changed(&mut self) -> Vec<Event<Generation>> {
        let Some(changes) = &mut self.changes else { return pending().await };
        changes.next(Changes::receive).await
    }

    pub(super) fn hear(&mut self, events: Vec<Event<Generation>>) {
        for event in events {
            match event {
                Event::Heard(generation) => {
                    let tables = &generation.tables;
                    if tables.is_empty() || self.tables.iter().any(|table| tables.contains(*table))
                    {
                        self.heard.insert(generation.port);
                    }
                    let is_surveyed = |it: &str| tables.contains(it);
                    if tables.is_empty() || SURVEYED.into_iter().any(is_surveyed) {
                        self.heard_of_surveyed.insert(generation.port);
                    }
                }
                Event::Missed => (self.missed, self.missed_of_surveyed) = (true, true),
            }
        }
    }

    /// These changes were ours.
    pub(super) fn forgive(&mut self, process_ids: &BTreeSet<u32>) {
        self.heard.retain(|port| !process_ids.contains(port));
        self.heard_of_surveyed.retain(|port| !process_ids.contains(port));
    }

    /// Whether tables that a survey sees to were changed, or may have been, by others since this was
    /// last asked.
    pub(super) fn take_of_surveyed(&mut self) -> bool {
        take(&mut self.missed_of_surveyed) | !take(&mut self.heard_of_surveyed).is_empty()
    }

    /// When it is time to compare.
    pub(super) fn due(&self) -> Instant {
        let is_suspected = self.missed || !self.heard.is_empty();
        let pause = LEAST_PAUSE.max(self.took.saturating_mul(SHARE)).min(LONGEST_PAUSE);
        self.compared + if is_suspected { pause } else { LONGEST_PAUSE }
    }

    /// When it is time to glance at what nobody tells of.
    pub(super) fn glance_due(&self) -> Instant {
        self.glanced + GLANCE_PAUSE
    }

    /// A glance begins.
    pub(super) fn begin_glance(&mut self) {
        self.glanced = Instant::now();
    }

    /// A look has shown that tables may have been changed, or has failed.
    pub(super) fn suspect(&mut self) {
        self.missed = true;
    }

    /// A comparison begins.
    pub(super) fn begin(&mut self) {
        (self.missed, self.compared) = (false, Instant::now());
        self.heard.clear();
    }

    /// It has ended, after so long.
    pub(super) const fn end(&mut self, took: Duration) {
        self.took = took;
    }
}
