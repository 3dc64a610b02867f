//! Putting the parts of policyd together.

use std::error::Error;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cluster::health::{listen, listen_after_other};
use cluster::{node_name, start_log, told_to_end};
use futures_util::future::join3;
use policyd::agent::{self, Config, Inputs, Readiness, Status};
use policyd::attachments::{Places, Server};
use policyd::chain;
use policyd::counters::Reader;
use policyd::dataplane::{Dataplane, Kind, Programs, variant};
use policyd::health;
use policyd::iptables::Family;
use policyd::metrics::Metrics;
use policyd::model::NamespacedName;
use policyd::node_network::{self, Members};
use policyd::recorder::{Notice, Recorder};
use policyd::source::api_server::{self, ApiServer};
use policyd::source::folder::Folder;
use policyd::source::{Event, Node};
use runner::OsRunner;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::interval;

use crate::cli::{Run, Switch};
use crate::{alone, masquerading, networking, trial};

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// As many events wait while the loop is at others: a source that is faster waits too.
const MOST_WAITING_EVENTS: usize = 1024;
/// As many calls of the CNI plugin.
const MOST_WAITING_CALLS: usize = 256;
/// As many problems of objects wait to be told by Events; more are only logged.
const MOST_WAITING_NOTICES: usize = 256;
/// What is left from when other options held keeps nobody waiting for so long: what policy needs comes
/// first.
pub(crate) const LEFT_OVER: Duration = Duration::from_secs(1);
/// How often policyd shows that it is there.
const ALIVE: Duration = Duration::from_secs(3);

/// Enforces until it is told to end.
pub(crate) fn run(options: Run) -> Result<(), Failure> {
    start_log(options.log_format);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(serve(options));
    // Nothing that still blocks may hold up the end: what it does is bounded, and can be repeated.
    runtime.shutdown_background();
    result
}

pub(crate) fn dataplane(
    kind: Kind,
    options: &Run,
    programs: Programs<OsRunner>,
) -> Dataplane<OsRunner> {
    Dataplane::new(kind, programs, &families(), options.settings())
}

/// Those for the tables that the node uses.
pub(crate) fn programs() -> Programs<OsRunner> {
    // Without the old tables' module there is no such file.
    let legacy_tables = fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    Programs::new(OsRunner, variant(&mut OsRunner, &legacy_tables))
}

/// Those that the kernel has: without IPv6 it has no tables for it either.
pub(crate) fn families() -> Vec<Family> {
    let has_ipv6 = Path::new("/proc/sys/net/ipv6").exists();
    Family::ALL.into_iter().filter(|family| family.is_ipv4() || has_ipv6).collect()
}

async fn serve(options: Run) -> Result<(), Failure> {
    let status = Arc::new(Status::new(Metrics::new()));
    let node = node_name(options.node_name.as_deref())?;
    let (notices, told) = mpsc::channel(MOST_WAITING_NOTICES);
    let (events, received) = mpsc::channel(MOST_WAITING_EVENTS);
    let (asks, asked) = mpsc::channel(MOST_WAITING_CALLS);
    let (members, cluster) = watch::channel(None);
    let members = options.network.node_network.then_some(members);
    let source = source(options.clone(), node.clone(), events, asked, told, members, &status);
    let mut source = pin!(source);
    let mut told_to_end = pin!(told_to_end()?);
    // The objects are listed meanwhile.
    let (kind, programs, _alone) = tokio::select! {
        prepared = prepare(&options, &status) => prepared?,
        ended = &mut source => return ended.map_err(Into::into),
        () = &mut told_to_end => return Ok(()),
    };
    tracing::info!("rules are written by {kind}");
    if options.masquerade.masquerade {
        let agent = options.masquerade.agent(kind, programs.clone());
        masquerading::start(agent, kind, programs.clone(), Arc::clone(&status.metrics))?;
    } else {
        masquerading::stop(programs.clone())?;
    }
    networking::start(&options.network, &node, programs.clone(), cluster, &status)?;
    let config = config(&options, node, notices);
    let (stop, shutdown) = watch::channel(false);
    let (calls, requests) = mpsc::channel(MOST_WAITING_CALLS);
    let places = Places {
        socket: options.run_dir.join(alone::SOCKET),
        files: options.run_dir.join(alone::ATTACHMENTS),
    };
    let (server, attachments) = Server::bind(&places, calls)?;
    tokio::spawn(server.run());
    tokio::spawn(show_alive(options.run_dir.join(alone::ALIVE), Arc::clone(&status)));
    let inputs = Inputs { events: received, attachments, asks, requests, shutdown };
    let mut agent =
        pin!(agent::run(config, dataplane(kind, &options, programs), inputs, Arc::clone(&status)));
    tokio::select! {
        () = &mut agent => return Ok(()),
        ended = &mut source => ended?,
        () = told_to_end => {}
    }
    tracing::info!("ending; what is enforced stays enforced");
    _ = stop.send(true);
    agent.await;
    Ok(())
}

/// Serves health checks, and waits until the kernel can hold the rules and nobody else writes them.
/// By which way they are written, the programs to do so with, and what keeps others from it.
async fn prepare(
    options: &Run,
    status: &Arc<Status>,
) -> Result<(Kind, Programs<OsRunner>, File), Failure> {
    let listener = match listen(options.listen).await {
        // By another policyd, that is about to end?
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            tracing::warn!("{error}");
            None
        }
        bound => bound?,
    };
    let programs = spawn_blocking(programs).await?;
    let counters = Reader::new(programs.clone(), families());
    let serve = |it| health::serve(it, Arc::clone(status), counters);
    let serve = match listener {
        Some(listener) => {
            tokio::spawn(serve(listener));
            None
        }
        None => Some(serve),
    };
    let does_only_iptables = trial::wait(status).await;
    let alone = alone::wait(&options.run_dir, status).await?;
    // Whatever was in the way until now is no longer.
    status.set_unready(Readiness::Syncing);
    if let Some(serve) = serve {
        let bound = listen_after_other(options.listen).await?;
        bound.map(|listener| tokio::spawn(serve(listener)));
    }
    // What the other policyd has written is there by now.
    let kind = if does_only_iptables { Kind::Iptables } else { options.kind()? };
    Ok((kind, programs, alone))
}

fn config(options: &Run, node: String, notices: mpsc::Sender<Notice>) -> Config {
    let (settings, gate) = (options.settings(), options.gate == Switch::On);
    let of_cluster = options.manifests.is_none();
    // No object tells them where there is no cluster.
    let addresses = if of_cluster { Ok(Vec::new()) } else { node_network::uplink_addresses() };
    let addresses = addresses.unwrap_or_else(|error| {
        let error = policyd::chain(&error);
        tracing::warn!(error, "whether a range of pods holds an address of the node is not known");
        Vec::new()
    });
    Config { node, settings, of_cluster, gate, addresses, notices }
}

/// Shows the CNI plugin that policyd is there, for as long as the agent's loop goes round.
async fn show_alive(file: PathBuf, status: Arc<Status>) {
    let mut interval = interval(ALIVE);
    let mut was_shown = true;
    loop {
        interval.tick().await;
        if !status.is_alive() {
            continue;
        }
        let shown = attachment::show_alive(&file);
        if let Err(error) = &shown
            && was_shown
        {
            tracing::warn!("{}; the CNI plugin will hold policyd to be away", chain(error));
        }
        was_shown = shown.is_ok();
    }
}

/// Sends what the folder or the API server has, and tells the latter what is wrong with it. Without end: what fails is tried again.
async fn source(
    options: Run,
    node: String,
    events: mpsc::Sender<Event>,
    asked: mpsc::Receiver<NamespacedName>,
    notices: mpsc::Receiver<Notice>,
    members: Option<watch::Sender<Option<Arc<Members>>>>,
    status: &Status,
) -> Result<(), cluster::Error> {
    if let Some(dir) = options.manifests {
        let folder = Folder { dir, node: Node { name: node, ..Node::default() } };
        let defective = |count| status.metrics.found_defective_manifests(count);
        folder.run(events, |report| tracing::warn!("{report}"), defective).await;
        return Ok(());
    }
    let client = cluster::connect(options.kubeconfig.as_deref()).await?;
    tokio::spawn(Recorder::new(client.clone(), node.clone()).run(notices));
    let report = |report: &api_server::Report| tracing::warn!("{}", policyd::chain(report));
    let nodes = async {
        let report = |error: &cluster::Error| tracing::warn!("{}", policyd::chain(error));
        if let Some(members) = members {
            node_network::watch(client.clone(), members, report).await;
        }
    };
    let server = ApiServer::new(client.clone(), node);
    join3(server.answer(asked, &events), server.run(events.clone(), report), nodes).await;
    Ok(())
}
