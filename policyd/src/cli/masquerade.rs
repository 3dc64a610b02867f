//! What is told of masquerading. The flags are named as ip-masq-agent's.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use policyd::dataplane::{Kind, Programs};
use policyd::masquerade::{Agent, Options, PortRanges};
use runner::OsRunner;

/// Masquerading of what leaves the cluster by this node.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Masquerading")]
pub(crate) struct Masquerade {
    /// Masquerade what leaves the cluster by this node.
    #[arg(long)]
    pub(crate) masquerade: bool,
    /// Configuration, as ip-masq-agent's; where there is none, its defaults hold.
    #[arg(long, value_name = "FILE", default_value = "/etc/config/ip-masq-agent")]
    masquerade_config: PathBuf,
    #[command(flatten)]
    switches: Switches,
    /// Source ports of TCP, UDP and SCTP: outside of those of Services' NodePorts.
    #[arg(long, value_name = "RANGES", default_value_t)]
    to_ports: PortRanges,
}

/// Each can be given with or without a value, as Go's programs take them.
#[derive(Debug, Clone, Args)]
struct Switches {
    /// Leave all reserved ranges of IPv4 alone by default, not the private ones only.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value_t = false, default_missing_value = "true")]
    nomasq_all_reserved_ranges: bool,
    /// Masquerade IPv6 too.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value_t = false, default_missing_value = "true")]
    enable_ipv6: bool,
    /// Choose source ports at random.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value_t = true, default_missing_value = "true")]
    random_fully: bool,
}

impl Masquerade {
    /// Who does it, by this way.
    pub(crate) fn agent(&self, kind: Kind, programs: Programs<OsRunner>) -> Agent<OsRunner> {
        let Self { masquerade: _, masquerade_config, switches, to_ports } = self.clone();
        let options = Options {
            spare_reserved_ranges: switches.nomasq_all_reserved_ranges,
            ipv6: switches.enable_ipv6,
            random_fully: switches.random_fully,
            to_ports,
        };
        Agent::new(&masquerade_config, options, kind, programs)
    }
}
