//! What is asked.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::Error;
use crate::model::Protocol;
use crate::plan::At;

/// What becomes of a connection to a place?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// To what.
    pub to: At,
    /// Of whom.
    pub from: Who,
}

/// Who connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Whoever: all are told who fare differently.
    Anybody,
    /// A pod of the cluster.
    Pod,
    /// The node itself.
    Node,
    /// Somebody who is neither.
    Outside,
    /// Whoever has this address.
    Address {
        /// The address.
        address: IpAddr,
        /// The interface that its packets come by, where that is known.
        interface: Option<String>,
    },
}

impl Query {
    /// The address of who connects, if that is told.
    #[must_use]
    pub const fn address(&self) -> Option<IpAddr> {
        match &self.from {
            Who::Address { address, .. } => Some(*address),
            _ => None,
        }
    }
}

impl FromStr for Who {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Ok(match text {
            "pod" => Self::Pod,
            "node" => Self::Node,
            "outside" => Self::Outside,
            address => {
                let address: IpAddr = address.parse().map_err(|_| Error::From(text.to_owned()))?;
                Self::Address { address: address.to_canonical(), interface: None }
            }
        })
    }
}

impl fmt::Display for Who {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anybody => formatter.write_str("anybody"),
            Self::Pod => formatter.write_str("a pod"),
            Self::Node => formatter.write_str("the node"),
            Self::Outside => formatter.write_str("outside"),
            Self::Address { address, .. } => write!(formatter, "{address}"),
        }
    }
}

/// `10.96.0.1:80`, which is of TCP, or with the protocol behind it: `[fd00::1]:53/UDP`.
impl FromStr for At {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::To(text.to_owned());
        let (place, protocol) = text.rsplit_once('/').unwrap_or((text, "TCP"));
        let all = Protocol::ALL.into_iter();
        let protocol = all.clone().find(|it| it.to_string().eq_ignore_ascii_case(protocol));
        let place: SocketAddr = place.parse().map_err(|_| wrong())?;
        let (address, port) = (place.ip().to_canonical(), place.port());
        let protocol = protocol.filter(|_| port > 0).ok_or_else(wrong)?;
        Ok(Self { address, protocol, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_with_and_without_a_protocol() {
        for (text, wanted) in [
            ("10.96.0.1:80", "10.96.0.1:80/TCP"),
            ("[fd00::1]:53/udp", "[fd00::1]:53/UDP"),
            ("[::ffff:10.0.0.1]:5/SCTP", "10.0.0.1:5/SCTP"),
        ] {
            assert_eq!(text.parse::<At>().map(|it| it.to_string()), Ok(wanted.to_owned()));
        }
        for text in ["", "10.96.0.1", "10.96.0.1:0", "fd00::1:80", "10.96.0.1:80/ICMP", "a:80"] {
            assert_eq!(text.parse::<At>(), Err(Error::To(text.to_owned())));
        }
    }

    #[test]
    fn who_connects_is_an_address_or_one_of_three_words() {
        for (text, wanted) in
            [("pod", "a pod"), ("node", "the node"), ("::ffff:10.0.0.1", "10.0.0.1")]
        {
            assert_eq!(text.parse::<Who>().map(|it| it.to_string()), Ok(wanted.to_owned()));
        }
        assert_eq!("default/a".parse::<Who>(), Err(Error::From("default/a".to_owned())));
    }
}
