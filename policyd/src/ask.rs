//! What is asked of policyd once: `explain` and `lint`.

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use policyd::World;
use policyd::explain::{End, Query, Traffic, explain};
use policyd::lint::{Severity, lint};
use policyd::source::api_server::{self, ApiServer};
use policyd::source::folder::Folder;
use policyd::source::{Node, snapshot};
use tokio::sync::mpsc;

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
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let Self { from, to, port, manifests, kubeconfig, output } = self;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let world = runtime.block_on(world(manifests, kubeconfig))?;
        let traffic = port.unwrap_or(Traffic::Any);
        let report = explain(&world, &Query { from, to, traffic })?;
        let text = match output {
            Output::Text => report.to_string(),
            Output::Json => serde_json::to_string_pretty(&report)? + "\n",
        };
        print(&text)?;
        Ok(ExitCode::SUCCESS)
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

/// The objects as they are now.
async fn world(manifests: Option<PathBuf>, kubeconfig: Option<PathBuf>) -> Result<World, Failure> {
    let (events, mut received) = mpsc::channel(64);
    let source = async {
        match manifests {
            Some(dir) => {
                let folder = Folder { dir, node: Node::default() };
                folder.run(events, |report| complain(report)).await;
            }
            None => {
                let client = cluster::connect(kubeconfig.as_deref()).await?;
                // Which node this is does not matter.
                let tell = |report: &api_server::Report| match report {
                    api_server::Report::NoNode(_) => {}
                    report => complain(report),
                };
                ApiServer::new(client, String::new()).run(events, tell).await;
            }
        }
        Ok::<_, Failure>(())
    };
    let answer = async {
        tokio::select! {
            Err(error) = source => Err(error),
            world = snapshot(&mut received) => Ok(world),
        }
    };
    let world = tokio::time::timeout(PATIENCE, answer).await;
    let world = world.map_err(|_| format!("no objects came within {} s", PATIENCE.as_secs()))??;
    Ok(world.ok_or("the source of the objects ended")?)
}

/// The exit code of a question. Why there is no answer goes to the standard error, as it is: these
/// are for people at a terminal, and keep no log.
pub(crate) fn told(answer: Result<ExitCode, Failure>) -> ExitCode {
    answer.unwrap_or_else(|error| {
        complain(&policyd::chain(&*error));
        ExitCode::FAILURE
    })
}

fn complain(report: &dyn std::fmt::Display) {
    // Whoever closed it does not want to be told.
    _ = writeln!(io::stderr(), "{report}");
}

fn print(text: &str) -> io::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
