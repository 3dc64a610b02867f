//! The container's end of an attachment: its addresses, its routes, and bringing it up.

use std::net::IpAddr;
use std::time::Duration;

use cni::{AddResult, Route as ResultRoute};
use ipnetwork::IpNetwork;
use netlink::{AddressOptions, Link, Monitor, OperState, Request, Route, Socket};

use crate::delegated_ipam::DelegatedIpam;
use crate::error::{Error, warn};
use crate::sysctl;

/// How long duplicate address detection may take (reference: `SettleAddresses`).
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the kernel may take to see that a link has its carrier.
const UP_TIMEOUT: Duration = Duration::from_secs(1);

/// The smallest MTU that IPv6 works with (RFC 8200); below it the kernel takes IPv6 off the link.
pub(crate) const IPV6_MIN_MTU: u32 = 1280;

/// How to configure an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Options {
    /// Bytes.
    pub(crate) mtu: u32,
    /// IPv6 addresses are only used once nobody else is found to have them.
    pub(crate) detect_duplicates: bool,
    /// The kernel routes each address's network to the link.
    pub(crate) network_routes: bool,
    /// Neighbours that knew an IPv4 address elsewhere hear of it when the interface goes up.
    pub(crate) announce_addresses: bool,
}

/// Refuses an MTU with which the container could not have its IPv6 addresses. Before there is a port:
/// a bridge shrinks to it, and would lose its own addresses for good.
pub(crate) fn refuse_small_mtu(mtu: Option<u32>, ipam: &DelegatedIpam<'_>) -> Result<(), Error> {
    match mtu {
        Some(mtu) if mtu < IPV6_MIN_MTU && ipam.gives_ipv6()? => Err(too_small(mtu)),
        _ => Ok(()),
    }
}

fn too_small(mtu: u32) -> Error {
    let text = format!("mtu: {mtu} is too small for IPv6, which needs at least {IPV6_MIN_MTU}");
    Error::Config(text)
}

/// Lets IPv6 work on the interface before it gets its first address (reference: `ConfigureIface`).
pub(crate) fn enable_ipv6(ifname: &str) -> Result<(), Error> {
    for name in ["lo", ifname] {
        let key = format!("net/ipv6/conf/{name}/disable_ipv6");
        match sysctl::read(&key) {
            Ok(value) if value == "0" => {}
            Ok(_) => sysctl::write(&key, "0")?,
            Err(error) => warn(&format!("cannot read /proc/sys/{key}: {error}")),
        }
    }
    sysctl::write(&format!("net/ipv6/conf/{ifname}/keep_addr_on_down"), "1")
}

/// Adds the result's addresses to the interface, sets it up, and adds `routes`: in one exchange
/// with the kernel where nothing must settle in between. The calling thread is in the container's
/// namespace.
pub(crate) fn configure(
    socket: &mut Socket,
    index: u32,
    ifname: &str,
    addresses: &[IpNetwork],
    routes: &[Route],
    options: Options,
) -> Result<(), Error> {
    let has_ipv6 = addresses.iter().any(IpNetwork::is_ipv6);
    if has_ipv6 {
        if options.mtu < IPV6_MIN_MTU {
            return Err(too_small(options.mtu));
        }
        enable_ipv6(ifname)?;
    }
    let address_options = AddressOptions {
        detect_duplicates: options.detect_duplicates,
        network_route: options.network_routes,
    };
    let mut requests: Vec<Request> = addresses
        .iter()
        .map(|cidr| Request::add_address(index, ifname, *cidr, address_options))
        .collect();
    if options.announce_addresses {
        requests.push(Request::announce_addresses(index, ifname));
    }
    requests.push(Request::set_up(index, ifname));
    if has_ipv6 && options.detect_duplicates {
        settle(socket, index, ifname, &requests)?;
        requests.clear();
    }
    // The same route twice (an IPAM's, and isDefaultGateway's) is one route.
    requests.extend(routes.iter().map(|route| Request::add_route(route, ifname).or_exists()));
    let link = socket.execute_and_look_up(requests, index)?;
    wait_until_up(socket, &link)
}

/// Waits for what follows from a link's carrier. Since Linux 6.8 the kernel sees to that when it is asked
/// for the link; earlier ones do it moments later, and drop what is sent until then. Without a carrier
/// there is nothing to wait for, which is no error here.
pub(crate) fn wait_until_up(socket: &mut Socket, link: &Link) -> Result<(), Error> {
    if link.oper_state == OperState::Up {
        return Ok(());
    }
    let mut monitor = Monitor::of_links()?;
    monitor.wait_for(UP_TIMEOUT, || {
        let now = socket.link_by_index(link.index)?;
        Ok::<_, Error>(now.is_none_or(|it| it.oper_state == OperState::Up).then_some(()))
    })?;
    Ok(())
}

/// Carries out `requests` and waits until no IPv6 address is tentative.
fn settle(
    socket: &mut Socket,
    index: u32,
    ifname: &str,
    requests: &[Request],
) -> Result<(), Error> {
    let mut monitor = Monitor::of_ipv6_addresses()?;
    socket.execute(requests)?;
    let settled = monitor.wait_for(SETTLE_TIMEOUT, || {
        let addresses = socket.addresses(index, ifname)?;
        if let Some(duplicate) = addresses.iter().find(|address| address.is_duplicate) {
            return Err(Error::Conflict(format!(
                "address {} of {ifname:?} is in use by somebody else (duplicate address detection)",
                duplicate.cidr
            )));
        }
        Ok(addresses.iter().all(|address| !address.is_tentative).then_some(()))
    })?;
    settled.ok_or_else(|| {
        let seconds = SETTLE_TIMEOUT.as_secs();
        Error::Conflict(format!("link {ifname:?} still has tentative addresses after {seconds} s"))
    })
}

/// The result's routes as the kernel gets them: a route without next hop goes by the first gateway
/// of its family.
pub(crate) fn plan_routes(result: &AddResult, link: u32) -> Result<Vec<Route>, Error> {
    result.routes.iter().map(|route| plan_route(result, route, link)).collect()
}

fn plan_route(result: &AddResult, route: &ResultRoute, link: u32) -> Result<Route, Error> {
    let number = |key: &str, value: Option<i64>| {
        value.filter(|value| *value != 0).map(u32::try_from).transpose().map_err(|_| {
            Error::IpamResult(format!("route {}: {key} is not a 32-bit number", route.dst))
        })
    };
    let is_same_family = |address: &IpAddr| address.is_ipv4() == route.dst.is_ipv4();
    let first_gateway = || result.ips.iter().filter_map(|ip| ip.gateway).find(is_same_family);
    let scope = number("scope", route.scope)?.unwrap_or_default();
    Ok(Route {
        gateway: route.gw.or_else(first_gateway),
        scope: u8::try_from(scope).map_err(|_| {
            Error::IpamResult(format!("route {}: scope {scope} is above 255", route.dst))
        })?,
        table: number("table", route.table)?.unwrap_or(Route::MAIN_TABLE),
        priority: number("priority", route.priority)?.unwrap_or_default(),
        mtu: number("mtu", route.mtu)?,
        advmss: number("advmss", route.advmss)?,
        ..Route::new(route.dst, link)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cni::IpConfig;

    fn result(routes: Vec<ResultRoute>) -> AddResult {
        let ip = |address: &str, gateway: &str| IpConfig {
            interface: Some(0),
            address: address.parse().unwrap(),
            gateway: Some(gateway.parse().unwrap()),
        };
        let ips = vec![ip("10.1.0.2/24", "10.1.0.1"), ip("fd00::2/64", "fd00::1")];
        AddResult { ips, routes, ..AddResult::default() }
    }

    #[test]
    fn routes_go_by_the_gateway_of_their_family() {
        let default = |dst: &str| ResultRoute::new(dst.parse().unwrap(), None);
        let routes = plan_routes(&result(vec![default("0.0.0.0/0"), default("::/0")]), 7).unwrap();
        let gateways: Vec<_> = routes.iter().map(|r| r.gateway.unwrap().to_string()).collect();
        assert_eq!(gateways, ["10.1.0.1", "fd00::1"]);
        assert!(routes.iter().all(|route| route.link == 7 && route.table == Route::MAIN_TABLE));
    }

    #[test]
    fn attributes_reach_the_kernel() {
        let route = ResultRoute {
            mtu: Some(1300),
            advmss: Some(1200),
            priority: Some(50),
            table: Some(1000),
            scope: Some(253),
            ..ResultRoute::new("10.9.0.0/16".parse().unwrap(), Some("10.1.0.9".parse().unwrap()))
        };
        let routes = plan_routes(&result(vec![route]), 7).unwrap();
        let expected = Route {
            gateway: Some("10.1.0.9".parse().unwrap()),
            mtu: Some(1300),
            advmss: Some(1200),
            priority: 50,
            table: 1000,
            scope: 253,
            ..Route::new("10.9.0.0/16".parse().unwrap(), 7)
        };
        assert_eq!(routes, [expected]);
    }

    #[test]
    fn numbers_that_the_kernel_has_no_room_for_are_refused() {
        for route in [
            ResultRoute { mtu: Some(-1), ..ResultRoute::new("10.0.0.0/8".parse().unwrap(), None) },
            ResultRoute {
                scope: Some(256),
                ..ResultRoute::new("10.0.0.0/8".parse().unwrap(), None)
            },
        ] {
            assert!(plan_routes(&result(vec![route]), 7).is_err());
        }
    }
}
