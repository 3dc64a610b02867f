//! Putting the parts of proxyd together.

use std::error::Error;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cluster::health::{self, Answer, Listen, OneAtATime};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use proxyd::agent::{self, Addresses, Inputs, Readiness, Status};
use proxyd::config_file::{self, ConfigFile, Parsed, Pods};
use proxyd::conntrack_parameters::{self, Parameters};
use proxyd::counters::Reader;
use proxyd::dataplane::Dataplane;
use proxyd::index::Event;
use proxyd::localhost;
use proxyd::metrics::Metrics;
use proxyd::nftables::{Local, Settings};
use proxyd::plan::Node;
use proxyd::source::api_server::{ApiServer, Report};
use proxyd::source::folder::Folder;
use proxyd::sysctl::Unchanged;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::alone::{Alone, SIGN};
use crate::cli::Run;
use crate::options::Options;
use crate::{reload, taking_over};

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// As many events wait while the loop is at others: a source that is faster waits too.
const MOST_WAITING_EVENTS: usize = 1024;
/// How often is looked whether services are in the kernel.
const PAUSE: Duration = Duration::from_millis(200);
/// An API server that is reached tells its objects within this time.
const SILENCE: Duration = Duration::from_secs(15);
/// How often a place is asked for that another process has.
const PLACE_PAUSE: Duration = Duration::from_secs(1);

/// Serves until it is told to end.
pub(crate) fn run(flags: Run) -> Result<(), Failure> {
    cluster::start_log(flags.log_format.into());
    let options = options(flags.clone())?;
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(serve(options, &flags));
    // Nothing that still blocks may hold up the end: what it does is bounded, and can be repeated.
    runtime.shutdown_background();
    result
}

/// What flags and the configuration file say together.
pub(crate) fn options(flags: Run) -> Result<Options, Failure> {
    let file = flags.config.as_deref().map(read_config).transpose()?;
    Ok(Options::of(flags, file.unwrap_or_default()))
}

/// Each port for health checks is an open file: there may be as many as whoever started us allows. What is less than that is
/// for programs that call `select`.
fn raise_open_files() {
    let limits = getrlimit(Resource::RLIMIT_NOFILE);
    let raised = limits.and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// What kube-proxy's configuration file says; what of it has no effect is told.
fn read_config(file: &Path) -> Result<ConfigFile, Failure> {
    let Parsed { config, unused, unknown } = config_file::read(file)?;
    let file = file.display();
    for field in unused {
        tracing::info!("{file}: {field} has no effect: proxyd makes no use of it");
    }
    for field in unknown {
        tracing::warn!("{file}: {field} has no effect: there is no such field (is it misspelt?)");
    }
    Ok(config)
}

/// IPv4, and IPv6 where the kernel has it.
pub(crate) fn families() -> Vec<bool> {
    let has_ipv6 = Path::new("/proc/sys/net/ipv6").exists();
    [true, false].into_iter().filter(|is_ipv4| *is_ipv4 || has_ipv6).collect()
}

async fn serve(options: Options, flags: &Run) -> Result<(), Failure> {
    let at_start = options.clone();
    let status = Arc::new(Status::new(Metrics::counting(options.service_counters)));
    let mut told_to_end = pin!(cluster::told_to_end()?);
    // One at a time is on its way.
    let (readings, read) = mpsc::channel(1);
    let counted = if options.service_counters > 0 { families() } else { Vec::new() };
    let has_place = listen(&options, &status, &Reader::new(counted, readings)).await?;
    let source = Source::of(&options).await?;
    let _alone = tokio::select! {
        alone = alone(&status) => alone?,
        () = &mut told_to_end => return Ok(()),
    };
    if options.manifests.is_none() && options.kubeconfig.is_none() {
        tokio::spawn(tell_of_silence(Arc::clone(&status)));
    }
    let (events, received) = mpsc::channel(MOST_WAITING_EVENTS);
    let (stop, shutdown) = watch::channel(false);
    let network = options.proc_sys_net;
    let serves_localhost = options.settings.guards_localhost;
    let guards_localhost = serves_localhost || !is_localhost_closed(&network);
    let local = known(&options.pods);
    let settings = Settings { local, guards_localhost, ..options.settings };
    let dataplane = Dataplane::open(&settings, &families())?;
    let parameters = set_parameters(options.conntrack, serves_localhost, network, status.clone());
    tokio::spawn(parameters);
    if options.takeover {
        tokio::spawn(taking_over::each_time(Arc::clone(&status), has_place));
    }
    let source = source.run(events, &status);
    let nodeport_addresses = options.nodeport_addresses;
    let inputs = Inputs { events: received, readings: read, shutdown };
    let agent = agent::run(dataplane, nodeport_addresses, inputs, Arc::clone(&status));
    let mut agent = pin!(agent);
    let why = tokio::select! {
        () = &mut agent => return Ok(()),
        () = source => Ok(()),
        () = told_to_end => Ok(()),
        changed = reload::changed(flags, &at_start) => Err(changed.into()),
    };
    tracing::info!("ending; services stay as they are");
    _ = stop.send(true);
    agent.await;
    why
}

/// Answers who asks for its health, wherever that is to be: where another process is, such as kube-proxy, once that has ended. What is
/// returned tells whether the first place is ours, where load balancers ask.
async fn listen(
    options: &Options,
    status: &Arc<Status>,
    counters: &Reader,
) -> Result<watch::Receiver<bool>, Failure> {
    let metrics = Some(options.metrics).filter(|it| *it != options.listen && *it != Listen::Off);
    let (tells_place, has_place) = watch::channel(false);
    let texts = OneAtATime::new();
    let places =
        [(Some(options.listen), Some(tells_place), metrics.is_none()), (metrics, None, true)];
    for (at, tells_place, has_metrics) in places {
        let Some(at) = at else { continue };
        let bound = match health::listen(at).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                tracing::warn!("{error}: it is tried until that is free");
                None
            }
            bound => Some(bound?),
        };
        // Where load balancers ask anybody may; who cares has metrics elsewhere.
        let metrics = has_metrics.then(|| (counters.clone(), texts.clone()));
        tokio::spawn(answer_at(at, bound, tells_place, Arc::clone(status), metrics));
    }
    Ok(has_place)
}

/// Answers at a place, which is `bound` already, or is when nobody else has it.
async fn answer_at(
    at: Listen,
    mut bound: Option<Option<TcpListener>>,
    tells_place: Option<watch::Sender<bool>>,
    status: Arc<Status>,
    metrics: Option<(Reader, OneAtATime)>,
) {
    let listener = loop {
        if let Some(listener) = bound {
            break listener;
        }
        sleep(PLACE_PAUSE).await;
        bound = health::listen(at).await.ok();
    };
    if let Some(tells_place) = &tells_place {
        tells_place.send_replace(true);
    }
    let Some(listener) = listener else { return };
    health::serve(listener, move |path| {
        let (status, metrics) = (Arc::clone(&status), metrics.clone());
        async move {
            let answer = match (path.as_str(), metrics) {
                ("/metrics", Some((counters, texts))) => {
                    texts.answer(text(Arc::clone(&status), counters)).await
                }
                (path, _) => answer(path, &status),
            };
            status.metrics.answered(&path, answer.code());
            answer
        }
    })
    .await;
}

/// The text of metrics.
async fn text(status: Arc<Status>, counters: Reader) -> Answer {
    // Before, nobody knows whose the places are that count.
    if status.readiness() != Readiness::Syncing {
        counters.refresh().await;
    }
    // Of many Services it is long, and the loop has to go on.
    Answer::metrics(blocking(move || status.metrics.text()).await)
}

/// Does what takes long in another thread.
pub(crate) async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(f).await {
        Ok(it) => it,
        // A panic, which is a bug.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Waits until no other proxyd writes. What keeps others from it.
async fn alone(status: &Status) -> Result<Alone, Failure> {
    let why = format!(
        "another proxyd, or its cleanup, runs on this node ({SIGN}): this one waits for its end"
    );
    let mut is_told = false;
    let alone = Alone::later(|| {
        if !is_told {
            tracing::warn!("{why}");
            is_told = true;
        }
        status.set(Readiness::Failing(why.clone()));
        status.beat();
    })
    .await?;
    status.set(Readiness::Syncing);
    Ok(alone)
}

/// What a proxyd before this one has opened is closed again. Whether nothing of that is left, as far as the kernel tells: where it
/// does not, it does not take services either, and the loop tells why.
fn is_localhost_closed(network: &Path) -> bool {
    let dataplane = Dataplane::open(&Settings::default(), &[]);
    if !dataplane.and_then(|mut it| it.guards_localhost()).unwrap_or(true) {
        return true;
    }
    let closed = localhost::route(network, false);
    let warn = |it: &Unchanged| tracing::warn!("{}; what guards it stays too", cluster::chain(it));
    closed.inspect_err(warn).is_ok()
}

/// Sets the kernel's parameters once services are in it: before, it may not track connections, and have none of them; and
/// nothing guards what one of them opens.
async fn set_parameters(
    conntrack: Parameters,
    serves_localhost: bool,
    network: PathBuf,
    status: Arc<Status>,
) {
    while status.readiness() != Readiness::Ready {
        sleep(PAUSE).await;
    }
    let folder = network.join(conntrack_parameters::FOLDER);
    let mut unchanged = conntrack.apply(&folder, conntrack_parameters::cores());
    if serves_localhost {
        unchanged.extend(localhost::route(&network, true).err());
    }
    for it in unchanged {
        tracing::warn!("{}", cluster::chain(&it));
    }
}

/// A pod is told the address of the API server's Service, which leads nowhere where it is proxyd that should serve it.
async fn tell_of_silence(status: Arc<Status>) {
    sleep(SILENCE).await;
    if status.readiness() == Readiness::Syncing {
        let host = std::env::var("KUBERNETES_SERVICE_HOST").unwrap_or_default();
        tracing::warn!(
            "not all objects are known yet of the API server at {host} (KUBERNETES_SERVICE_HOST): where no kube-proxy runs, proxyd has to be told its own address, not that of the Service kubernetes (docs/proxyd.md)"
        );
    }
}

/// Where objects come from.
pub(crate) enum Source {
    Folder(Folder),
    ApiServer(ApiServer),
}

impl Source {
    pub(crate) async fn of(options: &Options) -> Result<Self, Failure> {
        let name = cluster::node_name(options.node_name.as_deref())?;
        let addresses = options.node_addresses.clone();
        let is_of_node = options.pods == Pods::OfNode;
        if let Some(dir) = options.manifests.clone() {
            if is_of_node {
                return Err("the ranges of the node's pods (NodeCIDR) only a cluster tells".into());
            }
            let has_addresses =
                !addresses.is_empty() || options.nodeport_addresses != [Addresses::Primary];
            if !has_addresses {
                tracing::warn!(
                    "no address of this node is told: node ports are not served (--node-address, or --nodeport-addresses other than primary)"
                );
            }
            let node = Node { name, addresses, ..Node::default() };
            return Ok(Self::Folder(Folder { dir, node }));
        }
        let client = cluster::connect(options.kubeconfig.as_deref()).await?;
        let server = ApiServer::new(client, name, addresses);
        Ok(Self::ApiServer(if is_of_node { server.knowing_pods_by_node() } else { server }))
    }

    /// Sends what there is. Without end: what fails is tried again.
    async fn run(self, events: mpsc::Sender<Event>, status: &Status) {
        match self {
            Self::Folder(folder) => {
                let defective = |count| status.metrics.found_defective_manifests(count);
                let report = |report: &cluster::folder::Report| tracing::warn!("{report}");
                folder.run(events, report, defective).await;
            }
            Self::ApiServer(it) => it.run(events, warn, |it| status.set_eligible(it)).await,
        }
    }
}

/// How pods are known. Where the node's object says it there are no rules before that was read.
pub(crate) fn known(pods: &Pods) -> Local {
    match pods {
        Pods::By(local) => local.clone(),
        Pods::OfNode => Local::Unknown,
    }
}

fn warn(report: &Report) {
    tracing::warn!("{}", cluster::chain(report));
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
        "/metrics" => Answer::not_found("metrics are at another place (--metrics-bind-address)\n"),
        _ => Answer::not_found("there are /healthz, /livez, /readyz and /metrics\n"),
    }
}
