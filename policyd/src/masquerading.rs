//! Masquerading beside the enforcement of policy: on a thread of its own, as what it asks of the
//! kernel blocks.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use netlink::Event;
use netlink::nftables::Changes;
use policyd::chain;
use policyd::dataplane::{Kind, Programs};
use policyd::masquerade::{self, Agent, Report};
use policyd::metrics::Metrics;
use runner::OsRunner;

use crate::run::LEFT_OVER;

/// How often the file is looked at. Reading it takes microseconds.
const LOOK: Duration = Duration::from_secs(1);

/// Masquerades until the process ends; its rules stay.
pub(crate) fn start(
    mut agent: Agent<OsRunner>,
    kind: Kind,
    mut programs: Programs<OsRunner>,
    metrics: Arc<Metrics>,
) -> std::io::Result<()> {
    let look = move || {
        let mut changes = changes(&agent);
        let mut is_alone = false;
        loop {
            let report = agent.reconcile(Instant::now());
            metrics.masquerade.see(&report);
            tell(&report);
            if !is_alone && matches!(report.kernel, Some(Ok(_))) {
                // Until now both were in force, and what is left would decide first.
                is_alone = remove(&mut programs, Kind::ALL.into_iter().filter(|it| *it != kind));
            }
            rest(&mut agent, &mut changes);
        }
    };
    thread::Builder::new().name("masquerade".to_owned()).spawn(look).map(drop)
}

/// What the kernel tells of changes, where that is of use.
fn changes(agent: &Agent<OsRunner>) -> Option<Changes> {
    let opened = agent.hears().then(Changes::open)?;
    opened.inspect_err(|error| {
        tracing::warn!("changes of the rules of masquerading are not told by the kernel; they are looked for each `resyncInterval`: {}", chain(error));
    }).ok()
}

/// Rests until there may be something to do.
fn rest(agent: &mut Agent<OsRunner>, changes: &mut Option<Changes>) {
    let until = Instant::now() + LOOK;
    loop {
        let until = agent.due().map_or(until, |due| due.min(until));
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let Some(open) = changes else { return thread::sleep(left) };
        let heard = open.wait(left).and_then(|_| open.receive());
        match heard {
            Ok(events) => agent.hear(&events.unwrap_or_default()),
            Err(error) => {
                tracing::warn!(
                    "changes of the rules of masquerading cannot be heard of: {}",
                    chain(&error)
                );
                // Not again at once.
                thread::sleep(LOOK);
                *changes = self::changes(agent);
                // What came until now is not known.
                agent.hear(&[Event::Missed]);
            }
        }
    }
}

/// Removes what was left from when it was on.
pub(crate) fn stop(mut programs: Programs<OsRunner>) -> std::io::Result<()> {
    let left_over = move || {
        thread::sleep(LEFT_OVER);
        _ = remove(&mut programs, Kind::ALL);
    };
    thread::Builder::new().name("masquerade".to_owned()).spawn(left_over).map(drop)
}

/// Whether nothing is left.
fn remove(programs: &mut Programs<OsRunner>, kinds: impl IntoIterator<Item = Kind>) -> bool {
    let mut is_done = true;
    for kind in kinds {
        if let Err(error) = masquerade::remove(kind, programs) {
            tracing::warn!("rules of masquerading may be left: {}", chain(&error));
            is_done = false;
        }
    }
    is_done
}

fn tell(report: &Report) {
    match &report.reload {
        Some(Ok(read)) => {
            tracing::info!("masquerading all but what goes to {}", list(&read.config));
            for key in &read.unknown_keys {
                tracing::warn!("the configuration of masquerading has {key}, which means nothing");
            }
        }
        Some(Err(error)) => {
            tracing::error!("{}; the last good configuration stays", chain(error));
        }
        None => {}
    }
    match &report.kernel {
        Some(Ok(true)) => tracing::info!("rules of masquerading written"),
        Some(Err(error)) => tracing::error!("{}", chain(error)),
        Some(Ok(false)) | None => {}
    }
}

fn list(config: &policyd::masquerade::Config) -> String {
    let blocks: Vec<_> = config.non_masquerade.iter().map(ToString::to_string).collect();
    if blocks.is_empty() { "nowhere".to_owned() } else { blocks.join(", ") }
}
