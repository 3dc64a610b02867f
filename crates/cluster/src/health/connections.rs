//! How many are connected at once, and who has to go where more come: anybody who reaches a port may connect to it, and whoever says
//! nothing is to keep nobody from asking.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// How many connections there are at once, by all servers that share this. One more takes the place of the oldest that is not
/// being answered; where all are, it waits.
#[derive(Debug, Clone)]
pub struct Connections(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    held: Mutex<Held>,
    /// A connection has ended, or was answered.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Held {
    /// By their numbers, which grow.
    all: BTreeMap<u64, Connection>,
    next: u64,
}

#[derive(Debug, Default)]
struct Connection {
    is_busy: bool,
    /// Ends it; not there before it has begun.
    task: Option<AbortHandle>,
}

/// A connection's place, until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    shared: Arc<Shared>,
    number: u64,
}

/// That a connection is being answered, until this is dropped.
#[derive(Debug)]
pub(super) struct Busy {
    shared: Arc<Shared>,
    number: u64,
}

impl Connections {
    /// So many.
    #[must_use]
    pub fn at_most(most: usize) -> Self {
        let (held, changed) = (Mutex::default(), Notify::new());
        Self(Arc::new(Shared { most, held, changed }))
    }

    /// The place of a connection.
    pub(super) async fn place(&self) -> Place {
        loop {
            // What changes from here on is heard of.
            let changed = self.0.changed.notified();
            if let Some(number) = self.0.lock().admit(self.0.most) {
                return Place { shared: Arc::clone(&self.0), number };
            }
            changed.await;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Held> {
        // No holder panics.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// The number of one connection more, if there is a place.
    fn admit(&mut self, most: usize) -> Option<u64> {
        if self.all.len() >= most {
            let is_idle = |it: &Connection| !it.is_busy && it.task.is_some();
            let (oldest, _) = self.all.iter().find(|(_, it)| is_idle(it))?;
            let oldest = self.all.remove(&oldest.clone())?;
            oldest.task.iter().for_each(AbortHandle::abort);
        }
        let number = self.next;
        self.next += 1;
        self.all.insert(number, Connection::default());
        Some(number)
    }

    fn set_busy(&mut self, number: u64, is_busy: bool) {
        // It may have been pushed out.
        if let Some(connection) = self.all.get_mut(&number) {
            connection.is_busy = is_busy;
        }
    }
}

impl Place {
    /// What ends the connection.
    pub(super) fn is_of(&self, task: AbortHandle) {
        if let Some(connection) = self.shared.lock().all.get_mut(&self.number) {
            connection.task = Some(task);
        }
    }

    /// The connection is being answered.
    pub(super) fn busy(&self) -> Busy {
        self.shared.lock().set_busy(self.number, true);
        Busy { shared: Arc::clone(&self.shared), number: self.number }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.lock().all.remove(&self.number);
        self.shared.changed.notify_waiters();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.shared.lock().set_busy(self.number, false);
        self.shared.changed.notify_waiters();
    }
}
