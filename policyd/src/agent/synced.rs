//! What the loop waits for before it writes for the first time.

use crate::source::{Change, Event};

/// Of which kinds all objects are known.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Synced {
    pub(super) pods: bool,
    pub(super) namespaces: bool,
    pub(super) policies: bool,
    pub(super) node: bool,
}

impl Synced {
    pub(super) const fn is_whole(self) -> bool {
        self.pods && self.namespaces && self.policies && self.node
    }

    pub(super) const fn note(&mut self, event: &Event) {
        match event {
            Event::Pods(Change::Listed(_)) => self.pods = true,
            Event::Namespaces(Change::Listed(_)) => self.namespaces = true,
            Event::Policies(Change::Listed(_)) => self.policies = true,
            Event::Node(_) => self.node = true,
            _ => {}
        }
    }
}
