//! What is done to the kernel, on a thread of its own while the loop goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use runner::Runner;
use tokio::task::{JoinHandle, spawn_blocking};

use super::survey::{Wanted, bridges, filter_bridges, is_gone, survey};
use crate::dataplane::{Counts, Dataplane, Difference, Error, Glance, Ran};
use crate::plan::{Changes, HostInterface, Plan};
use crate::{frames, ingress};

/// One piece of work.
#[derive(Debug)]
pub(super) enum Job {
    /// Read what the kernel holds, for the first [`Job::Adopt`].
    Read,
    /// Make the kernel, whatever it holds, what the plan says, with these ranges gated.
    Adopt(Vec<IpNetwork>, Box<Plan>),
    /// Make these changes.
    Apply(Changes),
    /// Look whether it is still what it was left as.
    Compare,
    /// Look for what can be seen of that without running programs.
    Glance,
    /// See to bridges, and find interfaces.
    Survey(Wanted),
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) differences: Vec<Difference>,
    pub(super) counts: Counts,
    /// Where a survey found endpoints.
    pub(super) found: Option<BTreeMap<IpAddr, HostInterface>>,
    /// Whether the tables should be compared.
    pub(super) is_suspect: bool,
    /// Flows that were cut.
    pub(super) cut: usize,
    /// Whether all was written, and not only what changed.
    pub(super) is_adoption: bool,
    /// Whether what is enforced may have changed.
    pub(super) is_commit: bool,
}

#[derive(Debug)]
pub(super) struct Done {
    pub(super) result: Result<Outcome, Error>,
    pub(super) ran: Ran,
    /// How long it took.
    pub(super) took: Duration,
    /// How long after the first event that led to it it was done.
    pub(super) waited: Option<Duration>,
}

/// The one thread that writes. The dataplane is with it while it does.
#[derive(Debug)]
pub(super) struct Work<R> {
    idle: Option<Dataplane<R>>,
    running: Option<JoinHandle<(Dataplane<R>, Done)>>,
}

impl<R: Runner + Send + 'static> Work<R> {
    pub(super) const fn new(dataplane: Dataplane<R>) -> Self {
        Self { idle: Some(dataplane), running: None }
    }

    pub(super) const fn is_running(&self) -> bool {
        self.idle.is_none()
    }

    /// Whether the changes can only be made with all else, by [`Job::Adopt`].
    pub(super) fn needs_adoption(&self, changes: &Changes) -> bool {
        self.idle.as_ref().is_some_and(|dataplane| dataplane.needs_adoption(changes))
    }

    pub(super) fn start(&mut self, job: Job, waiting_since: Option<Instant>) {
        let Some(mut dataplane) = self.idle.take() else { return };
        self.running = Some(spawn_blocking(move || {
            let started = Instant::now();
            let mut own = BTreeSet::new();
            let result = carry_out(&mut dataplane, &job, &mut own);
            let mut ran = dataplane.take_ran();
            // What was written without a program is ours as well.
            ran.process_ids.extend(own);
            let took = started.elapsed();
            let waited = waiting_since.map(|since| since.elapsed());
            (dataplane, Done { result, ran, took, waited })
        }));
    }

    /// Waits for the end of what is being done; for ever when nothing is.
    pub(super) async fn finished(&mut self) -> Done {
        let Some(running) = &mut self.running else { return pending().await };
        match running.await {
            Ok((dataplane, done)) => {
                self.running = None;
                self.idle = Some(dataplane);
                done
            }
            // It panicked: the state of the dataplane is lost, and only a fresh start is safe. The
            // kernel goes on enforcing.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    pub(super) async fn wait(&mut self) {
        if self.running.is_some() {
            self.finished().await;
        }
    }
}

/// Does it, and leaves in `own` the netlink ports from which nf_tables was changed without a program.
fn carry_out<R: Runner + Send>(
    dataplane: &mut Dataplane<R>,
    job: &Job,
    own: &mut BTreeSet<u32>,
) -> Result<Outcome, Error> {
    let mut differences = Vec::new();
    let mut found = None;
    let mut is_suspect = false;
    match job {
        Job::Read => dataplane.read()?,
        Job::Adopt(gated, plan) => {
            dataplane.set_gated(gated.clone());
            // Ahead of the rules, which open the gate to the pod; but where it cannot be had, they are
            // written nevertheless: what they hold back is much more.
            let kept_out = frames::keep_out(&frames::ports(plan.endpoints.values()), |_| false);
            let sources = ingress::sources(plan.endpoints.values());
            let bound = ingress::see_to(&sources, |_| true);
            dataplane.adopt(plan)?;
            filter_bridges(&bridges(plan.endpoints.values()))?;
            own.extend(dataplane.open_interfaces(|_| Ok(false))?);
            own.extend(kept_out?);
            own.extend(bound?);
        }
        Job::Apply(changes) => {
            let kept_out = keep_out_of_coming(changes);
            let bound = ingress::bind(&dataplane.sources_after(changes));
            dataplane.apply(changes)?;
            // Only after the rules: loading those for bridge ports loads what else may be missing.
            filter_bridges(&bridges(changes.endpoints.values().flatten()))?;
            if changes.endpoints.values().flatten().any(|it| it.interface.is_some()) {
                own.extend(dataplane.open_interfaces(|_| Ok(false))?);
            }
            own.extend(kept_out?);
            own.extend(bound?);
        }
        Job::Compare => differences = dataplane.differences()?,
        Job::Glance => {
            Glance { differences, is_suspect } = dataplane.glance()?;
        }
        Job::Survey(wanted) => {
            let done = survey(wanted)?;
            found = Some(done.found);
            own.extend(done.own);
            own.extend(ingress::see_to(&wanted.sources, |name| wanted.told.contains(name))?);
            // The plugin may have given us up just before the rules were there.
            own.extend(dataplane.open_interfaces(|name| is_gone(name, wanted))?);
        }
    }
    let is_adoption = matches!(job, Job::Adopt(..));
    let is_commit = is_adoption || matches!(job, Job::Apply(..));
    let (counts, cut) = (dataplane.counts(), dataplane.take_cut());
    Ok(Outcome { differences, counts, found, is_suspect, cut, is_adoption, is_commit })
}

/// Those that go leave with the next survey: most changes are of no port, and ask nothing.
fn keep_out_of_coming(changes: &Changes) -> Result<Option<u32>, netlink::Error> {
    let ports = frames::ports(changes.endpoints.values().flatten());
    if ports.is_empty() { Ok(None) } else { frames::keep_out(&ports, |_| false) }
}
