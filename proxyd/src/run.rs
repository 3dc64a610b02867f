//! Putting the parts of proxyd together.

use std::error::Error;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cluster::LogFormat;
use cluster::health::{self, Answer};
use proxyd::agent::{self, Readiness, Status};
use proxyd::conntrack_parameters::{self, Parameters};
use proxyd::dataplane::Dataplane;
use proxyd::index::Event;
use proxyd::localhost;
use proxyd::metrics::Metrics;
use proxyd::nftables::Settings;
use proxyd::plan::Node;
use proxyd::source::api_server::{ApiServer, Report};
use proxyd::source::folder::Folder;
use proxyd::sysctl::Unchanged;
use proxyd::takeover::{self, Removed};
use runner::OsRunner;
use tokio::sync::{mpsc, watch};

use crate::cli::Run;

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// As many events wait while the loop is at others: a source that is faster waits too.
const MOST_WAITING_EVENTS: usize = 1024;
/// How often is looked whether services are in the kernel.
const PAUSE: Duration = Duration::from_millis(200);
/// The kernel's parameters of the network, those of the namespace of the process.
const NETWORK: &str = "/proc/sys/net";

/// Serves until it is told to end.
pub(crate) fn run(options: Run) -> Result<(), Failure> {
    cluster::start_log(options.log_format.into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(serve(options));
    // Nothing that still blocks may hold up the end: what it does is bounded, and can be repeated.
    runtime.shutdown_background();
    result
}

/// Removes all services from the kernel.
pub(crate) fn cleanup() -> Result<(), Failure> {
    cluster::start_log(LogFormat::Text);
    let mut dataplane = Dataplane::open(&Settings::default(), &[])?;
    // While that cannot be, what guards it stays, and so does the rest.
    if dataplane.guards_localhost()? {
        localhost::route(Path::new(NETWORK), false)?;
    }
    Ok(dataplane.remove()?)
}

/// Removes what kube-proxy has left in the kernel.
pub(crate) fn takeover() -> Result<(), Failure> {
    cluster::start_log(LogFormat::Text);
    let Removed { tables, chains, jumps } = takeover::run(&mut OsRunner, &families())?;
    tracing::info!(tables, chains, jumps, "what kube-proxy has left is removed");
    Ok(())
}

/// IPv4, and IPv6 where the kernel has it.
fn families() -> Vec<bool> {
    let has_ipv6 = Path::new("/proc/sys/net/ipv6").exists();
    [true, false].into_iter().filter(|is_ipv4| *is_ipv4 || has_ipv6).collect()
}

async fn serve(options: Run) -> Result<(), Failure> {
    let status = Arc::new(Status::new(Metrics::new()));
    let told_to_end = cluster::told_to_end()?;
    if let Some(listener) = health::listen_after_other(options.listen).await? {
        let status = Arc::clone(&status);
        tokio::spawn(health::serve(listener, move |path| {
            let answer = answer(&path, &status);
            async move { answer }
        }));
    }
    let (events, received) = mpsc::channel(MOST_WAITING_EVENTS);
    let (stop, shutdown) = watch::channel(false);
    let mut settings = options.settings();
    let serves_localhost = settings.guards_localhost;
    settings.guards_localhost = serves_localhost || !is_localhost_closed()?;
    let dataplane = Dataplane::open(&settings, &families())?;
    let parameters = options.conntrack_parameters();
    tokio::spawn(set_parameters(parameters, serves_localhost, Arc::clone(&status)));
    let source = source(&options, events, &status);
    let mut agent = pin!(agent::run(
        dataplane,
        options.nodeport_addresses.clone(),
        received,
        shutdown,
        Arc::clone(&status)
    ));
    tokio::select! {
        () = &mut agent => return Ok(()),
        ended = source => ended?,
        () = told_to_end => {}
    }
    tracing::info!("ending; services stay as they are");
    _ = stop.send(true);
    agent.await;
    Ok(())
}

/// What a proxyd before this one has opened is closed again. Whether nothing of that is left.
fn is_localhost_closed() -> Result<bool, Failure> {
    if !Dataplane::open(&Settings::default(), &[])?.guards_localhost()? {
        return Ok(true);
    }
    let closed = localhost::route(Path::new(NETWORK), false);
    let warn = |it: &Unchanged| tracing::warn!("{}; what guards it stays too", cluster::chain(it));
    Ok(closed.inspect_err(warn).is_ok())
}

/// Sets the kernel's parameters once services are in it: before, it may not track connections, and have none of them; and
/// nothing guards what one of them opens.
async fn set_parameters(conntrack: Parameters, serves_localhost: bool, status: Arc<Status>) {
    while status.readiness() != Readiness::Ready {
        tokio::time::sleep(PAUSE).await;
    }
    let network = Path::new(NETWORK);
    let folder = network.join(conntrack_parameters::FOLDER);
    let mut unchanged = conntrack.apply(&folder, conntrack_parameters::cores());
    if serves_localhost {
        unchanged.extend(localhost::route(network, true).err());
    }
    for it in unchanged {
        tracing::warn!("{}", cluster::chain(&it));
    }
}

/// Sends what the folder or the API server has. Without end: what fails is tried again.
async fn source(
    options: &Run,
    events: mpsc::Sender<Event>,
    status: &Status,
) -> Result<(), Failure> {
    let name = cluster::node_name(options.node_name.as_deref())?;
    if let Some(dir) = options.manifests.clone() {
        let addresses = options.node_address.iter().copied().collect();
        let node = Node { name, zone: None, addresses };
        let defective = |count| status.metrics.found_defective_manifests(count);
        let report = |report: &cluster::folder::Report| tracing::warn!("{report}");
        Folder { dir, node }.run(events, report, defective).await;
        return Ok(());
    }
    let client = cluster::connect(options.kubeconfig.as_deref()).await?;
    let report = |report: &Report| tracing::warn!("{}", cluster::chain(report));
    let eligible = |it| status.set_eligible(it);
    ApiServer::new(client, name).run(events, report, eligible).await;
    Ok(())
}

fn answer(path: &str, status: &Status) -> Answer {
    match path {
        "/healthz" => status.health(),
        "/livez" if status.is_alive() => Answer::ok("ok\n"),
        "/livez" => Answer::unavailable("the loop stands still\n"),
        "/readyz" => match status.readiness() {
            Readiness::Ready => Answer::ok("ok\n"),
            Readiness::Syncing => Answer::unavailable("not all objects are known yet\n"),
            Readiness::Failing(why) => Answer::unavailable(format!("{why}\n")),
        },
        "/metrics" => Answer::metrics(status.metrics.text()),
        _ => Answer::not_found("there are /healthz, /livez, /readyz and /metrics\n"),
    }
}
