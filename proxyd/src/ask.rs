//! What is asked of proxyd once: `explain`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use cluster::{Explained, complain, folder, node_name};
use netlink::Socket;
use proxyd::agent::Addresses;
use proxyd::explain::{Query, Who, World, explain};
use proxyd::live::{Kernel, Live, compare};
use proxyd::nftables::{Local, Settings};
use proxyd::plan::At;
use proxyd::source::api_server;
use tokio::sync::{Notify, mpsc};

use crate::cli::Run;
use crate::options::Options;
use crate::run::{self, Failure, Source, known};

/// Listing tens of thousands of Services takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// What becomes of a connection.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// To what: ADDRESS:PORT, which is of TCP, or with /udp or /sctp behind it. An address of IPv6 in brackets.
    #[arg(value_name = "ADDRESS:PORT")]
    to: At,
    /// Who connects: an address, or pod, node or outside [default: all who fare differently].
    #[arg(long, value_name = "WHO")]
    from: Option<Who>,
    /// Folder of manifests [default: the cluster's API server].
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// How to reach the API server [default: the pod's own service account].
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Also compare what the kernel of this node holds: the connection is followed through the tables that are there.
    /// Nothing is changed, and proxyd may run or not.
    #[arg(long)]
    live: bool,
    /// How the answer is written.
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
    pub(crate) fn run(self, flags: Run) -> Result<ExitCode, Failure> {
        let Self { to, from, manifests, kubeconfig, live, output } = self;
        let mut options = run::options(flags)?;
        options.manifests = manifests.or(options.manifests);
        options.kubeconfig = kubeconfig.or(options.kubeconfig);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut world = runtime.block_on(world(&options))?;
        let mut query = Query { to, from: from.unwrap_or(Who::Anybody) };
        if live {
            let addresses = Socket::open()?.all_addresses()?;
            world.know_own(addresses.iter().map(|it| it.cidr.ip()));
            find_interface(&mut query, &world)?;
        }
        let report = explain(&world, &query)?;
        let live = live
            .then(|| Ok::<_, Failure>(compare(&world, &query, &Kernel::read(&query)?)?))
            .transpose()?;
        Explained { report, live }.print(output == Output::Json, Live::holds)
    }
}

/// Where pods are known by it, the interface that packets come by from whoever is asked about: the one that answers
/// go to.
fn find_interface(query: &mut Query, world: &World) -> Result<(), Failure> {
    let by_interface = matches!(world.settings().local, Local::Interface(_) | Local::Interfaces(_));
    if let Who::Address { address, interface } = &mut query.from
        && by_interface
    {
        let mut socket = Socket::open()?;
        let link = match socket.route_to(*address)? {
            Some(route) => socket.link_by_index(route.link)?,
            None => None,
        };
        *interface = Some(link.map(|it| it.name).unwrap_or_default());
    }
    Ok(())
}

/// The objects as they are now, as this node sees them.
async fn world(options: &Options) -> Result<World, Failure> {
    let (events, mut received) = mpsc::channel(64);
    let (unknown, bad) = (Notify::new(), Notify::new());
    let answer = async {
        let source = Source::of(options).await?;
        let settings = Settings { local: known(&options.pods), ..options.settings.clone() };
        let with_addresses = |node| Addresses::of_node(&options.nodeport_addresses, node);
        let told = async {
            match source {
                Source::Folder(folder) => {
                    let tell = |report: &folder::Report| {
                        complain(report);
                        if report.hides_objects() {
                            bad.notify_one();
                        }
                    };
                    folder.run(events, tell, |_| ()).await;
                }
                Source::ApiServer(server) => {
                    let tell = |report: &api_server::Report| match report {
                        api_server::Report::NoNode(_) => unknown.notify_one(),
                        report => complain(&cluster::chain(report)),
                    };
                    server.run(events, tell, |_| ()).await;
                }
            }
            Err("the source of the objects ended".into())
        };
        tokio::select! {
            // What is told of the objects counts before the objects.
            biased;
            ended = told => ended,
            () = unknown.notified() => Err(api_server::Report::NoNode(node_name(options.node_name.as_deref())?).into()),
            () = bad.notified() => {
                Err("there is no answer, as nobody knows what all manifests should say".into())
            }
            Some(world) = World::gather(&mut received, settings, with_addresses) => Ok(world),
        }
    };
    let told = tokio::time::timeout(PATIENCE, answer).await;
    told.map_err(|_| format!("not all objects came within {} s", PATIENCE.as_secs()))?
}
