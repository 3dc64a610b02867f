//! Protocols and the ports of rules.

use k8s_openapi::api::networking::v1::NetworkPolicyPort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::error::{Defect, Problem};

/// A protocol that has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP, the default wherever a protocol may be absent.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Reads `TCP`, `UDP` or `SCTP`; absent is TCP.
    pub(super) fn or_default(text: Option<&str>) -> Result<Self, Problem> {
        match text {
            None | Some("TCP") => Ok(Self::Tcp),
            Some("UDP") => Ok(Self::Udp),
            Some("SCTP") => Ok(Self::Sctp),
            Some(other) => Err(Problem::Protocol(other.to_owned())),
        }
    }
}

/// An entry of a rule's `ports`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Its protocol.
    pub protocol: Protocol,
    /// Which ports of that protocol.
    pub number: PortNumber,
}

/// Which ports of a protocol a rule means.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortNumber {
    /// Every one.
    Any,
    /// From the first to the last, both included; a single port is both.
    Range {
        /// The first.
        first: u16,
        /// The last.
        last: u16,
    },
    /// Those that the destination pod gives this name to, for the same protocol.
    Named(String),
}

impl Port {
    pub(super) fn compile(port: &NetworkPolicyPort) -> Result<Self, Defect> {
        let protocol = Protocol::or_default(port.protocol.as_deref())
            .map_err(|problem| Defect::new("protocol", problem))?;
        let number = match (&port.port, port.end_port) {
            (None, None) => PortNumber::Any,
            (Some(IntOrString::String(name)), None) if is_port_name(name) => {
                PortNumber::Named(name.clone())
            }
            (Some(IntOrString::String(name)), None) => {
                return Err(Defect::new("port", Problem::PortName(name.clone())));
            }
            (Some(IntOrString::Int(first)), last) => range(*first, last.unwrap_or(*first))?,
            (None | Some(IntOrString::String(_)), Some(_)) => {
                return Err(Defect::new("endPort", Problem::EndPortAlone));
            }
        };
        Ok(Self { protocol, number })
    }
}

fn range(first: i32, last: i32) -> Result<PortNumber, Defect> {
    let first = port_number(first).map_err(|problem| Defect::new("port", problem))?;
    let last = port_number(last).map_err(|problem| Defect::new("endPort", problem))?;
    if last < first {
        let problem = Problem::EndPortBefore { port: first, end: last };
        return Err(Defect::new("endPort", problem));
    }
    Ok(PortNumber::Range { first, last })
}

pub(super) fn port_number(number: i32) -> Result<u16, Problem> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Problem::PortNumber(number)),
    }
}

/// Whether the API server takes it as the name of a port (RFC 6335, section 5.1, in lower case).
fn is_port_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && name.bytes().any(|byte| byte.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}
