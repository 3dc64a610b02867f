//! The command line.

mod masquerade;
mod node_network;

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use cluster::LogFormat;
use cluster::health::{Listen, parse_listen};
use ipnetwork::IpNetwork;
use netlink::has_bridge_netfilter;
use policyd::dataplane::{Error, Kind};
use policyd::iptables::{Marks, Settings};

pub(crate) use node_network::NodeNetwork;

use crate::ask::{Explain, Lint};

/// NetworkPolicy as per-pod chains of nf_tables or iptables, and the node's masquerading.
#[derive(Debug, Parser)]
#[command(name = "policyd", version, args_conflicts_with_subcommands = false)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: Run,
}

impl Cli {
    /// What the program was started with; it ends where that makes no sense.
    pub(crate) fn read() -> Self {
        let cli = Self::parse();
        let Run { mark_allowed, mark_rejected, .. } = cli.run;
        if mark_allowed == mark_rejected {
            let problem = format!(
                "--mark-allowed and --mark-rejected are both {mark_allowed:#x}: one bit cannot say two things"
            );
            Self::command().error(ErrorKind::ArgumentConflict, problem).exit();
        }
        cli
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Remove everything of policyd's from the kernel; it must not be running. The options that it ran with
    /// go before the word cleanup (--run-dir, --cni-conf-dir, --cni-conf-name).
    Cleanup(Cleanup),
    /// Have the node forward packets of these families, as --node-network needs it. For a container
    /// that may write /proc/sys, ahead of policyd's, which may not.
    EnableForwarding {
        /// The families.
        #[arg(required = true, value_enum, value_name = "FAMILY")]
        families: Vec<IpFamily>,
    },
    /// Take policyd away from the cluster: delete its DaemonSet, and wait until another, whose pods run
    /// `cleanup`, is ready on every node. For a job of the cluster.
    Uninstall(Uninstall),
    /// Tell whether the kernel has all that the rules need: one of every kind is tried, in a network
    /// namespace made for it. Exits 1 when it has not, 3 when it cannot be tried.
    Preflight,
    /// Tell whether traffic is allowed, and the path to that verdict. Exits 0 with the verdict, whatever
    /// it is, and 1 without. With --live 0 means that the kernel of this node holds what was compared, 3
    /// that it holds something else.
    Explain(Explain),
    /// Tell what in manifests is wrong, or valid and probably not meant.
    Lint(Lint),
}

/// What cleanup is told.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Cleanup {
    /// Also the files: the list that tells the container runtime to use podwire, in whose place comes
    /// what was there before, so that the node may have no network for new pods then; and what the CNI
    /// plugin told of pods. And what podwire's other plugins keep in the kernel for pods, of those that run
    /// as well: published ports, limits, and what lets their packets pass.
    #[arg(long)]
    pub(crate) all: bool,
    /// While policyd runs, wait for its end.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Wait to be told to end when all is removed: a pod that runs tells of a clean node.
    #[arg(long)]
    pub(crate) stay: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum IpFamily {
    Ipv4,
    Ipv6,
}

/// What uninstall is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Uninstall {
    /// The namespace of both [default: the pod's own].
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// The DaemonSet of policyd; repeat it for others that go with it.
    #[arg(long, value_name = "NAME", default_value = "policyd")]
    pub(crate) daemon_set: Vec<String>,
    /// The DaemonSet whose pods clean their node and then stay.
    #[arg(long, value_name = "NAME", default_value = "podwire-cleanup")]
    pub(crate) cleanup: String,
}

/// What a running policyd is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Run {
    /// Read Pods, Namespaces and NetworkPolicies from this folder, and need no cluster.
    #[arg(long, value_name = "DIR")]
    pub(crate) manifests: Option<PathBuf>,
    /// How to reach the API server [default: the pod's own service account].
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Name of this node, as in spec.nodeName of its pods [default: its host name].
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub(crate) node_name: Option<String>,
    /// Range of this node's pods; repeat it for the other family. With a cluster, spec.podCIDRs of
    /// the node are added.
    #[arg(long, value_name = "CIDR", value_parser = parse_range)]
    pub(crate) pod_cidr: Vec<IpNetwork>,
    /// Whether an address of a pod range passes only once its rules are in place.
    #[arg(long, value_enum, default_value_t = Switch::On)]
    pub(crate) gate: Switch,
    /// Whether flows that began when they were allowed are cut when they are no longer.
    #[arg(long, value_enum, default_value_t = Switch::On)]
    pub(crate) cut_flows: Switch,
    /// How the kernel is told: auto takes nf_tables where the kernel has it, and iptables where this node
    /// already holds policyd's rules of that. Rules of the other one go once these are in force.
    #[arg(long, value_enum, default_value_t = Backend::Auto, env = "POLICYD_BACKEND")]
    pub(crate) backend: Backend,
    /// What happens to what no policy allows.
    #[arg(long, value_enum, default_value_t = Deny::Drop)]
    pub(crate) deny: Deny,
    /// Log what no policy allows: some packets of each pod and direction, which the kernel copies to
    /// this group of its log (NFLOG).
    #[arg(long, value_name = "GROUP", num_args = 0..=1, require_equals = true,
        default_missing_value = "11", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) log_denied: Option<u16>,
    /// Bit of packet marks for what a policy allows.
    #[arg(long, value_name = "BIT", value_parser = parse_bit, default_value = "0x400")]
    pub(crate) mark_allowed: u32,
    /// Bit of packet marks for what is rejected.
    #[arg(long, value_name = "BIT", value_parser = parse_bit, default_value = "0x800")]
    pub(crate) mark_rejected: u32,
    /// Bit of connection marks for flows that are no longer allowed.
    #[arg(long, value_name = "BIT", value_parser = parse_bit, default_value = "0x400")]
    pub(crate) mark_cut: u32,
    /// Where /healthz, /readyz and /metrics are served: ADDRESS:PORT, PORT, or "off".
    #[arg(long, value_name = "WHERE", default_value = "9099", value_parser = parse_listen)]
    pub(crate) listen: Listen,
    /// Folder of the socket that the CNI plugin podwire-policy calls, and of what it told.
    #[arg(long, value_name = "DIR", default_value = "/run/podwire")]
    pub(crate) run_dir: PathBuf,
    /// How log lines are written.
    #[arg(long, default_value = "text", value_parser = PossibleValuesParser::new(LogFormat::NAMES).try_map(|it| it.parse::<LogFormat>()))]
    pub(crate) log_format: LogFormat,
    #[command(flatten)]
    pub(crate) masquerade: masquerade::Masquerade,
    #[command(flatten)]
    pub(crate) network: node_network::NodeNetwork,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    Auto,
    Nftables,
    Iptables,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Deny {
    /// It is lost.
    Drop,
    /// The sender is told so.
    Reject,
}

impl Run {
    /// By which way the kernel is told, as the node is now.
    pub(crate) fn kind(&self) -> Result<Kind, Error> {
        match self.given_kind() {
            Some(kind) => Ok(kind),
            // Rules of iptables have the kernel load what shows them the frames of bridges; by nf_tables nothing does.
            None if self.network.joins_by_bridge() && !has_bridge_netfilter() => {
                Ok(Kind::held()?.unwrap_or(Kind::Iptables))
            }
            None => Kind::of_node(),
        }
    }

    /// The same, where it was said and does not depend on the node.
    pub(crate) const fn given_kind(&self) -> Option<Kind> {
        match self.backend {
            Backend::Nftables => Some(Kind::Nftables),
            Backend::Iptables => Some(Kind::Iptables),
            Backend::Auto => None,
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            marks: Marks {
                allowed: self.mark_allowed,
                rejected: self.mark_rejected,
                cut: self.mark_cut,
            },
            cuts_flows: self.cut_flows == Switch::On,
            rejects: self.deny == Deny::Reject,
            log_group: self.log_denied,
            gated: self.pod_cidr.clone(),
        }
    }
}

fn parse_range(text: &str) -> Result<IpNetwork, String> {
    let range: IpNetwork =
        text.parse().map_err(|_| "no range of addresses (10.244.1.0/24)".to_owned())?;
    if range.prefix() == 0 {
        return Err("a range of all addresses".to_owned());
    }
    IpNetwork::new(range.network(), range.prefix()).map_err(|error| error.to_string())
}

fn parse_bit(text: &str) -> Result<u32, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    match number {
        Ok(bit) if bit.is_power_of_two() => Ok(bit),
        _ => Err("not a number with one bit set (0x400)".to_owned()),
    }
}
