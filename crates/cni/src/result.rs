//! The result of ADD, as the specification's newest version has it.

use std::net::{IpAddr, Ipv6Addr};

use ipnetwork::IpNetwork;
use serde_json::Value;

use crate::convert;
use crate::decode::Fields;
use crate::{Error, Version};

/// What ADD answers, and what the next plugin of a chain gets as `prevResult`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddResult {
    /// Interfaces, on the host and in the container.
    pub interfaces: Vec<Interface>,
    /// Addresses.
    pub ips: Vec<IpConfig>,
    /// Routes in the container.
    pub routes: Vec<Route>,
    /// Name service, for the runtime.
    pub dns: Dns,
}

/// An interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Hardware address, `00:11:22:33:44:55`; empty when unknown.
    pub mac: String,
    /// Bytes; since 1.1.0.
    pub mtu: Option<i64>,
    /// Path of the network namespace; empty on the host.
    pub sandbox: String,
    /// Socket of a vhost-user interface; since 1.1.0.
    pub socket_path: String,
    /// PCI address; since 1.1.0.
    pub pci_id: String,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpConfig {
    /// Index into [`AddResult::interfaces`].
    pub interface: Option<i64>,
    /// Address and prefix length.
    pub address: IpNetwork,
    /// Gateway of its network.
    pub gateway: Option<IpAddr>,
}

/// A route in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Destination.
    pub dst: IpNetwork,
    /// Next hop; absent means the gateway of the address's network.
    pub gw: Option<IpAddr>,
    /// Bytes; since 1.1.0.
    pub mtu: Option<i64>,
    /// Bytes; since 1.1.0.
    pub advmss: Option<i64>,
    /// Metric; since 1.1.0.
    pub priority: Option<i64>,
    /// Routing table; since 1.1.0.
    pub table: Option<i64>,
    /// Scope as in rtnetlink; since 1.1.0.
    pub scope: Option<i64>,
}

impl Route {
    /// A route with nothing but destination and next hop.
    #[must_use]
    pub const fn new(dst: IpNetwork, gw: Option<IpAddr>) -> Self {
        Self { dst, gw, mtu: None, advmss: None, priority: None, table: None, scope: None }
    }

    /// Whether the destination is everything.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.dst.prefix() == 0
    }

    /// Reads a route of a configuration or a result, telling problems to `fields`.
    #[must_use]
    pub fn read(fields: &Fields<'_>) -> Option<Self> {
        let dst = match fields.string("dst") {
            None => {
                fields.invalid("dst", "missing");
                None
            }
            Some(_) => fields.cidr("dst"),
        };
        let gw = fields.address("gw");
        let number = |key| fields.integer(key);
        let route = Self {
            dst: dst?,
            gw,
            mtu: number("mtu"),
            advmss: number("advmss"),
            priority: number("priority"),
            table: number("table"),
            scope: number("scope"),
        };
        Some(route)
    }
}

/// Name service settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    /// Servers, in order.
    pub nameservers: Vec<String>,
    /// Local domain.
    pub domain: String,
    /// Search list.
    pub search: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
}

impl Dns {
    /// Reads a `dns` object.
    #[must_use]
    pub fn read(fields: &Fields<'_>) -> Self {
        let list = |key| -> Vec<String> {
            fields.strings(key).unwrap_or_default().into_iter().map(str::to_owned).collect()
        };
        Self {
            nameservers: list("nameservers"),
            domain: fields.string("domain").unwrap_or_default().to_owned(),
            search: list("search"),
            options: list("options"),
        }
    }

    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl AddResult {
    /// The document in `version`.
    ///
    /// # Errors
    /// [`Error::Convert`] when the version cannot express the result.
    pub fn to_json(&self, version: Version) -> Result<Value, Error> {
        convert::to_json(self, version)
    }

    /// Reads a `prevResult` of a configuration in version `config`.
    ///
    /// # Errors
    /// [`Error::PrevResult`] when its own version is of another family, or it is no result.
    pub fn from_prev_result(document: &Value, config: Version) -> Result<Self, Error> {
        let version = match stated_version(document).map_err(Error::PrevResult)? {
            None => config,
            Some(text) => match Version::parse(text) {
                Some(version) if version.family() == config.family() => version,
                _ => {
                    return Err(Error::PrevResult(format!(
                        "result type supports [{}] but unmarshalled CNIVersion is {text:?}",
                        config.family().members()
                    )));
                }
            },
        };
        convert::from_json(document, version).map_err(Error::PrevResult)
    }

    /// Reads the document that delegate `plugin` printed; one without a version is in version
    /// `config`.
    ///
    /// # Errors
    /// [`Error::DelegateResult`].
    pub fn from_delegate(document: &Value, config: Version, plugin: &str) -> Result<Self, Error> {
        let wrong = |problem| Error::DelegateResult { plugin: plugin.to_owned(), problem };
        let version = match stated_version(document).map_err(wrong)? {
            None => config,
            Some(text) => Version::parse(text)
                .ok_or_else(|| wrong(format!("unsupported CNI result version {text:?}")))?,
        };
        convert::from_json(document, version).map_err(wrong)
    }
}

/// `cniVersion` of a result; `None` when absent or empty.
fn stated_version(document: &Value) -> Result<Option<&str>, String> {
    let members = document.as_object().ok_or("it is not an object")?;
    match crate::decode::lookup(members, "cniVersion") {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(_) => Err("its cniVersion is not a string".into()),
    }
}

/// An address as text; one that IPv6 only wraps (`::ffff:10.0.0.1`) is its IPv4 self, as in Go.
#[must_use]
pub fn parse_address(text: &str) -> Option<IpAddr> {
    match text.parse().ok()? {
        IpAddr::V6(address) => Some(unwrap_v4(address)),
        address @ IpAddr::V4(_) => Some(address),
    }
}

/// `address/prefix`, host bits kept. Neither a bare address nor a dotted mask is one.
#[must_use]
pub fn parse_cidr(text: &str) -> Option<IpNetwork> {
    let (address, prefix) = text.split_once('/')?;
    if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let prefix: u8 = prefix.parse().ok()?;
    match address.parse().ok()? {
        // The prefix of a wrapped address counts its wrapping.
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() && prefix >= 96 => {
            IpNetwork::new(unwrap_v4(address), prefix - 96).ok()
        }
        address => IpNetwork::new(address, prefix).ok(),
    }
}

fn unwrap_v4(address: Ipv6Addr) -> IpAddr {
    address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cidrs_are_what_go_takes() {
        assert_eq!(parse_cidr("10.1.0.5/24").unwrap().to_string(), "10.1.0.5/24");
        assert_eq!(parse_cidr("::ffff:10.1.0.5/120").unwrap().to_string(), "10.1.0.5/24");
        for wrong in ["10.1.0.5", "10.1.0.5/", "10.1.0.5/33", "10.0.0.0/255.0.0.0", "x/8", "::/+1"]
        {
            assert_eq!(parse_cidr(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn wrapped_addresses_are_unwrapped() {
        assert_eq!(parse_address("::ffff:10.1.0.5").unwrap().to_string(), "10.1.0.5");
        assert_eq!(parse_address("010.1.0.5"), None);
    }
}
