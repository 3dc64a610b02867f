//! Pods that were asked for by name, because a container of theirs is attached before the watch has
//! shown them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::model::{NamespacedName, Pod};
use crate::source::{Change, Event};

/// A pod that the watch does not show within this time was gone before it could.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Asked {
    asks: mpsc::Sender<NamespacedName>,
    /// Those of which only an answer tells, by uid.
    unseen: BTreeMap<String, (Pod, Instant)>,
}

impl Asked {
    pub(super) const fn new(asks: mpsc::Sender<NamespacedName>) -> Self {
        Self { asks, unseen: BTreeMap::new() }
    }

    /// Asks for a pod. When too many are asked for, or nobody can be asked, the watch has to do.
    pub(super) fn ask(&self, name: &NamespacedName) {
        _ = self.asks.try_send(name.clone());
    }

    /// Notes what is told of pods. `is_known` says whether the watch has shown a pod.
    pub(super) fn see(&mut self, event: &Event, is_known: impl Fn(&str) -> bool) {
        match event {
            Event::Answer(pod) if !is_known(&pod.uid) => {
                self.unseen.insert(pod.uid.clone(), (pod.clone(), Instant::now()));
            }
            Event::Pods(Change::Listed(_)) => self.unseen.clear(),
            Event::Pods(Change::Applied(pod) | Change::Removed(pod)) => {
                self.unseen.remove(&pod.uid);
            }
            _ => {}
        }
    }

    /// What is to be forgotten again.
    pub(super) fn expired(&mut self) -> Vec<Event> {
        let expired = self.unseen.extract_if(.., |_, (_, since)| since.elapsed() > PATIENCE);
        expired.map(|(_, (pod, _))| Event::Pods(Change::Removed(pod))).collect()
    }

    /// As if [`PATIENCE`] had passed.
    #[cfg(test)]
    pub(super) fn grow_old(&mut self) {
        for (_, since) in self.unseen.values_mut() {
            *since -= PATIENCE * 2;
        }
    }
}
