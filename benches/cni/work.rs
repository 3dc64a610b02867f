//! What is measured.

/// A plugin with a configuration.
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
}

/// Name of the network in every configuration.
pub(crate) const NETWORK: &str = "bench";

const BASE: Work =
    Work { title: "", plugin: "bridge", floor: None, is_dual: false, masquerade: None, leases: 0 };

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

impl Work {
    /// The configuration, with the leases below `data_dir`.
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
