//! What is asked of policyd once: `explain` and `lint`.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use cluster::{Explained, complain, folder, node_name, print};
use policyd::World;
use policyd::explain::{End, Query, Traffic, explain};
use policyd::lint::{Severity, lint};
use policyd::live::Live;
use policyd::source::api_server::{self, ApiServer};
use policyd::source::folder::Folder;
use policyd::source::{Node, snapshot};
use tokio::sync::{Notify, mpsc};

use crate::cli::Run;
use crate::compared;

type Failure = Box<dyn Error + Send + Sync>;

/// Listing 10,000 pods takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why traffic is allowed or denied.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// Who sends: NAMESPACE/POD, or an address.
    #[arg(long, value_name = "END")]
    from: End,
    /// Who is sent to: NAMESPACE/POD, or an address (of a pod, not of a Service).
    #[arg(long, value_name = "END")]
    to: End,
    /// What is sent: 80/TCP, 53/UDP, 80 (TCP) or icmp [default: anything; the open ports are told].
    #[arg(long, value_name = "PORT")]
    port: Option<Traffic>,
    /// Folder of manifests [default: the cluster's API server].
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// How to reach the API server [default: the pod's own service account].
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Also compare what the kernel of this node holds for the two: rules, sets, and whether ours come
    /// first. Nothing is changed, and policyd may run or not. The options that policyd runs with go
    /// before the word explain (--node-name, --pod-cidr, --deny, --mark-..., --run-dir).
    #[arg(long)]
    live: bool,
    /// How the answer is written.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// What in manifests is wrong, or valid and probably not meant.
#[derive(Debug, Args)]
pub(crate) struct Lint {
    /// Manifests: YAML, or JSON where the name ends so.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How the findings are written.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

impl Explain {
    /// Answers, whatever the answer is.
    pub(crate) fn run(self, options: &Run) -> Result<ExitCode, Failure> {
        let Self { from, to, port, manifests, kubeconfig, live, output } = self;
        let manifests = manifests.or_else(|| options.manifests.clone());
        let kubeconfig = kubeconfig.or_else(|| options.kubeconfig.clone());
        // Which node this is matters to the kernel's rules alone.
        let node = if live { Some(node_name(options.node_name.as_deref())?) } else { None };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut world, node) = runtime.block_on(world(manifests, kubeconfig, node))?;
        let traffic = port.unwrap_or(Traffic::Any);
        let query = Query { from, to, traffic };
        let (report, live) = match node {
            None => (explain(&world, &query)?, None),
            Some(node) => {
                let expected = compared::expected(options, world.clone(), &node)?;
                expected.tell_addresses(&mut world);
                let report = explain(&world, &query)?;
                let live = compared::compare(options, &node, &expected, &report)?;
                (report, Some(live))
            }
        };
        Explained { report, live }.print(output == Output::Json, Live::holds)
    }
}

impl Lint {
    /// Tells the findings; a failure when one of them is an error.
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let findings = lint(&self.files);
        let text = match self.output {
            Output::Text => findings.iter().map(|finding| format!("{finding}\n")).collect(),
            Output::Json => serde_json::to_string_pretty(&findings)? + "\n",
        };
        print(&text)?;
        let is_wrong = findings.iter().any(|finding| finding.severity == Severity::Error);
        Ok(if is_wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// The objects as they are now, and with the name of one, the node.
async fn world(
    manifests: Option<PathBuf>,
    kubeconfig: Option<PathBuf>,
    node: Option<String>,
) -> Result<(World, Option<Node>), Failure> {
    let (events, mut received) = mpsc::channel(64);
    let name = node.clone().unwrap_or_default();
    let (unknown, bad) = (Notify::new(), Notify::new());
    let source = async {
        match manifests {
            Some(dir) => {
                let folder = Folder { dir, node: Node { name, ..Node::default() } };
                let tell = |report: &folder::Report| {
                    complain(report);
                    if report.hides_objects() {
                        bad.notify_one();
                    }
                };
                folder.run(events, tell, |_| ()).await;
            }
            None => {
                let client = cluster::connect(kubeconfig.as_deref()).await?;
                let tell = |report: &api_server::Report| match report {
                    api_server::Report::NoNode(_) => unknown.notify_one(),
                    report => complain(report),
                };
                ApiServer::new(client, name).run(events, tell).await;
            }
        }
        Ok::<_, Failure>(())
    };
    let answer = async {
        tokio::select! {
            Err(error) = source => Err(error),
            () = unknown.notified(), if node.is_some() => {
                Err(api_server::Report::NoNode(node.clone().unwrap_or_default()).into())
            }
            () = bad.notified() => {
                Err("there is no verdict, as nobody knows what all manifests should say".into())
            }
            told = snapshot(&mut received, node.is_some()) => Ok(told),
        }
    };
    let told = tokio::time::timeout(PATIENCE, answer).await;
    let told =
        told.map_err(|_| format!("not all objects came within {} s", PATIENCE.as_secs()))??;
    let (world, told) = told.ok_or("the source of the objects ended")?;
    Ok((world, told.filter(|_| node.is_some())))
}
