//! Services and their endpoints, as they are told by Kubernetes' objects.
//!
//! What is wrong in an object is told as [`Problem`]s, and left out: the rest of it counts.

mod endpoint_slice;
mod service;

use std::fmt;
use std::net::IpAddr;

pub use cluster::NamespacedName;
pub use endpoint_slice::{Endpoint, EndpointPort, EndpointSlice, EndpointSlicePart};
pub use service::{Port, Service, ServicePart};

/// An object that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read<T> {
    /// Its name.
    pub name: NamespacedName,
    /// What it says, or why it is none that is served.
    pub object: Result<T, LeftAlone>,
}

/// Why an object is none that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeftAlone {
    /// A Service without an address of its own.
    Headless,
    /// A Service that is another name for something else.
    ExternalName,
    /// A Service whose label says that it is nobody's, or another program's.
    Label {
        /// The label.
        label: &'static str,
        /// What it says.
        value: String,
        /// The addresses of the Service.
        addresses: Vec<IpAddr>,
    },
    /// A slice that is of no Service, or has names instead of addresses.
    NoAddresses,
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// Its number in IP's header.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// That of this number.
    #[must_use]
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.number() == number)
    }

    /// As objects name it; TCP where they say nothing.
    fn named(name: Option<&str>) -> Option<Self> {
        match name.unwrap_or_default() {
            "" | "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// The longest name of an object (`DNS1123SubdomainMaxLength`).
const LONGEST_NAME: usize = 253;

/// What is wrong with an object. The API server lets none of it pass; manifests of a folder may have it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value:?} is not {wanted}")]
pub struct Problem {
    /// The field's path, such as `spec.ports[0].protocol`.
    pub field: String,
    /// What is there.
    pub value: String,
    /// What should be.
    pub wanted: &'static str,
}

/// Collects what is wrong while an object is read.
#[derive(Debug, Default)]
struct Problems(Vec<Problem>);

impl Problems {
    /// What was read, or a note that it cannot be.
    fn take<T>(
        &mut self,
        read: Option<T>,
        field: impl FnOnce() -> String,
        value: impl fmt::Display,
        wanted: &'static str,
    ) -> Option<T> {
        if read.is_none() {
            self.0.push(Problem { field: field(), value: value.to_string(), wanted });
        }
        read
    }

    /// An address. One of IPv4 that is written as of IPv6 is of IPv4, as for kube-proxy.
    fn address(&mut self, text: &str, field: impl FnOnce() -> String) -> Option<IpAddr> {
        let address = text.parse().ok().map(|it: IpAddr| it.to_canonical());
        self.take(address, field, text, "an address")
    }

    /// An address that connections are led to, or come to from outside. Some the API server refuses (`ValidateEndpointIP`).
    fn reachable(&mut self, text: &str, field: impl Fn() -> String) -> Option<IpAddr> {
        let address = self.address(text, &field)?;
        let wanted =
            "an address that others reach: it is unspecified, of the loopback or of a link";
        self.take(is_reachable(address).then_some(address), field, text, wanted)
    }

    /// An object's name and namespace: they become labels of metrics and parts of lines. That there is a name others see to.
    fn name(&mut self, name: &NamespacedName) {
        let is_of_name = |it: char| matches!(it, 'a'..='z' | '0'..='9' | '-' | '.');
        let NamespacedName { namespace, name } = name;
        for (field, text) in [("metadata.namespace", namespace), ("metadata.name", name)] {
            let is_right = text.len() <= LONGEST_NAME && text.chars().all(is_of_name);
            let wanted = "a name (253 of a-z, 0-9, - and . at most)";
            self.take(is_right.then_some(()), || field.to_owned(), text, wanted);
        }
    }

    /// A number of a port.
    fn port(&mut self, number: i32, field: impl FnOnce() -> String) -> Option<u16> {
        let port = u16::try_from(number).ok().filter(|it| *it > 0);
        self.take(port, field, number, "a port (1 to 65535)")
    }
}

fn is_reachable(address: IpAddr) -> bool {
    let is_of_link = match address {
        IpAddr::V4(it) => it.is_link_local() || matches!(it.octets(), [224, 0, 0, _]),
        IpAddr::V6(it) => it.is_unicast_link_local() || it.segments()[0] & 0xff0f == 0xff02,
    };
    !address.is_unspecified() && !address.is_loopback() && !is_of_link
}

/// A text that is not empty.
fn filled(text: Option<String>) -> Option<String> {
    text.filter(|it| !it.is_empty())
}
