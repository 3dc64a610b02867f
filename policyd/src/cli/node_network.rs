//! What is told of the node's network.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use policyd::dataplane::Programs;
use policyd::node_network::conflist::{self, Main};
use policyd::node_network::{ConfDir, Keeper, Options};
use runner::OsRunner;
use serde_json::Value;

/// The node's own network.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Node network")]
pub(crate) struct NodeNetwork {
    /// Keep the node's network: routes to the pods of all other nodes, forwarding, and the list that
    /// tells the container runtime to use podwire. Needs an API server.
    #[arg(long, conflicts_with = "manifests")]
    pub(crate) node_network: bool,
    /// The folder that the container runtime reads its networks from.
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    cni_conf_dir: PathBuf,
    /// The list's file there. The runtime takes the first by name.
    #[arg(long, value_name = "NAME", default_value = "10-podwire.conflist", value_parser = parse_name)]
    cni_conf_name: String,
    /// How pods are joined to the node.
    #[arg(long, value_enum, default_value_t = Plugin::Ptp)]
    cni_plugin: Plugin,
    /// A plugin between that one and podwire-policy: a name, or a JSON object; repeat it for more.
    #[arg(long, value_name = "PLUGIN", value_parser = parse_plugin)]
    cni_chained: Vec<Value>,
    /// The MTU of pods [default: that of the link that has the node's InternalIP].
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(576..=65535))]
    cni_mtu: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Plugin {
    /// By a link and a route for each.
    Ptp,
    /// By a bridge.
    Bridge,
}

impl NodeNetwork {
    /// Who keeps it.
    pub(crate) fn keeper(&self, node: String, programs: Programs<OsRunner>) -> Keeper<OsRunner> {
        let options = Options {
            node,
            conf_dir: self.conf_dir(),
            main: match self.cni_plugin {
                Plugin::Ptp => Main::Ptp,
                Plugin::Bridge => Main::Bridge,
            },
            chained: self.cni_chained.clone(),
            mtu: self.cni_mtu,
        };
        Keeper::new(options, programs)
    }

    /// Whether it joins pods by a bridge.
    pub(crate) fn joins_by_bridge(&self) -> bool {
        self.node_network && self.cni_plugin == Plugin::Bridge
    }

    /// The runtime's folder.
    pub(crate) fn conf_dir(&self) -> ConfDir {
        ConfDir::new(&self.cni_conf_dir, &self.cni_conf_name)
    }
}

fn parse_plugin(text: &str) -> Result<Value, String> {
    conflist::chained(text).map_err(|error| error.to_string())
}

fn parse_name(text: &str) -> Result<String, String> {
    let is_list = text.ends_with(".conflist") && !text.contains('/') && !text.starts_with('.');
    if is_list { Ok(text.to_owned()) } else { Err("not the name of a .conflist".to_owned()) }
}
