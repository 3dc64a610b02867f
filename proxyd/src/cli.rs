//! The command line. What kube-proxy has too is named as there.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use cluster::LogFormat;
use cluster::health::{Listen, parse_listen};
use ipnetwork::IpNetwork;
use proxyd::agent::Addresses;
use proxyd::conntrack_parameters::parse_seconds;
use proxyd::metrics::MOST_COUNTERS;
use proxyd::nftables::Scheduler;

use crate::ask::Explain;

/// Services of Kubernetes by nf_tables.
#[derive(Debug, Parser)]
#[command(name = "proxyd", version, args_conflicts_with_subcommands = false)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: Run,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Remove all services from the kernel; not while proxyd runs.
    Cleanup(Cleanup),
    /// Remove what kube-proxy has left in the kernel; proxyd must serve already, and kube-proxy no more be running.
    Takeover,
    /// Tell what becomes of a connection to an address and port, and why. The options that proxyd runs with go before
    /// the word explain. Exits 0 with the answer, whatever it is, and 1 without. With --live 0 means that the kernel of
    /// this node holds what was compared, 3 that it holds something else.
    Explain(Explain),
}

/// What cleanup is told.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Cleanup {
    /// While proxyd runs, wait for its end.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Wait to be told to end when all is removed: a pod that runs tells of a clean node. No proxyd writes meanwhile.
    #[arg(long)]
    pub(crate) stay: bool,
}

/// What a running proxyd is told. What is `None` the configuration file may say; else there is a default.
#[derive(Debug, Clone, Args)]
pub(crate) struct Run {
    /// kube-proxy's configuration file. Flags count before what it says.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Read Services and EndpointSlices from this folder, and need no cluster.
    #[arg(long, value_name = "DIR")]
    pub(crate) manifests: Option<PathBuf>,
    /// How to reach the API server [default: the pod's own service account].
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Name of this node, as the cluster knows it [default: its host name].
    #[arg(long, value_name = "NAME", env = "NODE_NAME", visible_alias = "hostname-override")]
    pub(crate) node_name: Option<String>,
    /// Address of this node, instead of those of its family that the cluster tells; repeat it for others.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) node_address: Vec<IpAddr>,
    /// Which addresses of this node have node ports: "primary", those that the cluster knows it by; "all", those of its
    /// interfaces, but link-local ones; "localhost", 127.0.0.1 for the node itself; or those of its interfaces that are in a
    /// range. Repeat it for others [default: primary].
    #[arg(long, value_name = "WHICH", value_delimiter = ',')]
    pub(crate) nodeport_addresses: Option<Vec<Addresses>>,
    /// Where /healthz, /livez, /readyz and /metrics are served, as soon as nobody else is there, such as kube-proxy: ADDRESS:PORT,
    /// PORT, or "off" [default: 10256].
    #[arg(long, value_name = "WHERE", value_parser = parse_listen, visible_alias = "healthz-bind-address")]
    pub(crate) listen: Option<Listen>,
    /// Where they are served as well, and /metrics alone: ADDRESS:PORT, PORT, or "off" [default: off].
    #[arg(long, value_name = "WHERE", value_parser = parse_listen)]
    pub(crate) metrics_bind_address: Option<Listen>,
    /// How many ports of Services have a counter of their own in /metrics; the connections to all others are counted
    /// together. 0 counts none.
    #[arg(long, value_name = "COUNT", default_value_t = MOST_COUNTERS)]
    pub(crate) service_counters: usize,
    /// Once proxyd serves and kube-proxy has ended on this node, remove what that has left, as "proxyd takeover" does.
    #[arg(long)]
    pub(crate) takeover: bool,
    /// The kernel's parameters of the network, for who cannot write those in /proc/sys (in a container).
    #[arg(long, value_name = "DIR", default_value = "/proc/sys/net")]
    pub(crate) proc_sys_net: PathBuf,
    /// How log lines are written.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) log_format: Format,
    #[command(flatten)]
    pub(crate) conntrack: Conntrack,
    #[command(flatten)]
    pub(crate) pods: Pods,
    #[command(flatten)]
    pub(crate) rules: Rules,
}

/// Parameters of connection tracking.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Conntrack {
    /// How many connections are tracked for each core, at least; 0 leaves that as it is [default: 32768].
    #[arg(long, value_name = "COUNT")]
    pub(crate) conntrack_max_per_core: Option<u32>,
    /// And on all cores together [default: 131072].
    #[arg(long, value_name = "COUNT")]
    pub(crate) conntrack_min: Option<u32>,
    /// How long a connection of TCP is known over which nothing comes; 0 leaves that as it is [default: 24h].
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    pub(crate) conntrack_tcp_timeout_established: Option<Duration>,
    /// The same after one side has said that it has ended [default: 1h].
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    pub(crate) conntrack_tcp_timeout_close_wait: Option<Duration>,
    /// The same of UDP, which nobody has answered [default: 0].
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    pub(crate) conntrack_udp_timeout: Option<Duration>,
    /// The same of UDP, where both sides have sent more than once [default: 0].
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    pub(crate) conntrack_udp_timeout_stream: Option<Duration>,
    /// Take packets of TCP for parts of their connections wherever in it they should be, and let those through that belong to
    /// none.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) conntrack_tcp_be_liberal: Option<bool>,
}

/// How the cluster's pods are known. Who connects to a service from elsewhere is hidden, so that answers come back by this node.
#[derive(Debug, Clone, Args)]
pub(crate) struct Pods {
    /// By what pods are known, where it is not clear by the next three.
    #[arg(long, value_name = "MODE", value_enum, requires_ifs = [
        ("ClusterCIDR", "cluster_cidr"),
        ("BridgeInterface", "pod_bridge_interface"),
        ("InterfaceNamePrefix", "pod_interface_name_prefix"),
    ])]
    pub(crate) detect_local_mode: Option<Mode>,
    /// Range of the cluster's pods; repeat it for the other family.
    #[arg(long, value_name = "CIDR", value_delimiter = ',', conflicts_with_all = ["pod_bridge_interface", "pod_interface_name_prefix"])]
    pub(crate) cluster_cidr: Vec<IpNetwork>,
    /// The bridge that pods are behind.
    #[arg(long, value_name = "NAME", value_parser = parse_interface, conflicts_with = "pod_interface_name_prefix")]
    pub(crate) pod_bridge_interface: Option<String>,
    /// What the names of pods' interfaces begin with.
    #[arg(long, value_name = "PREFIX", value_parser = parse_interface)]
    pub(crate) pod_interface_name_prefix: Option<String>,
}

/// An interface's name, or its beginning.
fn parse_interface(text: &str) -> Result<String, &'static str> {
    let is_of_name = |it: char| it.is_ascii_graphic() && it != '/';
    // `IFNAMSIZ` is 16, with the zero at the end.
    let is_right = (1..16).contains(&text.len()) && text.chars().all(is_of_name);
    is_right.then(|| text.to_owned()).ok_or("no name of an interface (1 to 15 letters)")
}

/// What the rules depend on.
#[derive(Debug, Clone, Args)]
pub(crate) struct Rules {
    /// Bit of packet marks that has a sender hidden behind the node's address [default: 14].
    #[arg(long, value_name = "BIT", value_parser = clap::value_parser!(u32).range(0..32))]
    pub(crate) iptables_masquerade_bit: Option<u32>,
    /// Hide whoever connects to a service's address in the cluster.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) masquerade_all: Option<bool>,
    /// Range that services' addresses are from; repeat it for the other family. What goes to one that no service has, nor the node, and
    /// that nobody else translates, is dropped.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub(crate) service_cidr: Vec<IpNetwork>,
    /// How the endpoint of a new connection is chosen: as chance has it, or by the client's address [default: random].
    #[arg(long, value_name = "HOW", value_enum)]
    pub(crate) scheduler: Option<Choice>,
}

/// As kube-proxy writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(crate) enum Mode {
    #[value(name = "ClusterCIDR")]
    ClusterCidr,
    /// By the ranges of this node's own pods.
    #[value(name = "NodeCIDR")]
    NodeCidr,
    BridgeInterface,
    InterfaceNamePrefix,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    Random,
    /// As IPVS calls it.
    #[value(alias = "sh")]
    SourceHash,
}

impl From<Choice> for Scheduler {
    fn from(choice: Choice) -> Self {
        match choice {
            Choice::Random => Self::Random,
            Choice::SourceHash => Self::SourceHash,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

impl From<Format> for LogFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Text => Self::Text,
            Format::Json => Self::Json,
        }
    }
}
