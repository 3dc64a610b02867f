//! Calling the keeper when the cluster or the kernel changes, and telling what it did.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netlink::nftables::{Changes, Generation};
use netlink::{Event, RoutingChanges};
use runner::Runner;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep_until;

use super::teller::Teller;
use super::{Keeper, Members, Report, accept};
use cluster::Listener;

use crate::agent::{Readiness, Status};
use crate::dataplane::Ran;

/// The runtime's folder, forwarding and policies are looked at this often: nobody tells of the first.
const LOOK: Duration = Duration::from_millis(700);
/// Looks are at least so far apart, however much happens ...
const LEAST_PAUSE: Duration = Duration::from_millis(100);
/// ... and this many times as far as the last one took without programs, up to a bound: some nodes
/// have the routes of the whole Internet.
const SHARE: u32 = 5;
const MOST_PAUSE: Duration = Duration::from_secs(10);

/// Keeps the node's network for as long as the nodes are told. What is in place stays.
pub async fn run<R: Runner + Send + 'static>(
    mut keeper: Keeper<R>,
    mut members: watch::Receiver<Option<Arc<Members>>>,
    status: Arc<Status>,
) {
    status.set_network(Some("not all nodes are known yet".to_owned()));
    let (mut ears, mut teller) = (Ears::new(), Teller::new());
    loop {
        let known = members.borrow_and_update().clone();
        let mut took = Duration::ZERO;
        if let Some(known) = known {
            if ears.take_suspicion() {
                keeper.suspect_rules();
            }
            let has_policy = status.readiness() == Readiness::Ready;
            let (report, ran);
            (keeper, report, ran, took) = look(keeper, known, has_policy).await;
            ears.own.extend(ran.process_ids);
            status.metrics.node_network.see(&report);
            status.set_network(report.state().err());
            teller.tell(&report, Instant::now());
        }
        if !ears.wait(&mut members, took).await {
            return;
        }
    }
}

/// Calls the keeper where it may block; the report, and how long it took without programs.
async fn look<R: Runner + Send + 'static>(
    mut keeper: Keeper<R>,
    known: Arc<Members>,
    has_policy: bool,
) -> (Keeper<R>, Report, Ran, Duration) {
    let work = spawn_blocking(move || {
        let started = Instant::now();
        let report = keeper.reconcile(&known, has_policy, started);
        let ran = keeper.take_ran();
        let took = started.elapsed().saturating_sub(ran.took);
        (keeper, report, ran, took)
    });
    // When it panicked, only a fresh start is safe.
    work.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// What is heard of the kernel.
struct Ears {
    routing: Option<Listener<RoutingChanges>>,
    rules: Option<Listener<Changes>>,
    /// The processes that changed table filter, of which ours are forgiven.
    heard: BTreeSet<u32>,
    missed: bool,
    own: BTreeSet<u32>,
}

impl Ears {
    fn new() -> Self {
        let deaf = |error: &std::io::Error| {
            tracing::warn!(
                error = crate::chain(error),
                "changes are not told by the kernel; they are looked for"
            );
        };
        let routing = Listener::new("changes of routes", RoutingChanges::open());
        let rules = Listener::new("changes of the rules", Changes::open());
        Self {
            routing: routing.inspect_err(deaf).ok(),
            rules: rules.inspect_err(deaf).ok(),
            heard: BTreeSet::new(),
            missed: false,
            own: BTreeSet::new(),
        }
    }

    /// Whether others may have changed table filter since this was last asked.
    fn take_suspicion(&mut self) -> bool {
        let own = std::mem::take(&mut self.own);
        let others = std::mem::take(&mut self.heard).into_iter().any(|it| !own.contains(&it));
        others | std::mem::take(&mut self.missed)
    }

    /// Waits until it is time to look again, after a look that took so long; whether there will be
    /// more to see: `false` once nobody tells of nodes any more.
    async fn wait(
        &mut self,
        members: &mut watch::Receiver<Option<Arc<Members>>>,
        took: Duration,
    ) -> bool {
        let now = Instant::now();
        let pause = took.saturating_mul(SHARE).min(MOST_PAUSE);
        let (earliest, latest) = (now + pause.max(LEAST_PAUSE), now + pause.max(LOOK));
        let mut is_due = false;
        while !is_due {
            is_due = tokio::select! {
                biased;
                changed = members.changed() => match changed {
                    Ok(()) => true,
                    Err(_) => return false,
                },
                _ = heard(&mut self.routing, RoutingChanges::receive) => true,
                events = heard(&mut self.rules, Changes::receive) => self.hear(events),
                () = sleep_until(latest.into()) => true,
            };
        }
        sleep_until(earliest.into()).await;
        true
    }

    /// Whether they are of table filter, and not ours.
    fn hear(&mut self, events: Vec<Event<Generation>>) -> bool {
        let table = accept::own_chain().table;
        for event in events {
            match event {
                Event::Missed => self.missed = true,
                Event::Heard(it) => {
                    if it.tables.is_empty() || it.tables.contains(table) {
                        self.heard.insert(it.port);
                    }
                }
            }
        }
        self.missed || self.heard.iter().any(|port| !self.own.contains(port))
    }
}

/// What a listener hears; nothing, for ever, where there is none.
async fn heard<T: std::os::fd::AsRawFd, E>(
    listener: &mut Option<Listener<T>>,
    receive: impl Fn(&mut T) -> Result<Option<Vec<Event<E>>>, netlink::Error>,
) -> Vec<Event<E>> {
    match listener {
        Some(listener) => listener.next(receive).await,
        None => pending().await,
    }
}
