//! Which gateways a result has, and what the bridge's addresses must become for them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni::{AddResult, Route};
use ipnetwork::IpNetwork;

use super::conf::Conf;
use crate::error::Error;

/// Index of the container's interface in a result, after bridge and host end.
const CONTAINER: i64 = 2;

/// Completes IPAM's result: every address belongs to the container's interface, has its gateway,
/// and where the bridge is the default gateway there is a route to it.
///
/// Returns the addresses that the bridge must have.
pub(super) fn complete(conf: &Conf, result: &mut AddResult) -> Result<Vec<IpNetwork>, Error> {
    let mut gateways = Vec::new();
    for ip in &mut result.ips {
        ip.interface = Some(CONTAINER);
        if ip.gateway.is_none() && conf.is_gateway {
            ip.gateway = Some(first_address(ip.address));
        }
        let Some(gateway) = ip.gateway else { continue };
        if gateway.is_ipv4() != ip.address.is_ipv4() {
            let text = format!("gateway {gateway} of address {} is of another family", ip.address);
            return Err(Error::IpamResult(text));
        }
        if !conf.is_gateway {
            continue;
        }
        let of_bridge = IpNetwork::new(gateway, ip.address.prefix())
            .map_err(|_| Error::IpamResult(format!("gateway {gateway} of {}", ip.address)))?;
        if !gateways.contains(&of_bridge) {
            gateways.push(of_bridge);
        }
    }
    if conf.is_default_gateway {
        add_default_routes(result)?;
    }
    Ok(gateways)
}

/// The address after the network's own.
fn first_address(cidr: IpNetwork) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(address) => Ipv4Addr::from(u32::from(address).wrapping_add(1)).into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address).wrapping_add(1)).into(),
    }
}

/// Adds a default route for each family that has none yet. One of IPAM without next hop goes by
/// the same gateway, so a second beside it would be the same route again, which the kernel refuses.
fn add_default_routes(result: &mut AddResult) -> Result<(), Error> {
    for (everything, is_ipv4) in [("0.0.0.0/0", true), ("::/0", false)] {
        let gateway = result
            .ips
            .iter()
            .filter(|ip| ip.address.is_ipv4() == is_ipv4)
            .find_map(|ip| ip.gateway);
        let is_there = result.routes.iter().any(|route| {
            let is_in_main_table = matches!(route.table, None | Some(0 | 254));
            route.is_default()
                && route.dst.is_ipv4() == is_ipv4
                && (route.gw.is_some() || is_in_main_table)
        });
        if gateway.is_some() && !is_there {
            let dst = everything
                .parse()
                .map_err(|_| Error::IpamResult(format!("cannot parse {everything}")))?;
            result.routes.push(Route::new(dst, gateway));
        }
    }
    Ok(())
}

/// What must become of the bridge's addresses so that it has `wanted`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// It has it.
    Nothing,
    /// It is added, after those that conflict are deleted.
    Add { conflicting: Vec<IpNetwork> },
}

/// Compares `wanted` with the addresses there are. Any other IPv4 address conflicts, and any IPv6
/// address whose network overlaps (reference: `ensureAddr`).
pub(super) fn change(wanted: IpNetwork, present: &[IpNetwork]) -> Change {
    if present.contains(&wanted) {
        return Change::Nothing;
    }
    let conflicts = |other: &&IpNetwork| match (wanted, other) {
        (IpNetwork::V4(_), IpNetwork::V4(_)) => true,
        (IpNetwork::V6(wanted), IpNetwork::V6(other)) => {
            wanted.contains(other.network()) || other.contains(wanted.network())
        }
        _ => false,
    };
    Change::Add { conflicting: present.iter().filter(conflicts).copied().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cni::IpConfig;
    use cni::decode::{Fields, Problems};

    fn conf(text: &str) -> Conf {
        let problems = Problems::default();
        super::super::conf::read(
            &Fields::root(&serde_json::from_str(text).unwrap(), &problems),
            None,
        )
    }

    fn result(addresses: &[(&str, Option<&str>)], routes: &[(&str, Option<&str>)]) -> AddResult {
        let ip = |(address, gateway): &(&str, Option<&str>)| IpConfig {
            interface: None,
            address: address.parse().unwrap(),
            gateway: gateway.map(|text| text.parse().unwrap()),
        };
        let route = |(dst, gw): &(&str, Option<&str>)| {
            Route::new(dst.parse().unwrap(), gw.map(|text| text.parse().unwrap()))
        };
        AddResult {
            ips: addresses.iter().map(ip).collect(),
            routes: routes.iter().map(route).collect(),
            ..AddResult::default()
        }
    }

    fn cidr(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn a_missing_gateway_is_the_first_address() {
        let mut result = result(&[("10.1.0.9/24", None), ("fd00::9/64", None)], &[]);
        let gateways = complete(&conf(r#"{"isGateway":true}"#), &mut result).unwrap();
        assert_eq!(gateways, [cidr("10.1.0.1/24"), cidr("fd00::1/64")]);
        assert!(result.ips.iter().all(|ip| ip.interface == Some(2)));
        assert!(result.routes.is_empty());
    }

    #[test]
    fn a_gateway_of_the_other_family_is_refused() {
        for conf_text in ["{}", r#"{"isGateway":true}"#, r#"{"isDefaultGateway":true}"#] {
            for (address, gateway) in [("10.1.0.9/24", "fd00::1"), ("fd00::9/64", "10.1.0.1")] {
                let mut result = result(&[(address, Some(gateway))], &[]);
                let error = complete(&conf(conf_text), &mut result).unwrap_err().to_string();
                assert!(error.contains(address) && error.contains(gateway), "{error}");
            }
        }
    }

    #[test]
    fn a_bridge_that_is_no_gateway_gets_no_address() {
        let mut result = result(&[("10.1.0.9/24", Some("10.1.0.1"))], &[]);
        assert!(complete(&conf("{}"), &mut result).unwrap().is_empty());
    }

    #[test]
    fn each_family_gets_one_default_route() {
        let addresses =
            [("10.1.0.9/24", None), ("10.2.0.9/24", None), ("fd00::9/64", Some("fd00::5"))];
        let default = conf(r#"{"isDefaultGateway":true}"#);
        let mut fresh = result(&addresses, &[]);
        complete(&default, &mut fresh).unwrap();
        let routes: Vec<String> =
            fresh.routes.iter().map(|r| format!("{} {}", r.dst, r.gw.unwrap())).collect();
        assert_eq!(routes, ["0.0.0.0/0 10.1.0.1", "::/0 fd00::5"]);

        for gw in [None, Some("10.1.0.7")] {
            let mut with_default = result(&addresses[..1], &[("0.0.0.0/0", gw)]);
            complete(&default, &mut with_default).unwrap();
            assert_eq!(with_default.routes.len(), 1);
        }
    }

    #[test]
    fn conflicts_are_any_ipv4_address_and_overlapping_ipv6_networks() {
        let present = [cidr("10.1.0.1/24"), cidr("fd00::1/64"), cidr("fe80::1/64")];
        assert_eq!(change(cidr("10.1.0.1/24"), &present), Change::Nothing);
        let conflicting = |wanted| match change(cidr(wanted), &present) {
            Change::Add { conflicting } => conflicting,
            Change::Nothing => panic!("{wanted}"),
        };
        assert_eq!(conflicting("10.9.0.1/24"), [cidr("10.1.0.1/24")]);
        assert_eq!(conflicting("10.1.0.1/16"), [cidr("10.1.0.1/24")]);
        assert_eq!(conflicting("fd00::2/48"), [cidr("fd00::1/64")]);
        assert!(conflicting("fd01::1/64").is_empty());
    }
}
