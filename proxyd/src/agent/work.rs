//! What blocks, in a thread of its own: one thing at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, spawn_blocking};

use crate::dataplane::{Dataplane, Error, Written};
use crate::flows;
use crate::index::Changes;
use crate::model::NamespacedName;
use crate::plan::{At, Plan};

/// What is to be done.
#[derive(Debug)]
pub(super) enum Job {
    /// The kernel is to have these services, and flows that lead elsewhere than to these endpoints go.
    Adopt(BTreeMap<NamespacedName, Arc<Plan>>, BTreeMap<At, BTreeSet<SocketAddr>>),
    /// These services have changed.
    Apply(Changes),
    /// Chains that nothing leads to are to go.
    Tidy,
}

/// Of what kind that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The kernel was read.
    Adoption,
    /// It was not.
    Change,
    /// Nothing is otherwise for anybody.
    Tidying,
}

impl Kind {
    const fn of(job: &Job) -> Self {
        match job {
            Job::Adopt(..) => Self::Adoption,
            Job::Apply(_) => Self::Change,
            Job::Tidy => Self::Tidying,
        }
    }
}

/// What was done.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) result: Result<Written, Error>,
    pub(super) kind: Kind,
    /// The kernel's generation after our last change, if nobody else changed anything since a comparison began.
    pub(super) generation: Option<u32>,
    /// By what others are told that it was us.
    pub(super) own_port: Option<u32>,
    /// When the first event of it came.
    pub(super) started: Option<Instant>,
    pub(super) took: Duration,
}

/// Who does it.
#[derive(Debug)]
pub(super) struct Work {
    idle: Option<Dataplane>,
    running: Option<JoinHandle<(Dataplane, Done)>>,
}

impl Work {
    pub(super) const fn new(dataplane: Dataplane) -> Self {
        Self { idle: Some(dataplane), running: None }
    }

    pub(super) const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn start(&mut self, job: Job, started: Option<Instant>) {
        let Some(mut dataplane) = self.idle.take() else { return };
        self.running = Some(spawn_blocking(move || {
            let begun = Instant::now();
            let kind = Kind::of(&job);
            let before = dataplane.generation();
            let result = run(&mut dataplane, job);
            let generation = before
                .zip(result.as_ref().ok())
                .map(|(before, written)| after(before, written.transactions));
            let took = begun.elapsed();
            let own_port = dataplane.port();
            (dataplane, Done { result, kind, generation, own_port, started, took })
        }));
    }

    /// Waits for the end of what runs; without end when nothing does.
    pub(super) async fn finished(&mut self) -> Done {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        match running.await {
            Ok((dataplane, done)) => {
                self.running = None;
                self.idle = Some(dataplane);
                done
            }
            // A panic, which is a bug: there is nothing left to go on with.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Waits until nothing runs.
    pub(super) async fn wait(&mut self) {
        if self.is_running() {
            self.finished().await;
        }
    }
}

/// The generation after so many changes (`nf_tables_commit`, which passes over zero).
fn after(generation: u32, changes: usize) -> u32 {
    (0..changes).fold(generation, |it, _| it.wrapping_add(1).max(1))
}

fn run(dataplane: &mut Dataplane, job: Job) -> Result<Written, Error> {
    let (written, datagrams) = match job {
        Job::Adopt(plans, datagrams) => (dataplane.adopt(&plans)?, datagrams),
        Job::Tidy => return dataplane.tidy(),
        Job::Apply(changes) => (dataplane.apply(&changes.plans)?, changes.datagrams),
    };
    let cut = flows::cut(&datagrams)?;
    Ok(Written { flows_cut: cut, ..written })
}
