//! What is asked.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::Error;
use crate::Transport;
use crate::model::{NamespacedName, Protocol};
use crate::words;

/// May `from` send this to `to`?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Who sends.
    pub from: End,
    /// Who is sent to.
    pub to: End,
    /// What is sent.
    pub traffic: Traffic,
}

/// One end: `NAMESPACE/POD` or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// A pod, with all its addresses.
    Pod(NamespacedName),
    /// An address, and whoever has it.
    Address(IpAddr),
}

/// What is sent: `80/TCP`, `53/UDP`, `80` (TCP) or `icmp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Anything: the answer tells on which ports.
    Any,
    /// To a port.
    Port(Protocol, u16),
    /// An echo request, as `ping` sends.
    Icmp,
}

/// For experiments (RFC 3692): a protocol that no rule can name.
const EXPERIMENTAL: u8 = 253;

impl Traffic {
    /// As a packet carries it. For [`Self::Any`] a protocol without ports: it passes where everything
    /// does.
    pub(super) const fn transport(self) -> Transport {
        match self {
            Self::Any => Transport::Other { number: EXPERIMENTAL },
            Self::Port(protocol, destination_port) => {
                Transport::Port { protocol, destination_port }
            }
            Self::Icmp => Transport::Icmp,
        }
    }
}

impl FromStr for End {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::End(text.to_owned());
        match text.split_once('/') {
            None => {
                text.parse().map(|it: IpAddr| Self::Address(it.to_canonical())).map_err(|_| wrong())
            }
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                let (namespace, name) = (namespace.to_owned(), name.to_owned());
                Ok(Self::Pod(NamespacedName { namespace, name }))
            }
            Some(_) => Err(wrong()),
        }
    }
}

impl FromStr for Traffic {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Traffic(text.to_owned());
        if text.eq_ignore_ascii_case("icmp") {
            return Ok(Self::Icmp);
        }
        let (port, protocol) = text.split_once('/').unwrap_or((text, "TCP"));
        let protocol = match protocol.to_ascii_uppercase().as_str() {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            _ => return Err(wrong()),
        };
        match port.parse() {
            Ok(port) if port > 0 => Ok(Self::Port(protocol, port)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => formatter.write_str("anything"),
            Self::Port(protocol, port) => {
                formatter.write_str(&words::ports(*port, *port, *protocol))
            }
            Self::Icmp => formatter.write_str("ICMP (echo request)"),
        }
    }
}
