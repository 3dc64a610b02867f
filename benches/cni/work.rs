//! What is measured.

use std::ops::Range;

use serde_json::{Value, json};

use crate::contestant::Contestant;

/// A plugin with a configuration, and what is chained to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Work {
    /// Name in the report.
    pub(crate) title: &'static str,
    /// The plugin.
    pub(crate) plugin: &'static str,
    /// How the floor calls it; `None` where there is no floor.
    pub(crate) floor: Option<&'static str>,
    /// Addresses of both families.
    pub(crate) is_dual: bool,
    /// By what is masqueraded.
    pub(crate) masquerade: Option<&'static str>,
    /// Leases that are there already.
    pub(crate) leases: u32,
    /// Plugins that are chained to it.
    pub(crate) chained: &'static [&'static str],
    /// By what those of them make rules that can do it by either.
    pub(crate) backend: &'static str,
    /// Whether only the chained plugins are measured: what they are chained to prepares the pod.
    pub(crate) is_first_apart: bool,
    /// Pods that are there already.
    pub(crate) pods: u16,
    /// Ports that those publish, all in all.
    pub(crate) published: u16,
}

/// A plugin of a work, with its configuration as it stands in a list.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) plugin: &'static str,
    pub(crate) conf: Value,
    pub(crate) is_measured: bool,
}

/// Name of the network in every configuration.
pub(crate) const NETWORK: &str = "bench";

/// The port of the host that a measured pod publishes, and that of the pod's own.
pub(crate) const HOST_PORT: u16 = 8080;
pub(crate) const POD_PORT: u16 = 80;
/// The first port that pods publish which are there already.
const FIRST_PORT: u16 = 10_000;

/// What is asked of bandwidth, in bits a second: what the pod may be sent, and what it may send.
pub(crate) const INGRESS_RATE: u64 = 200_000_000;
pub(crate) const EGRESS_RATE: u64 = 100_000_000;
/// What may be sent at once, in bits.
const BURST: u64 = 4_000_000;

const BASE: Work = Work {
    title: "",
    plugin: "bridge",
    floor: None,
    is_dual: false,
    masquerade: None,
    leases: 0,
    chained: &[],
    backend: "",
    is_first_apart: false,
    pods: 1,
    published: 1,
};

pub(crate) const BRIDGE: Work =
    Work { title: "bridge + host-local, IPv4", floor: Some("bridge-v4"), ..BASE };
pub(crate) const BRIDGE_DUAL: Work = Work {
    title: "bridge + host-local, dual-stack",
    floor: Some("bridge-dual"),
    is_dual: true,
    ..BASE
};
pub(crate) const BRIDGE_MASQUERADE: Work = Work {
    title: "bridge + host-local, IPv4, ipMasq (iptables)",
    masquerade: Some("iptables"),
    ..BASE
};
pub(crate) const BRIDGE_NFTABLES: Work = Work {
    title: "bridge + host-local, IPv4, ipMasq (nf_tables)",
    masquerade: Some("nftables"),
    ..BASE
};
pub(crate) const PTP: Work =
    Work { title: "ptp + host-local, IPv4", plugin: "ptp", floor: Some("ptp-v4"), ..BASE };
pub(crate) const PTP_DUAL: Work = Work {
    title: "ptp + host-local, dual-stack",
    plugin: "ptp",
    floor: Some("ptp-dual"),
    is_dual: true,
    ..BASE
};
pub(crate) const LOOPBACK: Work =
    Work { title: "loopback", plugin: "loopback", floor: Some("loopback"), ..BASE };
pub(crate) const FEW_LEASES: Work = Work {
    title: "host-local alone, 10 leases",
    plugin: "host-local",
    floor: Some("host-local"),
    leases: 10,
    ..BASE
};
pub(crate) const MANY_LEASES: Work =
    Work { title: "host-local alone, 10,000 leases", leases: 10_000, ..FEW_LEASES };

const CHAINED: Work = Work { is_first_apart: true, ..BASE };
pub(crate) const PORTMAP_IPTABLES: Work = Work {
    title: "portmap, one port (iptables)",
    chained: &["portmap"],
    backend: "iptables",
    ..CHAINED
};
pub(crate) const PORTMAP_NFTABLES: Work =
    Work { title: "portmap, one port (nf_tables)", backend: "nftables", ..PORTMAP_IPTABLES };
pub(crate) const PORTMAP_QUIET: Work = Work {
    title: "portmap, one port, beside 20 pods with one port (nf_tables)",
    pods: 20,
    ..PORTMAP_NFTABLES
};
pub(crate) const PORTMAP_CROWDED: Work = Work {
    title: "portmap, one port, beside 20 pods with 2,000 ports (nf_tables)",
    published: 2000,
    ..PORTMAP_QUIET
};
pub(crate) const FIREWALL_IPTABLES: Work =
    Work { title: "firewall (iptables)", chained: &["firewall"], backend: "iptables", ..CHAINED };
pub(crate) const FIREWALL_NFTABLES: Work =
    Work { title: "firewall (nf_tables; Go: iptables)", backend: "nftables", ..FIREWALL_IPTABLES };
pub(crate) const TUNING: Work = Work { title: "tuning", chained: &["tuning"], ..CHAINED };
pub(crate) const BANDWIDTH: Work = Work { title: "bandwidth", chained: &["bandwidth"], ..CHAINED };
pub(crate) const SBR: Work = Work { title: "sbr", chained: &["sbr"], ..CHAINED };
/// As engines have it by default; the bridge masquerades.
pub(crate) const CHAIN_IPTABLES: Work = Work {
    title: "bridge + portmap + firewall + tuning + bandwidth (iptables)",
    masquerade: Some("iptables"),
    chained: &["portmap", "firewall", "tuning", "bandwidth"],
    backend: "iptables",
    ..BASE
};
pub(crate) const CHAIN_NFTABLES: Work = Work {
    title: "bridge + portmap + firewall + tuning + bandwidth (nf_tables)",
    masquerade: Some("nftables"),
    backend: "nftables",
    ..CHAIN_IPTABLES
};

impl Work {
    /// The plugins in the order of ADD, with what they keep on disk below `data_dir`.
    pub(crate) fn steps(&self, contestant: Contestant, data_dir: &str) -> Vec<Step> {
        let first = Step {
            plugin: self.plugin,
            conf: serde_json::from_str(&self.conf(data_dir)).expect("it is JSON"),
            is_measured: !self.is_first_apart,
        };
        let chained = self.chained.iter().map(|plugin| Step {
            plugin,
            conf: self.conf_of_chained(plugin, contestant, data_dir),
            is_measured: true,
        });
        [first].into_iter().chain(chained).collect()
    }

    /// The ports of each pod that is there already.
    pub(crate) fn ports_of_first_pods(&self) -> impl Iterator<Item = Range<u16>> {
        let end = FIRST_PORT + self.published;
        // Each has few enough for its configuration to fit into a pipe.
        let of_one = self.published.div_ceil(self.pods);
        (0..self.pods).map(move |pod| {
            let start = end.min(FIRST_PORT + pod * of_one);
            start..end.min(start + of_one)
        })
    }

    /// Whether ports are published.
    pub(crate) fn publishes(&self) -> bool {
        self.chained.contains(&"portmap")
    }

    fn conf_of_chained(&self, plugin: &str, contestant: Contestant, data_dir: &str) -> Value {
        let mut conf = match plugin {
            "portmap" => json!({"backend": self.backend}),
            // The reference's has no other.
            "firewall" if contestant == Contestant::Go => json!({"backend": "iptables"}),
            "firewall" => json!({"backend": self.backend}),
            "tuning" => json!({"sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}, "mtu": 1400,
                "dataDir": tuning_dir(data_dir)}),
            "bandwidth" => json!({"ingressRate": INGRESS_RATE, "ingressBurst": BURST,
                "egressRate": EGRESS_RATE, "egressBurst": BURST}),
            _ => json!({}),
        };
        conf["cniVersion"] = "1.0.0".into();
        conf["name"] = NETWORK.into();
        conf["type"] = plugin.into();
        conf
    }

    /// The first plugin's configuration, with the leases below `data_dir`.
    pub(crate) fn conf(&self, data_dir: &str) -> String {
        let v6 = if self.is_dual { r#",[{"subnet":"fd00:88::/64"}]"# } else { "" };
        let routes = match (self.plugin, self.is_dual) {
            ("bridge", _) => "",
            (_, false) => r#","routes":[{"dst":"0.0.0.0/0"}]"#,
            (_, true) => r#","routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]"#,
        };
        let ipam = format!(
            r#""ipam":{{"type":"host-local","dataDir":"{data_dir}","ranges":[[{{"subnet":"10.88.0.0/16"}}]{v6}]{routes}}}"#
        );
        let backend = self.masquerade.map(|it| format!(r#","ipMasqBackend":"{it}""#));
        let keys = match self.plugin {
            "bridge" => format!(
                r#","bridge":"cni0","isGateway":true,"isDefaultGateway":true,"ipMasq":{}{},{ipam}"#,
                self.masquerade.is_some(),
                backend.unwrap_or_default()
            ),
            "loopback" => String::new(),
            _ => format!(",{ipam}"),
        };
        format!(r#"{{"cniVersion":"1.0.0","name":"{NETWORK}","type":"{}"{keys}}}"#, self.plugin)
    }
}

/// Where tuning keeps what it is to set back.
pub(crate) fn tuning_dir(data_dir: &str) -> String {
    format!("{data_dir}/tuning")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_that_are_there_publish_all_the_ports_and_no_port_twice() {
        let ports = |work: Work| {
            let of_pods: Vec<_> = work.ports_of_first_pods().collect();
            assert_eq!(of_pods.len(), usize::from(work.pods));
            of_pods.into_iter().flatten().collect::<Vec<_>>()
        };
        assert_eq!(ports(PORTMAP_IPTABLES), [FIRST_PORT]);
        assert_eq!(ports(PORTMAP_QUIET), [FIRST_PORT]);
        let all: Vec<_> = (FIRST_PORT..FIRST_PORT + 2000).collect();
        assert_eq!(ports(PORTMAP_CROWDED), all);
        assert!(!all.contains(&HOST_PORT));
    }
}
