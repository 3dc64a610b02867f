//! What flags and the configuration file say together: what a flag says counts, then what the file says. kube-proxy passes over
//! flags where it is given a file.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use cluster::health::Listen;
use proxyd::agent::Addresses;
use proxyd::config_file::{self, ConfigFile, Pods};
use proxyd::conntrack_parameters::Parameters;
use proxyd::nftables::{Local, Scheduler, Settings};

use crate::cli::{self, Mode, Run};

/// Where health checks are answered (`ProxyHealthzPort`), at all addresses.
const HEALTHZ: Listen = Listen::At(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 10256));
/// kube-proxy's defaults.
const CONNTRACK_MAX_PER_CORE: u32 = 32_768;
const CONNTRACK_MIN: u32 = 131_072;
const TCP_ESTABLISHED: Duration = Duration::from_hours(24);
const TCP_CLOSE_WAIT: Duration = Duration::from_hours(1);
const MASQUERADE_BIT: u32 = 14;

/// What holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) manifests: Option<PathBuf>,
    pub(crate) kubeconfig: Option<PathBuf>,
    pub(crate) node_name: Option<String>,
    pub(crate) node_addresses: BTreeSet<IpAddr>,
    pub(crate) nodeport_addresses: Vec<Addresses>,
    /// Where is listened.
    pub(crate) listen: Listen,
    /// And where as well.
    pub(crate) metrics: Listen,
    /// How many ports of services have a counter of their own.
    pub(crate) service_counters: usize,
    /// Whether what kube-proxy has left is to go.
    pub(crate) takeover: bool,
    /// Where the kernel's parameters of the network are.
    pub(crate) proc_sys_net: PathBuf,
    pub(crate) conntrack: Parameters,
    pub(crate) pods: Pods,
    /// How services are written, but for how pods are known.
    pub(crate) settings: Settings,
}

impl Options {
    pub(crate) fn of(flags: Run, file: ConfigFile) -> Self {
        let (rules, conntrack) = (flags.rules, flags.conntrack);
        let primary = || vec![Addresses::Primary];
        let nodeport_addresses =
            flags.nodeport_addresses.or(file.nodeport_addresses).unwrap_or_else(primary);
        let tcp_be_liberal =
            conntrack.conntrack_tcp_be_liberal.or(file.conntrack.tcp_be_liberal).unwrap_or(false);
        let bit = rules.iptables_masquerade_bit.or(file.masquerade_bit).unwrap_or(MASQUERADE_BIT);
        let scheduler = rules.scheduler.map(Scheduler::from).or(file.scheduler);
        let settings = Settings {
            masquerade_mark: 1 << bit,
            masquerades_all: rules.masquerade_all.or(file.masquerades_all).unwrap_or(false),
            local: Local::Unknown,
            service_ranges: rules.service_cidr,
            drops_invalid: !tcp_be_liberal,
            scheduler: scheduler.unwrap_or(Scheduler::Random),
            guards_localhost: nodeport_addresses.iter().any(|it| it.is_of_localhost()),
        };
        let given: BTreeSet<_> = flags.node_address.into_iter().collect();
        let of_file = file.node_address.into_iter();
        Self {
            manifests: flags.manifests,
            kubeconfig: flags.kubeconfig.or(file.kubeconfig),
            node_name: flags.node_name.or(file.node_name),
            node_addresses: if given.is_empty() { of_file.collect() } else { given },
            nodeport_addresses,
            listen: flags.listen.or(file.healthz).unwrap_or(HEALTHZ),
            metrics: flags.metrics_bind_address.or(file.metrics).unwrap_or(Listen::Off),
            service_counters: flags.service_counters,
            takeover: flags.takeover,
            proc_sys_net: flags.proc_sys_net,
            conntrack: parameters(conntrack, file.conntrack, tcp_be_liberal),
            pods: pods(flags.pods).or(file.pods).unwrap_or(Pods::By(Local::Unknown)),
            settings,
        }
    }
}

fn parameters(
    flags: cli::Conntrack,
    file: config_file::Conntrack,
    tcp_be_liberal: bool,
) -> Parameters {
    let established = flags.conntrack_tcp_timeout_established.or(file.tcp_established);
    let close_wait = flags.conntrack_tcp_timeout_close_wait.or(file.tcp_close_wait);
    let udp_stream = flags.conntrack_udp_timeout_stream.or(file.udp_stream);
    let max_per_core = flags.conntrack_max_per_core.or(file.max_per_core);
    Parameters {
        max_per_core: max_per_core.unwrap_or(CONNTRACK_MAX_PER_CORE),
        min: flags.conntrack_min.or(file.min).unwrap_or(CONNTRACK_MIN),
        tcp_established: established.unwrap_or(TCP_ESTABLISHED),
        tcp_close_wait: close_wait.unwrap_or(TCP_CLOSE_WAIT),
        udp: flags.conntrack_udp_timeout.or(file.udp).unwrap_or_default(),
        udp_stream: udp_stream.unwrap_or_default(),
        tcp_be_liberal,
    }
}

/// What flags say of pods: all of it, or nothing.
fn pods(flags: cli::Pods) -> Option<Pods> {
    if flags.detect_local_mode == Some(Mode::NodeCidr) {
        return Some(Pods::OfNode);
    }
    let ranges = Some(flags.cluster_cidr).filter(|it| !it.is_empty()).map(Local::Ranges);
    let bridge = flags.pod_bridge_interface.map(Local::Interface);
    bridge.or(flags.pod_interface_name_prefix.map(Local::Interfaces)).or(ranges).map(Pods::By)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    fn options(flags: &[&str], file: ConfigFile) -> Options {
        Options::of(Cli::try_parse_from([&["proxyd"], flags].concat()).unwrap().run, file)
    }

    fn parsed(text: &str) -> ConfigFile {
        let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
        config_file::parse(&format!("{head}{text}")).unwrap().config
    }

    #[test]
    fn where_nothing_is_said_it_is_as_kube_proxy_has_it() {
        let options = options(&[], ConfigFile::default());
        assert_eq!(options.settings, Settings::default());
        assert_eq!(options.nodeport_addresses, [Addresses::Primary]);
        assert_eq!(options.listen, Listen::At("[::]:10256".parse().unwrap()));
        assert_eq!(options.metrics, Listen::Off);
        assert_eq!(options.pods, Pods::By(Local::Unknown));
        let parameters = options.conntrack;
        assert_eq!((parameters.max_per_core, parameters.min), (32_768, 131_072));
        assert_eq!(parameters.tcp_established, Duration::from_hours(24));
        assert!(parameters.udp.is_zero() && !parameters.tcp_be_liberal);
    }

    #[test]
    fn flags_count_before_the_file_each_for_itself() {
        let file = || {
            parsed(
                "clusterCIDR: 10.9.0.0/16\nhostnameOverride: of-file\nbindAddress: 192.0.2.9\n\
                 nodePortAddresses: [all]\nhealthzBindAddress: 127.0.0.1:1\nmode: ipvs\n\
                 metricsBindAddress: 127.0.0.1:2\nipvs: {scheduler: sh}\n\
                 iptables: {masqueradeAll: true, masqueradeBit: 3}\n\
                 conntrack: {min: 5, maxPerCore: 0, tcpBeLiberal: true, udpTimeout: 30s}\n",
            )
        };
        let of_file = options(&[], file());
        assert_eq!(of_file.node_addresses, ["192.0.2.9".parse().unwrap()].into());
        assert_eq!(of_file.nodeport_addresses, [Addresses::All]);
        assert_eq!(of_file.pods, Pods::By(Local::Ranges(vec!["10.9.0.0/16".parse().unwrap()])));
        let at = |port| Listen::At(SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!((of_file.listen, of_file.metrics), (at(1), at(2)));
        let settings = of_file.settings;
        assert_eq!((settings.masquerade_mark, settings.masquerades_all), (8, true));
        assert_eq!((settings.scheduler, settings.drops_invalid), (Scheduler::SourceHash, false));
        let flags = [
            "--masquerade-all=false",
            "--iptables-masquerade-bit=4",
            "--conntrack-min=6",
            "--conntrack-tcp-be-liberal=false",
            "--hostname-override=of-flag",
            "--node-address=192.0.2.8",
            "--pod-interface-name-prefix=cali",
            "--scheduler=random",
            "--nodeport-addresses=localhost,192.0.2.0/24",
            "--listen=off",
        ];
        let both = options(&flags, file());
        let settings = both.settings;
        assert_eq!((settings.masquerade_mark, settings.masquerades_all), (16, false));
        assert_eq!((settings.scheduler, settings.drops_invalid), (Scheduler::Random, true));
        assert!(settings.guards_localhost);
        assert_eq!(both.node_name.as_deref(), Some("of-flag"));
        assert_eq!(both.node_addresses, ["192.0.2.8".parse().unwrap()].into());
        assert_eq!(both.pods, Pods::By(Local::Interfaces("cali".to_owned())));
        assert_eq!((both.listen, both.metrics), (Listen::Off, at(2)));
        let parameters = both.conntrack;
        assert_eq!((parameters.min, parameters.max_per_core), (6, 0));
        assert_eq!((parameters.udp, parameters.tcp_be_liberal), (Duration::from_secs(30), false));
    }

    #[test]
    fn how_pods_are_known_flags_say_as_kube_proxys() {
        let pods = |flags: &[&str]| options(flags, ConfigFile::default()).pods;
        let bridge = Pods::By(Local::Interface("br0".to_owned()));
        let by_bridge = ["--detect-local-mode=BridgeInterface", "--pod-bridge-interface=br0"];
        assert_eq!((pods(&by_bridge), pods(&by_bridge[1..])), (bridge.clone(), bridge));
        assert_eq!(pods(&["--detect-local-mode=NodeCIDR"]), Pods::OfNode);
        for wrong in [
            &by_bridge[..1],
            &["--detect-local-mode=nodecidr"],
            &["--detect-local-mode=ClusterCIDR"],
            &["--cluster-cidr=10.0.0.0/8", "--pod-bridge-interface=br0"],
            &["--pod-bridge-interface="],
            &["--pod-interface-name-prefix="],
            &["--pod-interface-name-prefix=a-name-of-16-bytes"],
        ] {
            assert!(Cli::try_parse_from([&["proxyd"], wrong].concat()).is_err(), "{wrong:?}");
        }
        let words = ["--masquerade-all", "--conntrack-tcp-be-liberal"];
        let settings = options(&words, ConfigFile::default()).settings;
        assert!(settings.masquerades_all && !settings.drops_invalid);
    }
}
