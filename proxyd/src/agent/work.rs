//! What blocks, in a thread of its own: one thing at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::Worker;

use crate::dataplane::{Dataplane, Error, Written};
use crate::model::NamespacedName;
use crate::nftables::Local;
use crate::plan::{At, Plan};

/// What is to be done.
#[derive(Debug)]
pub(super) enum Job {
    /// The kernel is to have these services. Where the node tells by what pods are known, that holds.
    Adopt { plans: BTreeMap<NamespacedName, Arc<Plan>>, local: Option<Local> },
    /// These services have changed.
    Apply(BTreeMap<NamespacedName, Option<Arc<Plan>>>),
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
            Job::Adopt { .. } => Self::Adoption,
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
    /// Places that the kernel had of no service.
    pub(super) left: BTreeSet<At>,
}

/// Who does it. The dataplane is with it meanwhile.
pub(super) type Work = Worker<Dataplane, Done>;

impl Job {
    /// What there is to do, the first event of which came then.
    pub(super) fn since(self, started: Option<Instant>) -> impl FnOnce(&mut Dataplane) -> Done {
        move |dataplane| {
            let begun = Instant::now();
            let kind = Kind::of(&self);
            let before = dataplane.generation();
            let result = run(dataplane, self);
            let generation = before
                .zip(result.as_ref().ok())
                .map(|(before, written)| after(before, written.transactions));
            let (took, own_port) = (begun.elapsed(), dataplane.port());
            let left = dataplane.take_left();
            Done { result, kind, generation, own_port, started, took, left }
        }
    }
}

/// The generation after so many changes (`nf_tables_commit`, which passes over zero).
fn after(generation: u32, changes: usize) -> u32 {
    (0..changes).fold(generation, |it, _| it.wrapping_add(1).max(1))
}

fn run(dataplane: &mut Dataplane, job: Job) -> Result<Written, Error> {
    match job {
        Job::Adopt { plans, local } => {
            local.iter().for_each(|it| dataplane.know_pods_by(it));
            dataplane.adopt(&plans)
        }
        Job::Apply(plans) => dataplane.apply(&plans),
        Job::Tidy => dataplane.tidy(),
    }
}
