//! kube-proxy's configuration file: what of it proxyd has a use for.
//!
//! It is of `kubeproxy.config.k8s.io/v1alpha1`, in YAML or JSON. What it does not say is `None`, as are Go's zeros where
//! kube-proxy has a default in their place. A field that nobody knows is no error: kube-proxy warns as well, and reads files of
//! other releases.

mod field;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster::health::Listen;
use serde_json::Value;

use crate::agent::Addresses;
use crate::model::Problem;
use crate::nftables::{Local, Scheduler};
use field::Field;

/// What such a file says it is.
const VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
const KIND: &str = "KubeProxyConfiguration";

/// `ProxyHealthzPort` and `ProxyStatusPort`: those of addresses that are told without one.
const HEALTHZ_PORT: u16 = 10256;
const METRICS_PORT: u16 = 10249;

/// What the file says, as far as it is of use here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigFile {
    /// `clientConnection.kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// `hostnameOverride`.
    pub node_name: Option<String>,
    /// `bindAddress`: the node's own, but for what is any address.
    pub node_address: Option<IpAddr>,
    /// `healthzBindAddress`.
    pub healthz: Option<Listen>,
    /// `metricsBindAddress`.
    pub metrics: Option<Listen>,
    /// `nodePortAddresses`, and `localhost` where `iptables.localhostNodePorts` asks for it, or not where it says no.
    pub nodeport_addresses: Option<Vec<Addresses>>,
    /// `detectLocalMode`, and what belongs to it.
    pub pods: Option<Pods>,
    /// `masqueradeBit` of the mode's section.
    pub masquerade_bit: Option<u32>,
    /// `masqueradeAll` of the mode's section.
    pub masquerades_all: Option<bool>,
    /// `ipvs.scheduler`, where that is the mode.
    pub scheduler: Option<Scheduler>,
    /// `conntrack`.
    pub conntrack: Conntrack,
}

/// `conntrack`. Of each 0 leaves the kernel's parameter as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Conntrack {
    /// `maxPerCore`.
    pub max_per_core: Option<u32>,
    /// `min`.
    pub min: Option<u32>,
    /// `tcpEstablishedTimeout`.
    pub tcp_established: Option<Duration>,
    /// `tcpCloseWaitTimeout`.
    pub tcp_close_wait: Option<Duration>,
    /// `udpTimeout`.
    pub udp: Option<Duration>,
    /// `udpStreamTimeout`.
    pub udp_stream: Option<Duration>,
    /// `tcpBeLiberal`.
    pub tcp_be_liberal: Option<bool>,
}

/// How the cluster's pods are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pods {
    /// By this.
    By(Local),
    /// By the ranges of the node's own pods, which its object tells (`NodeCIDR`).
    OfNode,
}

/// A file that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parsed {
    /// What it says.
    pub config: ConfigFile,
    /// Fields that say something of which proxyd makes no use.
    pub unused: Vec<String>,
    /// Fields that kube-proxy does not have.
    pub unknown: Vec<String>,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}", file.display())]
pub struct Error {
    /// It.
    pub file: PathBuf,
    /// Why.
    #[source]
    pub source: Wrong,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    /// It cannot be read.
    #[error("cannot be read")]
    Unreadable(#[source] io::Error),
    /// It is neither YAML nor JSON.
    #[error("is no YAML")]
    Syntax(#[source] Box<serde_saphyr::Error>),
    /// It is something else.
    #[error("is {0}, not {VERSION} {KIND}")]
    Kind(String),
    /// A field is wrong.
    #[error(transparent)]
    Field(#[from] Problem),
}

/// What is of no use, by its path. Of what is an object all of it is.
const UNUSED: [&str; 29] = [
    "bindAddressHardFail",
    "clientConnection.acceptContentTypes",
    "clientConnection.burst",
    "clientConnection.contentType",
    "clientConnection.qps",
    "configSyncPeriod",
    "enableProfiling",
    "featureGates",
    "iptables.localhostNodePorts",
    "iptables.masqueradeAll",
    "iptables.masqueradeBit",
    "iptables.minSyncPeriod",
    "iptables.syncPeriod",
    "ipvs.excludeCIDRs",
    "ipvs.minSyncPeriod",
    "ipvs.scheduler",
    "ipvs.strictARP",
    "ipvs.syncPeriod",
    "ipvs.tcpFinTimeout",
    "ipvs.tcpTimeout",
    "ipvs.udpTimeout",
    "logging",
    "nftables.masqueradeAll",
    "nftables.masqueradeBit",
    "nftables.minSyncPeriod",
    "nftables.syncPeriod",
    "oomScoreAdj",
    "portRange",
    "showHiddenMetricsForVersion",
];
/// The same, of Windows.
const UNUSED_OF_WINDOWS: [&str; 2] = ["windowsRunAsService", "winkernel"];
/// Fields that are objects with fields of use.
const GROUPS: [&str; 6] =
    ["clientConnection", "conntrack", "detectLocal", "iptables", "ipvs", "nftables"];

/// `mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Mode {
    /// What kube-proxy takes where nothing is said.
    #[default]
    Iptables,
    Ipvs,
    Nftables,
}

impl Mode {
    /// The section that says how is masqueraded.
    const fn section(self) -> &'static str {
        match self {
            Self::Iptables | Self::Ipvs => "iptables",
            Self::Nftables => "nftables",
        }
    }
}

/// Reads a file.
///
/// # Errors
/// [`Error`].
pub fn read(file: &Path) -> Result<Parsed, Error> {
    let text = fs::read_to_string(file).map_err(Wrong::Unreadable);
    text.and_then(|it| parse(&it)).map_err(|source| Error { file: file.to_owned(), source })
}

/// Reads its text.
///
/// # Errors
/// [`Wrong`]; of several fields that are wrong the first.
pub fn parse(text: &str) -> Result<Parsed, Wrong> {
    let document: Value =
        serde_saphyr::from_str(text).map_err(|error| Wrong::Syntax(Box::new(error)))?;
    let named = |field: &str| document.get(field).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (named("apiVersion"), named("kind"));
    let Some(fields) = document.as_object().filter(|_| (version, kind) == (VERSION, KIND)) else {
        let found = format!("{version} {kind}");
        let found = if found.trim().is_empty() { "something else" } else { found.trim() };
        return Err(Wrong::Kind(found.to_owned()));
    };
    let mut reader = Reader::default();
    if let Some(value) = fields.get("mode") {
        reader.mode = mode(&Field { path: "mode", value })?;
    }
    for (key, value) in fields {
        reader.take(&Field { path: key, value })?;
    }
    reader.finish()
}

fn mode(field: &Field<'_>) -> Result<Mode, Problem> {
    match field.text()? {
        None | Some("iptables") => Ok(Mode::Iptables),
        Some("ipvs") => Ok(Mode::Ipvs),
        Some("nftables") => Ok(Mode::Nftables),
        Some(_) => Err(field.problem("iptables, ipvs or nftables")),
    }
}

#[derive(Default)]
struct Reader {
    parsed: Parsed,
    mode: Mode,
    detection: Option<String>,
    ranges: Option<Local>,
    bridge: Option<String>,
    prefix: Option<String>,
    localhost: Option<bool>,
}

impl Reader {
    /// Takes in a field, and all that it holds.
    fn take(&mut self, field: &Field<'_>) -> Result<(), Problem> {
        if self.takes_use(field)? {
            return Ok(());
        }
        let Field { path, value } = *field;
        if GROUPS.contains(&path) {
            for (key, value) in field.object()?.into_iter().flatten() {
                self.take(&Field { path: &format!("{path}.{key}"), value })?;
            }
        } else if UNUSED.contains(&path) || UNUSED_OF_WINDOWS.contains(&path) {
            self.parsed.unused.extend((!field::says_nothing(value)).then(|| path.to_owned()));
        } else {
            self.parsed.unknown.push(path.to_owned());
        }
        Ok(())
    }

    /// Takes in a field that is of use; whether it is one.
    fn takes_use(&mut self, field: &Field<'_>) -> Result<bool, Problem> {
        let config = &mut self.parsed.config;
        match field.path {
            "apiVersion" | "kind" => {}
            // There is one way here, whatever is said.
            "mode" if self.mode == Mode::Nftables => {}
            "mode" => {
                self.parsed.unused.extend(field.text()?.is_some().then(|| field.path.to_owned()));
            }
            "clientConnection.kubeconfig" => config.kubeconfig = field.text()?.map(PathBuf::from),
            "hostnameOverride" => config.node_name = node_name(field.text()?),
            "bindAddress" => {
                config.node_address = field.address()?.filter(|it| !it.is_unspecified());
            }
            "healthzBindAddress" => config.healthz = field.place(HEALTHZ_PORT)?,
            "metricsBindAddress" => config.metrics = field.place(METRICS_PORT)?,
            "nodePortAddresses" => config.nodeport_addresses = field.addresses()?,
            "clusterCIDR" => self.ranges = field.ranges()?.map(Local::Ranges),
            "detectLocalMode" => self.detection = field.text()?.map(str::to_owned),
            "detectLocal.bridgeInterface" => self.bridge = field.text()?.map(str::to_owned),
            "detectLocal.interfaceNamePrefix" => self.prefix = field.text()?.map(str::to_owned),
            "conntrack.maxPerCore" => config.conntrack.max_per_core = field.count()?,
            "conntrack.min" => config.conntrack.min = field.count()?,
            "conntrack.tcpEstablishedTimeout" => config.conntrack.tcp_established = field.span()?,
            "conntrack.tcpCloseWaitTimeout" => config.conntrack.tcp_close_wait = field.span()?,
            "conntrack.udpTimeout" => config.conntrack.udp = field.span()?,
            "conntrack.udpStreamTimeout" => config.conntrack.udp_stream = field.span()?,
            "conntrack.tcpBeLiberal" => config.conntrack.tcp_be_liberal = field.truth()?,
            "iptables.localhostNodePorts" if self.mode == Mode::Iptables => {
                self.localhost = field.truth()?;
            }
            "ipvs.scheduler" if self.mode == Mode::Ipvs && field.text()? == Some("sh") => {
                config.scheduler = Some(Scheduler::SourceHash);
            }
            path => match path.strip_prefix(self.mode.section()) {
                Some(".masqueradeBit") => config.masquerade_bit = field.bit()?,
                Some(".masqueradeAll") => config.masquerades_all = field.truth()?,
                _ => return Ok(false),
            },
        }
        Ok(true)
    }

    /// What several fields say together.
    fn finish(self) -> Result<Parsed, Wrong> {
        let mut parsed = self.parsed;
        let needed = |value: Option<String>, path: &str| {
            let problem = || Problem {
                field: path.to_owned(),
                value: String::new(),
                wanted: "what detectLocalMode needs",
            };
            value.ok_or_else(problem)
        };
        parsed.config.pods = match self.detection.as_deref() {
            None | Some("ClusterCIDR") => self.ranges.map(Pods::By),
            Some("NodeCIDR") => Some(Pods::OfNode),
            Some("BridgeInterface") => {
                let name = needed(self.bridge, "detectLocal.bridgeInterface")?;
                Some(Pods::By(Local::Interface(name)))
            }
            Some("InterfaceNamePrefix") => {
                let prefix = needed(self.prefix, "detectLocal.interfaceNamePrefix")?;
                Some(Pods::By(Local::Interfaces(prefix)))
            }
            Some(other) => {
                let wanted = "ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix";
                let (field, value) = ("detectLocalMode".to_owned(), other.to_owned());
                return Err(Problem { field, value, wanted }.into());
            }
        };
        let addresses = &mut parsed.config.nodeport_addresses;
        match (self.localhost, addresses) {
            (Some(true), None) => {
                parsed.config.nodeport_addresses =
                    Some(vec![Addresses::Primary, Addresses::Localhost]);
            }
            (Some(true), Some(addresses)) if addresses.iter().any(|it| spans_localhost(*it)) => {
                addresses.push(Addresses::Localhost);
            }
            (Some(false), Some(addresses)) => addresses.retain(|it| !it.is_of_localhost()),
            _ => {}
        }
        Ok(parsed)
    }
}

/// Whether 127.0.0.1 is among them as kube-proxy sees it, though nothing names it.
fn spans_localhost(addresses: Addresses) -> bool {
    match addresses {
        Addresses::Primary | Addresses::Localhost => false,
        Addresses::All => true,
        Addresses::Range(range) => {
            range.contains(Ipv4Addr::LOCALHOST.into()) && !addresses.is_of_localhost()
        }
    }
}

/// As kube-proxy takes it (`nodeutil.GetHostname`).
fn node_name(text: Option<&str>) -> Option<String> {
    text.map(|it| it.trim().to_lowercase()).filter(|it| !it.is_empty())
}
