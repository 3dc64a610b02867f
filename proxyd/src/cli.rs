//! The command line. What kube-proxy has too is named as there.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use cluster::LogFormat;
use cluster::health::{Listen, parse_listen};
use ipnetwork::IpNetwork;
use proxyd::agent::Addresses;
use proxyd::conntrack_parameters::{Parameters, parse_seconds};
use proxyd::nftables::{Local, Scheduler, Settings};

/// Services of Kubernetes by nf_tables.
#[derive(Debug, Parser)]
#[command(name = "proxyd", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: Run,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Remove all services from the kernel; proxyd must not be running.
    Cleanup,
    /// Remove what kube-proxy has left in the kernel; proxyd must serve already, and kube-proxy no more be running.
    Takeover,
}

/// What a running proxyd is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Run {
    /// Read Services and EndpointSlices from this folder, and need no cluster.
    #[arg(long, value_name = "DIR")]
    pub(crate) manifests: Option<PathBuf>,
    /// How to reach the API server [default: the pod's own service account].
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Name of this node, as the cluster knows it [default: its host name].
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub(crate) node_name: Option<String>,
    /// Address of this node that has node ports, where no cluster tells it; repeat it for others.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) node_address: Vec<IpAddr>,
    /// Which addresses of this node have node ports: "primary", those that the cluster knows it by; "all", those of its
    /// interfaces, but link-local ones; "localhost", 127.0.0.1 for the node itself; or those of its interfaces that are in a
    /// range. Repeat it for others.
    #[arg(long, value_name = "WHICH", value_delimiter = ',', default_value = "primary")]
    pub(crate) nodeport_addresses: Vec<Addresses>,
    /// Where /healthz, /readyz and /metrics are served: ADDRESS:PORT, PORT, or "off".
    #[arg(long, value_name = "WHERE", default_value = "10256", value_parser = parse_listen)]
    pub(crate) listen: Listen,
    /// How log lines are written.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) log_format: Format,
    #[command(flatten)]
    conntrack: Conntrack,
    #[command(flatten)]
    rules: Rules,
}

/// Parameters of connection tracking.
#[derive(Debug, Clone, Copy, Args)]
struct Conntrack {
    /// How many connections are tracked for each core, at least; 0 leaves that as it is.
    #[arg(long, value_name = "COUNT", default_value_t = 32_768)]
    conntrack_max_per_core: u32,
    /// And on all cores together.
    #[arg(long, value_name = "COUNT", default_value_t = 131_072)]
    conntrack_min: u32,
    /// How long a connection of TCP is known over which nothing comes; 0 leaves that as it is.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_seconds)]
    conntrack_tcp_timeout_established: Duration,
    /// The same after one side has said that it has ended.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_seconds)]
    conntrack_tcp_timeout_close_wait: Duration,
}

/// What the rules depend on.
#[derive(Debug, Clone, Args)]
struct Rules {
    /// Bit of packet marks that has a sender hidden behind the node's address.
    #[arg(long, value_name = "BIT", default_value_t = 14, value_parser = clap::value_parser!(u32).range(0..32))]
    iptables_masquerade_bit: u32,
    /// Hide whoever connects to a service's address in the cluster.
    #[arg(long)]
    masquerade_all: bool,
    /// Range of the cluster's pods; repeat it for the other family. Who connects to a service from elsewhere is hidden, so that
    /// answers come back by this node.
    #[arg(long, value_name = "CIDR", value_delimiter = ',', conflicts_with_all = ["pod_bridge_interface", "pod_interface_name_prefix"])]
    cluster_cidr: Vec<IpNetwork>,
    /// The same by the bridge that pods are behind.
    #[arg(long, value_name = "NAME", conflicts_with = "pod_interface_name_prefix")]
    pod_bridge_interface: Option<String>,
    /// The same by what the names of pods' interfaces begin with.
    #[arg(long, value_name = "PREFIX")]
    pod_interface_name_prefix: Option<String>,
    /// Range that services' addresses are from; repeat it for the other family. What goes to one that no service has is dropped.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    service_cidr: Vec<IpNetwork>,
    /// Let packets through that belong to no connection.
    #[arg(long)]
    conntrack_tcp_be_liberal: bool,
    /// How the endpoint of a new connection is chosen: as chance has it, or by the client's address.
    #[arg(long, value_enum, default_value_t = Choice::Random)]
    scheduler: Choice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Choice {
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

impl Run {
    pub(crate) const fn conntrack_parameters(&self) -> Parameters {
        Parameters {
            max_per_core: self.conntrack.conntrack_max_per_core,
            min: self.conntrack.conntrack_min,
            tcp_established: self.conntrack.conntrack_tcp_timeout_established,
            tcp_close_wait: self.conntrack.conntrack_tcp_timeout_close_wait,
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        let rules = self.rules.clone();
        let local = match (rules.pod_bridge_interface, rules.pod_interface_name_prefix) {
            (Some(name), _) => Local::Interface(name),
            (None, Some(prefix)) => Local::Interfaces(prefix),
            (None, None) if rules.cluster_cidr.is_empty() => Local::Unknown,
            (None, None) => Local::Ranges(rules.cluster_cidr),
        };
        Settings {
            masquerade_mark: 1 << rules.iptables_masquerade_bit,
            masquerades_all: rules.masquerade_all,
            local,
            service_ranges: rules.service_cidr,
            drops_invalid: !rules.conntrack_tcp_be_liberal,
            scheduler: rules.scheduler.into(),
            guards_localhost: self.nodeport_addresses.iter().any(|it| it.is_of_localhost()),
        }
    }
}
