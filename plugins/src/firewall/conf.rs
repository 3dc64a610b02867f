//! The firewall plugin's configuration.

use std::fmt;

use attachment::kernel::RECORD_PREFIX;
use cni::decode::Fields;
use cni::{Call, NetConf};

use super::iptables::{ACCEPT, FORWARD};
use crate::backend::Backend;
use crate::conf;
use crate::error::Error;
use crate::iptables::is_chain;

/// The keys of a firewall configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conf {
    /// By what; `None` leaves the choice to podwire.
    pub(crate) backend: Option<Means>,
    /// The chain for rules of the node's administrator (iptables).
    pub(crate) admin_chain: String,
    /// The zone that containers' addresses come to (firewalld).
    pub(crate) zone: String,
    /// What containers of other bridges, and of the same, may send to this one's.
    pub(crate) ingress_policy: IngressPolicy,
}

/// By what containers' packets are let pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Means {
    /// By rules.
    Rules(Backend),
    /// By firewalld.
    Firewalld,
}

/// Which other containers a bridge's may hear from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IngressPolicy {
    /// All.
    Open,
    /// None of other bridges that have a policy.
    SameBridge,
    /// Nor those of the same bridge.
    Isolated,
}

impl IngressPolicy {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "" | "open" => Some(Self::Open),
            "same-bridge" => Some(Self::SameBridge),
            "isolated" => Some(Self::Isolated),
            _ => None,
        }
    }
}

impl fmt::Display for IngressPolicy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Open => "open",
            Self::SameBridge => "same-bridge",
            Self::Isolated => "isolated",
        })
    }
}

impl Conf {
    /// Reads the call's configuration.
    pub(crate) fn parse(call: &Call) -> Result<Self, Error> {
        conf::strictly(call, read)
    }

    /// Reads what can be read: for DEL, which removes what it can.
    pub(crate) fn parse_leniently(call: &Call) -> Self {
        conf::leniently(call, read)
    }
}

/// Reads every key of a firewall configuration, telling problems to `fields`.
pub(crate) fn read(fields: &Fields<'_>) -> Conf {
    let _ = NetConf::dns(fields);
    let mut admin_chain = word(fields, "iptablesAdminChainName", "CNI-ADMIN");
    if let Some(problem) = admin_chain_problem(admin_chain) {
        fields.invalid("iptablesAdminChainName", format!("{admin_chain:?} {problem}"));
        admin_chain = "CNI-ADMIN";
    }
    Conf {
        backend: read_backend(fields),
        admin_chain: admin_chain.to_owned(),
        zone: word(fields, "firewalldZone", "trusted").to_owned(),
        ingress_policy: read_ingress_policy(fields),
    }
}

/// A text, or the usual one where there is none: an empty one is none.
fn word<'a>(fields: &Fields<'a>, key: &'static str, usual: &'a str) -> &'a str {
    fields.string(key).filter(|it| !it.is_empty()).unwrap_or(usual)
}

/// Why no rule of ours can jump there.
fn admin_chain_problem(name: &str) -> Option<&'static str> {
    const BUILT_IN: [&str; 3] = ["INPUT", FORWARD, "OUTPUT"];
    const VERDICTS: [&str; 4] = ["ACCEPT", "DROP", "RETURN", "QUEUE"];
    if !is_chain(name) {
        Some("is no name of a chain")
    } else if BUILT_IN.contains(&name) {
        Some("is built into table filter: no rule can jump to it")
    } else if VERDICTS.contains(&name) {
        Some("is a verdict")
    } else if name == ACCEPT || name.starts_with(RECORD_PREFIX) {
        Some("is the plugin's own")
    } else {
        None
    }
}

fn read_backend(fields: &Fields<'_>) -> Option<Means> {
    let text = word(fields, "backend", "");
    let means = match text {
        "firewalld" => Some(Means::Firewalld),
        text => Backend::parse(text).map(Means::Rules),
    };
    if means.is_none() && !text.is_empty() {
        let expected = "none of iptables, nftables and firewalld";
        fields.invalid("backend", format!("unrecognized backend {text:?}: {expected}"));
    }
    means
}

fn read_ingress_policy(fields: &Fields<'_>) -> IngressPolicy {
    let text = word(fields, "ingressPolicy", "");
    IngressPolicy::parse(text).unwrap_or_else(|| {
        let expected = "none of open, same-bridge and isolated";
        fields.invalid("ingressPolicy", format!("unknown ingress policy {text:?}: {expected}"));
        IngressPolicy::Open
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cni::decode::Problems;
    use serde_json::{Value, json};

    fn parse(text: &Value) -> Result<Conf, String> {
        let problems = Problems::default();
        let fields = Fields::root(text.as_object().unwrap(), &problems);
        let conf = read(&fields);
        problems.into_result().map(|()| conf).map_err(|error| error.to_string())
    }

    #[test]
    fn every_key_is_read() {
        let usual = Conf {
            backend: None,
            admin_chain: "CNI-ADMIN".to_owned(),
            zone: "trusted".to_owned(),
            ingress_policy: IngressPolicy::Open,
        };
        let empty = json!({"backend": "", "iptablesAdminChainName": "", "firewalldZone": "",
            "ingressPolicy": ""});
        for text in [json!({}), json!({"backend": null}), empty] {
            assert_eq!(parse(&text).unwrap(), usual, "{text}");
        }
        let conf = parse(&json!({"backend": "nftables", "iptablesAdminChainName": "MINE",
            "firewalldZone": "internal", "ingressPolicy": "same-bridge"}));
        let expected = Conf {
            backend: Some(Means::Rules(Backend::Nftables)),
            admin_chain: "MINE".to_owned(),
            zone: "internal".to_owned(),
            ingress_policy: IngressPolicy::SameBridge,
        };
        assert_eq!(conf.unwrap(), expected);
        let means = |text: &str| parse(&json!({"backend": text})).unwrap().backend;
        assert_eq!(means("firewalld"), Some(Means::Firewalld));
        assert_eq!(means("iptables"), Some(Means::Rules(Backend::Iptables)));
    }

    #[test]
    fn wrong_values_are_told_with_their_place() {
        for (text, expected) in [
            (json!({"backend": "nft"}), "backend: unrecognized backend \"nft\""),
            (json!({"ingressPolicy": "x"}), "ingressPolicy: unknown ingress policy \"x\""),
            (json!({"iptablesAdminChainName": "a b"}), "iptablesAdminChainName: \"a b\" is no"),
            (json!({"iptablesAdminChainName": "-A"}), "iptablesAdminChainName: \"-A\" is no"),
            (
                json!({"iptablesAdminChainName": "FORWARD"}),
                "\"FORWARD\" is built into table filter",
            ),
            (json!({"iptablesAdminChainName": "RETURN"}), "\"RETURN\" is a verdict"),
            (
                json!({"iptablesAdminChainName": "CNI-FORWARD"}),
                "\"CNI-FORWARD\" is the plugin's own",
            ),
            (json!({"iptablesAdminChainName": "CNI-FW-1"}), "\"CNI-FW-1\" is the plugin's own"),
            (json!({"firewalldZone": 1}), "firewalldZone: expected a string"),
        ] {
            let told = parse(&text).unwrap_err();
            assert!(told.contains(expected), "{text}: {told}");
        }
    }
}
