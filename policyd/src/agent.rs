//! The agent of a node: events only mark what changed, and one loop writes. While it writes, it
//! takes in what happens next; so a burst is one write, and a single change waits for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use runner::Runner;
use tokio::sync::{mpsc, watch};
use tokio::time::{self, MissedTickBehavior};

use crate::attachment::Attachment;
use crate::attachments::Request;
use crate::dataplane::Dataplane;
use crate::index::Index;
use crate::iptables::Settings;
use crate::model::NamespacedName;
use crate::plan::HostInterface;
use crate::recorder::Notice;
use crate::source::{Change, Event, Node};
use crate::{frames, ingress};

mod asked;
mod bucket;
mod delays;
mod denied;
mod drift;
mod flows;
mod looks;
mod problems;
mod retry;
mod status;
mod survey;
mod synced;
#[cfg(test)]
mod tests;
mod waiting;
mod work;

use asked::Asked;
pub(crate) use bucket::TokenBucket;
use delays::Delays;
use denied::Denied;
use drift::Drift;
use flows::Flows;
use looks::{Look, Looks};
use problems::Problems;
use retry::Retry;
pub use status::{Readiness, Status};
use survey::{Links, Wanted};
use synced::Synced;
use waiting::Waiting;
use work::{Done, Job, Work};

/// How often the loop shows that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How often the index is told that time passes.
const MINUTE: Duration = Duration::from_mins(1);
/// As many events are taken in before the loop looks at anything else.
const MOST_EVENTS_AT_ONCE: usize = 4096;

/// What the agent is told to do.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name of the node.
    pub node: String,
    /// What the rules depend on. Its gated ranges are added to those of the node.
    pub settings: Settings,
    /// Whether the source tells of every pod, see [`Index::of`].
    pub of_cluster: bool,
    /// Whether the ranges of the node's pods are gated.
    pub gate: bool,
    /// Addresses of the node that no such range may hold, besides those that its object tells.
    pub addresses: Vec<IpAddr>,
    /// Where new problems of objects are told besides the log.
    pub notices: mpsc::Sender<Notice>,
}

/// What the agent is told.
#[derive(Debug)]
pub struct Inputs {
    /// How the objects change.
    pub events: mpsc::Receiver<Event>,
    /// The attachments that are known from before.
    pub attachments: Vec<Attachment>,
    /// Takes the names of pods that no event has told of yet; an [`Event::Answer`] may follow.
    pub asks: mpsc::Sender<NamespacedName>,
    /// What the CNI plugin wants.
    pub requests: mpsc::Receiver<Request>,
    /// Changes when it shall end.
    pub shutdown: watch::Receiver<bool>,
}

/// Keeps the kernel at what the inputs tell until `shutdown` changes. The kernel stays as it is then:
/// what is enforced goes on being enforced.
pub async fn run<R: Runner + Send + 'static>(
    config: Config,
    dataplane: Dataplane<R>,
    inputs: Inputs,
    status: Arc<Status>,
) {
    let Inputs { mut events, attachments, asks, mut requests, mut shutdown } = inputs;
    let mut agent = Agent::new(config, dataplane, asks, status);
    attachments.into_iter().for_each(|attachment| agent.index.attach(attachment));
    let mut heartbeat = time::interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        agent.start_work();
        agent.start_look_at_flows();
        let wake = agent.next_due().saturating_duration_since(Instant::now());
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => agent.take_in(event, &mut events),
                // A source ends only with us.
                None => break,
            },
            Some(request) = requests.recv() => agent.take_request(request),
            done = agent.work.finished() => agent.finish(done),
            step = agent.flows.finished() => agent.see_flows(step),
            changes = agent.drift.changed() => agent.drift.hear(changes),
            changes = agent.links.changed() => agent.links.hear(&changes),
            packets = agent.denied.heard() => agent.denied.tell(packets, &agent.index, Instant::now()),
            () = time::sleep(wake) => {}
            _ = heartbeat.tick() => agent.beat(),
            _ = shutdown.changed() => break,
        }
    }
    // Whatever is being written is written to its end.
    agent.work.wait().await;
}

struct Agent<R> {
    config: Config,
    index: Index,
    synced: Synced,
    node: Option<Node>,
    work: Work<R>,
    drift: Drift,
    flows: Flows,
    links: Links,
    waiting: Waiting,
    delays: Delays,
    problems: Problems,
    asked: Asked,
    /// When the index was last told that time passes.
    aged: Instant,
    denied: Denied,
    status: Arc<Status>,
    /// The kernel was read while the objects were on their way.
    has_read: bool,
    /// What the kernel holds is not what it was left as, or not known.
    is_astray: bool,
    writes: Retry,
    /// What only looks at the kernel: where that fails, changes are written nevertheless.
    looks: Looks,
    /// When the first event came that is not in the kernel yet.
    waiting_since: Option<Instant>,
}

impl<R: Runner + Send + 'static> Agent<R> {
    fn new(
        config: Config,
        dataplane: Dataplane<R>,
        asks: mpsc::Sender<NamespacedName>,
        status: Arc<Status>,
    ) -> Self {
        let index = Index::of(&config.node, config.of_cluster);
        status.metrics.counters.know_kind(dataplane.kind());
        let flows = Flows::new(config.settings.marks.cut, dataplane.left_over());
        Self {
            index,
            problems: Problems::new(&config.node, config.notices.clone()),
            denied: Denied::new(config.settings.log_group),
            drift: Drift::new(dataplane.table_names()),
            config,
            synced: Synced::default(),
            node: None,
            work: Work::new(dataplane),
            flows,
            links: Links::new(),
            waiting: Waiting::default(),
            delays: Delays::default(),
            asked: Asked::new(asks),
            aged: Instant::now(),
            status,
            has_read: false,
            is_astray: true,
            writes: Retry::default(),
            looks: Looks::default(),
            waiting_since: None,
        }
    }

    fn beat(&mut self) {
        self.status.beat();
        if self.aged.elapsed() >= MINUTE {
            self.aged = Instant::now();
            self.index.grow_old();
        }
        self.asked.expired().into_iter().for_each(|event| self.take(event));
    }

    /// Takes in an event, and those that have come with it.
    fn take_in(&mut self, first: Event, events: &mut mpsc::Receiver<Event>) {
        self.waiting_since.get_or_insert_with(Instant::now);
        self.take(first);
        for _ in 1..MOST_EVENTS_AT_ONCE {
            let Ok(event) = events.try_recv() else { return };
            self.take(event);
        }
    }

    fn take(&mut self, event: Event) {
        self.synced.note(&event);
        self.problems.see(&event, &self.status.metrics);
        self.asked.see(&event, |uid| self.index.has_pod(uid));
        if let Event::Node(node) = &event {
            self.see_node(node.clone());
        }
        if let Event::Pods(Change::Applied(pod)) = &event
            && self.index.gains_address(pod)
        {
            self.delays.address(&pod.uid);
        }
        self.index.apply(event);
    }

    /// Takes in what the CNI plugin wants. Its answer comes with a commit, but that about the status.
    fn take_request(&mut self, request: Request) {
        match request {
            Request::Attach { attachment, reply } => {
                self.waiting_since.get_or_insert_with(Instant::now);
                let container_id = attachment.container_id.clone();
                if !self.index.has_endpoint(&container_id) {
                    self.delays.attach(&container_id);
                }
                self.index.attach(attachment);
                if let Some(name) = self.index.missing_pod(&container_id) {
                    self.asked.ask(name);
                }
                self.waiting.push(Some(container_id), reply);
            }
            Request::Detach { container_id, reply } => {
                self.waiting_since.get_or_insert_with(Instant::now);
                self.index.detach(&container_id);
                self.delays.detach(&container_id);
                self.waiting.push(None, reply);
            }
            Request::Status { reply } => {
                let answer = match self.status.readiness() {
                    Readiness::Ready => Ok(()),
                    Readiness::Syncing => Err("not all objects are known yet".to_owned()),
                    Readiness::NoGate(why) | Readiness::Failing(why) => Err(why),
                };
                // Who has gone meanwhile is not waited for.
                _ = reply.send(answer);
            }
        }
    }

    fn see_node(&mut self, node: Node) {
        if self.node.as_ref() == Some(&node) {
            return;
        }
        // Its ranges are in the rules of the gate.
        self.is_astray = true;
        self.node = Some(node);
    }

    /// The ranges that are gated; an error tells why none can be.
    fn gated(&self) -> Result<Vec<IpNetwork>, String> {
        if !self.config.gate {
            return Ok(Vec::new());
        }
        let own = self.config.settings.gated.iter();
        let node = self.node.iter().flat_map(|node| &node.pod_ranges);
        let ranges: BTreeSet<IpNetwork> = own.chain(node).copied().collect();
        if ranges.is_empty() {
            return Err("the node has no spec.podCIDRs: give --pod-cidr, or --gate=off".to_owned());
        }
        let told = self.node.iter().flat_map(|node| &node.addresses);
        let addresses = self.config.addresses.iter().chain(told);
        let held: Vec<&IpAddr> =
            addresses.filter(|address| ranges.iter().any(|it| it.contains(**address))).collect();
        match held.first() {
            Some(address) => Err(format!("the ranges of pods hold the node's address {address}")),
            None => Ok(ranges.into_iter().collect()),
        }
    }

    /// Starts to write, when there is something to write and nothing is being written.
    fn start_work(&mut self) {
        if self.work.is_running() || self.writes.rests() {
            return;
        }
        if !self.synced.is_whole() {
            // What is read now need not be read when the objects are there.
            if !std::mem::replace(&mut self.has_read, true) {
                self.work.start(Job::Read.since(None));
            }
            return;
        }
        let changes = self.index.take_changes();
        if !self.links.is_surveyed() {
            if self.looks.due(Look::Survey, Instant::now()) <= Instant::now() {
                self.links.begin();
                self.work.start(Job::Survey(self.survey()).since(None));
            }
            return;
        }
        if !self.waiting.is_empty() {
            self.waiting.begin(&self.index);
        }
        self.delays.write(|container_id| self.index.has_endpoint(container_id));
        if changes.endpoints.values().flatten().any(|it| it.interface.is_none()) {
            self.links.look_again();
        }
        if self.drift.take_of_surveyed() {
            self.links.look_again();
        }
        // Some changes can only be made with all else.
        self.is_astray |= self.work.idle().is_some_and(|it| it.needs_adoption(&changes));
        if self.is_astray {
            let gated = match self.gated() {
                Ok(gated) => gated,
                Err(reason) => return self.status.set_unready(Readiness::NoGate(reason)),
            };
            self.is_astray = false;
            let started = self.waiting_since.take();
            let job = Job::Adopt(gated, Box::new(self.index.plan()));
            return self.work.start(job.since(started));
        }
        if !changes.is_empty() {
            if !changes.endpoints.is_empty() {
                self.status.metrics.counters.know_endpoints(self.index.endpoints());
            }
            self.status.metrics.counters.change_policies(&changes.chains);
            let started = self.waiting_since.take();
            return self.work.start(Job::Apply(changes).since(started));
        }
        // What came changed nothing here.
        self.waiting_since = None;
        self.waiting.end(true);
        self.delays.forget();
        // What has waited longest comes first: none keeps another from its turn.
        let now = Instant::now();
        let due = self.looks_due().into_iter().filter(|(time, _)| *time <= now).min();
        let job = match due.map(|(_, look)| look) {
            Some(Look::Compare) => {
                self.drift.begin();
                Job::Compare
            }
            Some(Look::Glance) => {
                self.drift.begin_glance();
                Job::Glance
            }
            Some(Look::Survey) => {
                self.links.begin();
                Job::Survey(self.survey())
            }
            Some(Look::Read) | None => return,
        };
        self.work.start(job.since(None));
    }

    /// When it is time for each of the looks that are taken again and again.
    fn looks_due(&self) -> [(Instant, Look); 3] {
        [
            (self.drift.due(), Look::Compare),
            (self.drift.glance_due(), Look::Glance),
            (self.links.due(), Look::Survey),
        ]
        .map(|(time, look)| (self.looks.due(look, time), look))
    }

    /// What the node's links shall be asked.
    fn survey(&self) -> Wanted {
        let (sought, told) = self.index.interfaces();
        Wanted {
            bridges: survey::bridges(self.index.endpoints().map(|(_, it)| it)),
            ports: frames::ports(self.index.endpoints().map(|(_, it)| it)),
            sources: ingress::sources(self.index.endpoints().map(|(_, it)| it)),
            gated: self.gated().unwrap_or_default(),
            sought: sought.into_iter().map(|it| (it, self.links.found.get(&it).cloned())).collect(),
            told,
        }
    }

    fn see_links(&mut self, found: BTreeMap<IpAddr, HostInterface>) {
        let (sought, _) = self.index.interfaces();
        let is_searching = sought.iter().any(|address| !found.contains_key(address));
        self.index.find(&found);
        self.links.find(found, is_searching);
    }

    /// When there is something to do even if nothing happens. What is late has to wait for
    /// something else, that will wake us.
    fn next_due(&self) -> Instant {
        let (now, latest) = (Instant::now(), Instant::now() + HEARTBEAT);
        let looks = self.looks_due().map(|(time, _)| time);
        let times = looks.into_iter().chain(self.writes.next()).chain(self.flows.due());
        times.filter(|time| *time > now).min().unwrap_or(latest)
    }

    fn finish(&mut self, done: Done) {
        self.drift.forgive(&done.ran.process_ids);
        self.waiting.end(done.result.is_ok());
        self.delays.end(done.result.is_ok(), &self.status.metrics);
        if done.look == Some(Look::Compare) {
            self.drift.end(done.took);
        }
        if let Some(found) = done.found {
            self.see_links(found);
        }
        match done.result {
            Ok(outcome) => {
                match done.look {
                    Some(look) => self.looks.succeed(look),
                    None => self.writes.succeed(),
                }
                if done.look == Some(Look::Survey) {
                    self.status.set_unseen(None);
                }
                if !outcome.differences.is_empty() {
                    let list: Vec<_> =
                        outcome.differences.iter().map(ToString::to_string).collect();
                    tracing::warn!(differences = %list.join(", "), "somebody changed rules of ours; they are repaired");
                    self.is_astray = true;
                    self.status.metrics.drift_repairs.inc();
                }
                if outcome.is_suspect {
                    self.drift.suspect();
                }
                if outcome.is_adoption {
                    self.status.metrics.counters.know_endpoints(self.index.endpoints());
                    self.status.metrics.counters.know_policies(&self.index.chains().collect());
                }
                if outcome.is_commit && self.config.settings.cuts_flows {
                    self.flows.look_again();
                }
                self.status.committed(&outcome, done.ran.took, done.took, done.waited);
            }
            Err(error) => match done.look {
                Some(look) => self.fail_look(look, &error),
                None => {
                    self.is_astray = true;
                    let pause = self.writes.fail();
                    let error = crate::chain(&error);
                    tracing::error!(
                        error,
                        pause_ms = pause.as_millis(),
                        "the kernel's rules could not be changed; what it held is in force"
                    );
                    self.status.failed(error);
                }
            },
        }
    }

    fn fail_look(&mut self, look: Look, error: &crate::dataplane::Error) {
        let why = crate::chain(error);
        if look == Look::Survey {
            self.links.look_again();
            // What comes to nothing because others were quicker is seen to with the next.
            if error.is_lack() {
                self.status.set_unseen(Some(why.clone()));
            }
        } else {
            // What could not be seen may be anything.
            self.drift.suspect();
        }
        self.status.metrics.look_failures.inc();
        let (pause, is_news) = self.looks.fail(look, &why);
        if is_news {
            tracing::warn!(
                error = why,
                pause_ms = pause.as_millis(),
                "what the kernel holds could not be looked at; changes are written nevertheless"
            );
        }
    }
}
