//! What is done to the kernel, on a thread of its own while the loop goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use cluster::Worker;
use ipnetwork::IpNetwork;
use runner::Runner;

use super::looks::Look;
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
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) differences: Vec<Difference>,
    pub(super) counts: Counts,
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
    /// Where a survey found endpoints, whatever else became of it.
    pub(super) found: Option<BTreeMap<IpAddr, HostInterface>>,
    pub(super) ran: Ran,
    /// How long it took.
    pub(super) took: Duration,
    /// How long after the first event that led to it it was done.
    pub(super) waited: Option<Duration>,
    /// Of what only looked at what the kernel holds, which look it was.
    pub(super) look: Option<Look>,
}

/// The one thread that writes. The dataplane is with it while it does.
pub(super) type Work<R> = Worker<Dataplane<R>, Done>;

impl Job {
    const fn look(&self) -> Option<Look> {
        match self {
            Self::Adopt(..) | Self::Apply(_) => None,
            Self::Read => Some(Look::Read),
            Self::Compare => Some(Look::Compare),
            Self::Glance => Some(Look::Glance),
            Self::Survey(_) => Some(Look::Survey),
        }
    }

    /// What there is to do, the first event of which came then.
    pub(super) fn since<R: Runner + Send>(
        self,
        waiting_since: Option<Instant>,
    ) -> impl FnOnce(&mut Dataplane<R>) -> Done {
        move |dataplane| {
            let started = Instant::now();
            let mut aside = Aside::default();
            let result = carry_out(dataplane, &self, &mut aside);
            let (Aside { own, found }, mut ran) = (aside, dataplane.take_ran());
            // What was written without a program is ours as well.
            ran.process_ids.extend(own);
            let took = started.elapsed();
            let waited = waiting_since.map(|since| since.elapsed());
            Done { result, found, ran, took, waited, look: self.look() }
        }
    }
}

/// What is so even where it fails.
#[derive(Default)]
struct Aside {
    /// The netlink ports from which nf_tables was changed without a program.
    own: BTreeSet<u32>,
    /// Where a survey found endpoints.
    found: Option<BTreeMap<IpAddr, HostInterface>>,
}

fn carry_out<R: Runner + Send>(
    dataplane: &mut Dataplane<R>,
    job: &Job,
    Aside { own, found }: &mut Aside,
) -> Result<Outcome, Error> {
    let mut differences = Vec::new();
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
            *found = Some(done.found);
            let bound = ingress::see_to(&wanted.sources, |name| wanted.told.contains(name));
            let mut failed = Ok(());
            for written in [done.kept_out, bound] {
                match written {
                    Ok(port) => own.extend(port),
                    Err(error) => failed = failed.and(Err(error)),
                }
            }
            // That nobody sees frames is told ahead of what may pass.
            done.bridges?;
            failed?;
            // The plugin may have given us up just before the rules were there.
            own.extend(dataplane.open_interfaces(|name| is_gone(name, wanted))?);
        }
    }
    let is_adoption = matches!(job, Job::Adopt(..));
    let is_commit = is_adoption || matches!(job, Job::Apply(..));
    let (counts, cut) = (dataplane.counts(), dataplane.take_cut());
    Ok(Outcome { differences, counts, is_suspect, cut, is_adoption, is_commit })
}

/// Those that go leave with the next survey: most changes are of no port, and ask nothing.
fn keep_out_of_coming(changes: &Changes) -> Result<Option<u32>, netlink::Error> {
    let ports = frames::ports(changes.endpoints.values().flatten());
    if ports.is_empty() { Ok(None) } else { frames::keep_out(&ports, |_| false) }
}
