//! Cutting flows that lead where no service leads any more, in a thread of its own: changes do not wait for that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use cluster::Worker;

use crate::flows::{self, Places, Stale};
use crate::index::Index;
use crate::plan::At;

/// All flows are looked at so often: one may have begun by what was in the kernel just before its place changed.
const INTERVAL: Duration = Duration::from_mins(1);
/// Until it is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// The places whose flows are to be looked at. None is forgotten before that was done.
#[derive(Debug)]
pub(super) struct Cutting {
    work: Worker<Stale, Cut>,
    /// Those whose change is on its way to the kernel.
    coming: BTreeSet<At>,
    /// Those whose change is there.
    places: BTreeSet<At>,
    /// When those of all places are due; `None`: the kernel was not written yet.
    all_due: Option<Instant>,
    /// When it was written last.
    written: Option<Instant>,
    /// Those that are being looked at.
    under_way: BTreeSet<At>,
    /// Those that have more stale flows than are cut at once.
    left: BTreeSet<At>,
    next_try: Option<Instant>,
    failure: Option<String>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Cut {
    result: Result<flows::Cut, netlink::Error>,
    took: Duration,
}

impl Cutting {
    pub(super) fn new() -> Self {
        Self {
            work: Worker::new(Stale::default()),
            coming: BTreeSet::new(),
            places: BTreeSet::new(),
            all_due: None,
            written: None,
            under_way: BTreeSet::new(),
            left: BTreeSet::new(),
            next_try: None,
            failure: None,
        }
    }

    /// These places change, or have gone: their flows are looked at once that is in the kernel.
    pub(super) fn expect(&mut self, places: impl IntoIterator<Item = At>) {
        self.coming.extend(places);
    }

    /// All that changed is in the kernel; whether that was compared with all services.
    pub(super) fn is_written(&mut self, is_all: bool, now: Instant) {
        self.places.append(&mut self.coming);
        self.written = Some(now);
        if is_all {
            self.all_due = Some(now);
        }
    }

    /// Begins, if there is something to look at.
    pub(super) fn start(&mut self, index: &Index, now: Instant) {
        if self.work.is_running() || self.due().is_none_or(|it| now < it) {
            return;
        }
        let mut datagrams = BTreeMap::new();
        if self.all_due.is_some_and(|it| it <= now) {
            self.all_due = now.checked_add(INTERVAL);
            datagrams = index.datagrams();
        }
        self.under_way = std::mem::take(&mut self.places);
        datagrams.extend(index.serving(self.under_way.iter().copied()));
        let left = index.serving(self.left.iter().copied());
        self.work.start(move |stale| cut(stale, &datagrams, &left));
    }

    /// When there is something to begin with.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.work.is_running() {
            return None;
        }
        let is_idle = self.places.is_empty() && self.left.is_empty();
        let due = if is_idle { self.all_due } else { self.written };
        due.map(|it| self.next_try.map_or(it, |next| next.max(it)))
    }

    /// What came of it, at its end.
    pub(super) async fn finished(&mut self) -> Cut {
        self.work.finished().await
    }

    /// Takes that in: how many were cut, and how long that took; `None`: it is tried again.
    pub(super) fn finish(&mut self, cut: Cut, now: Instant) -> Option<(usize, Duration)> {
        let under_way = std::mem::take(&mut self.under_way);
        match cut.result {
            Ok(flows::Cut { count, left }) => {
                (self.failure, self.next_try) = (None, None);
                // Their turn comes again together with that of others.
                self.left = left;
                Some((count, cut.took))
            }
            Err(error) => {
                let error = cluster::chain(&error);
                tracing::warn!("flows cannot be cut: {error}; it is tried again");
                self.places.extend(under_way);
                self.places.append(&mut self.left);
                self.failure = Some(error);
                (self.all_due, self.next_try) = (Some(now), now.checked_add(PAUSE));
                None
            }
        }
    }

    /// Why it does not work.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Waits for the end of what is being done, which is bounded.
    pub(super) async fn wait(&mut self) {
        self.work.wait().await;
    }
}

fn cut(stale: &mut Stale, places: &Places, left: &Places) -> Cut {
    let begun = Instant::now();
    let result = stale.cut(places, left);
    Cut { result, took: begun.elapsed() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    #[tokio::test]
    async fn no_place_is_forgotten_before_its_flows_were_looked_at() {
        let (mut cutting, index, now) = (Cutting::new(), Index::default(), Instant::now());
        let at = |port| {
            let address = "10.96.0.1".parse().unwrap();
            At { address, protocol: Protocol::Udp, port }
        };
        cutting.expect([at(1)]);
        assert_eq!(cutting.due(), None);
        // What a failed write was about is in the kernel with the next one.
        cutting.expect([at(2)]);
        cutting.is_written(true, now);
        assert!(cutting.due().is_some_and(|it| it <= now));
        cutting.start(&index, now);
        assert_eq!(cutting.under_way, [at(1), at(2)].into());
        cutting.expect([at(3)]);
        cutting.is_written(false, now);
        assert_eq!(cutting.due(), None);
        cutting.wait().await;
        let result = Err(netlink::Error::Interrupted { what: "list".into() });
        assert_eq!(cutting.finish(Cut { result, took: Duration::ZERO }, now), None);
        assert!(cutting.failure().is_some());
        assert_eq!(cutting.due(), now.checked_add(PAUSE));
        let later = now + PAUSE;
        cutting.start(&index, later);
        assert_eq!(cutting.under_way, [at(1), at(2), at(3)].into());
        cutting.wait().await;
        let done = |left| {
            let result = Ok(flows::Cut { count: 2, left });
            Cut { result, took: Duration::ZERO }
        };
        // One has more flows than are cut at once, and others come.
        cutting.expect([at(9)]);
        cutting.is_written(false, later);
        let counted = Some((2, Duration::ZERO));
        assert_eq!(cutting.finish(done([at(2)].into()), later), counted);
        assert_eq!(cutting.due(), Some(later));
        cutting.start(&index, later);
        assert_eq!((&cutting.under_way, &cutting.left), (&[at(9)].into(), &[at(2)].into()));
        cutting.wait().await;
        assert_eq!(cutting.finish(done([at(2)].into()), later), counted);
        assert_eq!(cutting.due(), Some(later));
        // After a failure it is looked at anew.
        cutting.start(&index, later);
        cutting.wait().await;
        let result = Err(netlink::Error::Interrupted { what: "list".into() });
        assert_eq!(cutting.finish(Cut { result, took: Duration::ZERO }, later), None);
        assert_eq!((&cutting.places, &cutting.left), (&[at(2)].into(), &[].into()));
        let later = later + PAUSE;
        cutting.start(&index, later);
        cutting.wait().await;
        assert_eq!(cutting.finish(done([].into()), later), counted);
        assert_eq!((cutting.failure(), cutting.places.len()), (None, 0));
        assert_eq!(cutting.due(), later.checked_add(INTERVAL));
        // One alone is due at once, and not all.
        cutting.expect([at(4)]);
        cutting.is_written(false, later);
        assert_eq!(cutting.due(), Some(later));
        cutting.start(&index, later);
        assert_eq!(cutting.under_way, [at(4)].into());
        assert_eq!(cutting.all_due, later.checked_add(INTERVAL));
    }
}
