//! static: the addresses that the configuration or the runtime names, and nothing kept anywhere.

use std::net::IpAddr;

use cni::args::Args;
use cni::decode::{Element, Fields, Problems};
use cni::{AddResult, Call, Dns, IpConfig, Route, Version};
use ipnetwork::IpNetwork;

use crate::Error;
use crate::host_local::{gateway, routes};

/// An address to give.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    address: IpNetwork,
    gateway: Option<IpAddr>,
    /// Whether the configuration itself names the gateway.
    keeps_gateway: bool,
}

impl Address {
    const fn new(address: IpNetwork) -> Self {
        Self { address, gateway: None, keeps_gateway: false }
    }
}

/// What static is asked to do.
#[derive(Debug, Default)]
struct Conf {
    addresses: Vec<Address>,
    /// What `args.cni.ips` or `runtimeConfig.ips` name instead.
    replacement: Option<Vec<Address>>,
    routes: Vec<Route>,
    dns: Dns,
    /// `cniVersion`, where podwire speaks it.
    version: Option<Version>,
}

/// ADD: the addresses, routes and DNS settings asked for.
///
/// # Errors
/// The configuration or `CNI_ARGS` is wrong. No addresses at all is no error of static's.
pub fn add(call: &Call) -> Result<AddResult, Error> {
    let conf = Conf::of(call)?;
    let ip = |address: Address| IpConfig {
        interface: None,
        address: address.address,
        gateway: address.gateway,
    };
    Ok(AddResult {
        interfaces: Vec::new(),
        ips: conf.addresses.into_iter().map(ip).collect(),
        routes: conf.routes,
        dns: conf.dns,
    })
}

/// DEL: nothing was kept, so there is nothing to do, whatever the configuration.
///
/// # Errors
/// None; the type is that of the other verbs.
pub const fn del(_call: &Call) -> Result<(), Error> {
    Ok(())
}

/// CHECK: where the previous result has an address of the configuration, the gateways agree. An
/// address that it lacks is no failure (reference behaviour): a later plugin may have moved it.
///
/// # Errors
/// [`Error::StaticGateway`]; the previous result is missing or unreadable.
pub fn check(call: &Call) -> Result<(), Error> {
    let conf = Conf::of(call)?;
    let previous = call.conf.prev_result()?.ok_or_else(|| cni::Error::InvalidConfig {
        path: "prevResult".into(),
        problem: "Required prevResult missing (CHECK compares with ADD's result)".into(),
    })?;
    for address in &conf.addresses {
        let Some(wanted) = address.gateway else { continue };
        let same = |ip: &&IpConfig| ip.address.ip() == address.address.ip();
        if let Some(ip) = previous.ips.iter().find(same)
            && ip.gateway != Some(wanted)
        {
            return Err(Error::StaticGateway {
                address: address.address.ip(),
                ifname: call.ifname.clone(),
                found: ip.gateway.map_or_else(|| "none".to_owned(), |found| found.to_string()),
                wanted,
            });
        }
    }
    Ok(())
}

/// GC: nothing was kept.
///
/// # Errors
/// [`cni::Error::NoValidAttachments`] when the runtime did not say what is valid.
pub fn gc(call: &Call) -> Result<(), Error> {
    call.conf.valid_attachments()?;
    Ok(())
}

/// STATUS: the configuration is right.
///
/// # Errors
/// What is wrong with it.
pub fn status(call: &Call) -> Result<(), Error> {
    Conf::of(call).map(drop)
}

/// Whether ADD will give an IPv6 address.
///
/// # Errors
/// The configuration or `CNI_ARGS` is wrong.
pub fn gives_ipv6(call: &Call) -> Result<bool, Error> {
    Ok(Conf::of(call)?.addresses.iter().any(|address| address.address.is_ipv6()))
}

/// Tells every problem of the configuration, of which `root` is the outermost object, to its
/// collection; the parser is the one that the verbs use.
pub fn validate(root: &Fields<'_>) {
    let mut conf = Conf::read(root);
    conf.replace();
    if let Err(text) = conf.check_count() {
        root.invalid("ipam", text);
    }
}

impl Conf {
    fn of(call: &Call) -> Result<Self, Error> {
        let problems = Problems::default();
        let mut conf = Self::read(&Fields::root(&call.conf.raw, &problems));
        problems.into_result()?;
        conf.read_args(&Args::parse(&call.args, &["IP", "GATEWAY"])?)?;
        conf.replace();
        let wrong = |problem| cni::Error::InvalidConfig { path: "ipam".into(), problem };
        conf.check_count().map_err(wrong)?;
        Ok(conf)
    }

    /// The addresses of the configuration, later replaced or added to.
    fn read(root: &Fields<'_>) -> Self {
        let Some(ipam) = root.object("ipam") else {
            root.invalid("ipam", "IPAM config missing 'ipam' key");
            return Self::default();
        };
        let _ = ipam.string("type");
        let listed = ipam.array("addresses");
        let addresses = listed.iter().flatten().filter_map(read_address).collect();
        let dns = ipam.object("dns").map(|fields| {
            let dns = Dns::read(&fields);
            fields.finish();
            dns
        });
        let routes = routes(&ipam);
        ipam.finish();
        let args = root.object("args").and_then(|args| args.object("cni"));
        let from_args = args.and_then(|cni| replacements(&cni));
        let from_runtime = root.object("runtimeConfig").and_then(|runtime| replacements(&runtime));
        Self {
            addresses,
            replacement: from_runtime.or(from_args),
            routes,
            dns: dns.unwrap_or_default(),
            version: root.string("cniVersion").and_then(Version::parse),
        }
    }

    /// Adds the addresses of `CNI_ARGS` and gives its gateways to the addresses whose subnet they
    /// are in, except where the configuration names a gateway itself.
    fn read_args(&mut self, args: &Args) -> Result<(), Error> {
        let list = |key| {
            let value = args.get(key).filter(|value| !value.is_empty());
            value.into_iter().flat_map(|value| value.split(',')).map(str::trim)
        };
        for text in list("IP") {
            let wrong = || {
                cni::Error::Args(format!(
                    "the 'ip' field is expected to be in CIDR notation, got: '{text}'"
                ))
            };
            self.addresses.push(Address::new(cni::parse_cidr(text).ok_or_else(wrong)?));
        }
        for text in list("GATEWAY") {
            let wrong = || cni::Error::Args(format!("invalid gateway address: {text}"));
            let gateway = cni::parse_address(text).ok_or_else(wrong)?;
            let open = |address: &&mut Address| {
                !address.keeps_gateway && address.address.contains(gateway)
            };
            let matching = self.addresses.iter_mut().filter(open);
            matching.for_each(|address| address.gateway = Some(gateway));
        }
        Ok(())
    }

    /// The runtime's addresses take the place of the configuration's and of `CNI_ARGS`'.
    fn replace(&mut self) {
        if let Some(replacement) = self.replacement.take() {
            self.addresses = replacement;
        }
    }

    fn check_count(&self) -> Result<(), String> {
        let of_family =
            |ipv4| self.addresses.iter().filter(|a| a.address.is_ipv4() == ipv4).count();
        match self.version {
            Some(version)
                if version < Version::V0_3_0 && of_family(true).max(of_family(false)) > 1 =>
            {
                Err(format!(
                    "CNI version {version} does not support more than 1 address per family"
                ))
            }
            _ => Ok(()),
        }
    }
}

fn read_address(element: &Element<'_>) -> Option<Address> {
    let fields = element.object()?;
    let text = fields.string("address").unwrap_or_default();
    let address = cni::parse_cidr(text);
    let gateway = gateway(&fields, address);
    if address.is_none() {
        let problem =
            format!("the 'address' field is expected to be in CIDR notation, got: '{text}'");
        fields.invalid("address", problem);
    }
    fields.finish();
    Some(Address { address: address?, gateway, keeps_gateway: gateway.is_some() })
}

fn replacements(fields: &Fields<'_>) -> Option<Vec<Address>> {
    let listed = fields.array("ips").filter(|listed| !listed.is_empty())?;
    let read = |element: &Element<'_>| {
        let text = element.string()?;
        let address = cni::parse_cidr(text);
        if address.is_none() {
            element.invalid(format!(
                "an entry in the 'ips' field is NOT in CIDR notation, got: '{text}'"
            ));
        }
        address.map(Address::new)
    };
    Some(listed.iter().filter_map(read).collect())
}

#[cfg(test)]
#[path = "static_tests.rs"]
mod tests;
