//! ADD.

use std::cell::RefCell;
use std::net::IpAddr;

use cni::{AddResult, Call, IpConfig};
use ipnetwork::IpNetwork;
use netlink::{AddressOptions, Request, Route, Socket};
use netns::Netns;

use super::conf::Conf;
use crate::container_interface::{self, Options};
use crate::delegated_ipam::DelegatedIpam;
use crate::error::Error;
use crate::masquerade;
use crate::rollback::Rollback;
use crate::sysctl;
use crate::teardown::undo_attachment as detach;
use crate::veth::{self, Veth};

/// Index of the container's interface in the result, after the host's end.
const CONTAINER: i64 = 1;

/// Attaches the container to the host.
pub(super) fn add(call: &Call) -> Result<AddResult, Error> {
    let conf = Conf::parse(call)?;
    let ipam = DelegatedIpam::require(call)?;
    container_interface::refuse_small_mtu(conf.mtu, &ipam)?;
    let netns = veth::open_netns(call)?;
    let mut socket = Socket::open()?;
    let leased = RefCell::new(None);
    let mut rollback = Rollback::default();

    let spec =
        veth::Spec { ifname: &call.ifname, netns: &netns, mac: None, mtu: conf.mtu, bridge: None };
    let veth = veth::create(&mut socket, &spec)?;
    rollback.push("detach the container", || detach(call, &netns, Some(&ipam), &leased));
    let mut result = ipam.add()?;
    *leased.borrow_mut() = Some(result.clone());
    let attachments = attachments(&mut result)?;
    let has = |is_ipv4| attachments.iter().any(|ip| ip.cidr.is_ipv4() == is_ipv4);
    sysctl::enable_forwarding(&mut socket, has(true), has(false))?;

    // A host that is still looking for duplicates of its link-local address cannot ask for its
    // neighbours', so it would drop what it forwards to the container for the first second or two.
    sysctl::try_write(&format!("net/ipv6/conf/{}/accept_dad", veth.host.name), "0");
    configure_container(call, &netns, &veth, &attachments, &result)?;
    configure_host(&mut socket, &veth, &attachments)?;
    if conf.ip_masq {
        let addresses = attachments.iter().map(|ip| ip.cidr).collect();
        masquerade::set_up_or_undo(call, conf.ip_masq_backend, addresses, &mut rollback)?;
    }

    result.interfaces = vec![veth::host_entry(&veth.host), veth::container_entry(call, &veth)];
    result.dns = conf.dns.unwrap_or(result.dns);
    // A version that cannot express the result is an error before it is too late.
    result.to_json(call.conf.version)?;
    rollback.commit();
    Ok(result)
}

/// An address with the gateway that it cannot be without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Attached {
    cidr: IpNetwork,
    gateway: IpAddr,
}

impl Attached {
    /// The address alone.
    fn host(&self) -> Result<IpNetwork, Error> {
        alone(self.cidr.ip())
    }

    fn gateway_host(&self) -> Result<IpNetwork, Error> {
        alone(self.gateway)
    }
}

/// An address as the network of nothing but itself.
fn alone(address: IpAddr) -> Result<IpNetwork, Error> {
    let prefix = if address.is_ipv4() { 32 } else { 128 };
    IpNetwork::new(address, prefix).map_err(|error| Error::IpamResult(error.to_string()))
}

/// Gives every address of the result to the container's interface.
fn attachments(result: &mut AddResult) -> Result<Vec<Attached>, Error> {
    let attached = |ip: &mut IpConfig| {
        ip.interface = Some(CONTAINER);
        let cidr = ip.address;
        match ip.gateway {
            Some(gateway) if gateway.is_ipv4() == cidr.is_ipv4() => Ok(Attached { cidr, gateway }),
            Some(gateway) => {
                let text = format!("gateway {gateway} of address {cidr} is of another family");
                Err(Error::IpamResult(text))
            }
            None => Err(Error::IpamResult(format!(
                "address {cidr} has no gateway, and ptp routes everything through it (add ipam gateway)"
            ))),
        }
    };
    result.ips.iter_mut().map(attached).collect()
}

/// The container reaches nothing but its gateway directly: not even the rest of its network, which
/// is on the other side of the host.
fn configure_container(
    call: &Call,
    netns: &Netns,
    veth: &Veth,
    attachments: &[Attached],
    result: &AddResult,
) -> Result<(), Error> {
    let link = veth.container_index;
    let mut routes = Vec::new();
    for ip in attachments {
        let source = Some(ip.cidr.ip());
        let gateway = ip.gateway_host()?;
        routes.push(Route { source, scope: Route::SCOPE_LINK, ..Route::new(gateway, link) });
        let via_gateway = Some(ip.gateway);
        routes.push(Route { source, gateway: via_gateway, ..Route::new(ip.cidr, link) });
    }
    routes.extend(container_interface::plan_routes(result, link)?);
    let addresses: Vec<IpNetwork> = attachments.iter().map(|ip| ip.cidr).collect();
    let ifname = &call.ifname;
    let _entered = netns.enter()?;
    sysctl::try_write(&format!("net/ipv6/conf/{ifname}/accept_ra"), "0");
    sysctl::try_write(&format!("net/ipv6/conf/{ifname}/accept_dad"), "0");
    let options = Options {
        mtu: veth.host.mtu,
        detect_duplicates: false,
        network_routes: false,
        announce_addresses: false,
    };
    let mut socket = Socket::open()?;
    container_interface::configure(&mut socket, link, ifname, &addresses, &routes, options)
}

/// The host's end has the gateways' addresses, and routes to the container's.
fn configure_host(socket: &mut Socket, veth: &Veth, attachments: &[Attached]) -> Result<(), Error> {
    let name = &veth.host.name;
    let link = veth.host.index;
    // The addresses are ours: nobody else can be on the link.
    let options = AddressOptions { detect_duplicates: false, network_route: true };
    let mut requests = Vec::new();
    for ip in attachments {
        let gateway = ip.gateway_host()?;
        // Two addresses of one network have one gateway.
        requests.push(Request::add_address(link, name, gateway, options).or_exists());
        let route = Route { scope: Route::SCOPE_HOST, ..Route::new(ip.host()?, link) };
        requests.push(Request::add_route(&route, name).or_exists());
    }
    let link = socket.execute_and_look_up(requests, link)?;
    container_interface::wait_until_up(socket, &link)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(address: &str, gateway: Option<&str>) -> AddResult {
        let ip = IpConfig {
            interface: None,
            address: address.parse().unwrap(),
            gateway: gateway.map(|text| text.parse().unwrap()),
        };
        AddResult { ips: vec![ip], ..AddResult::default() }
    }

    #[test]
    fn addresses_need_a_gateway_of_their_family() {
        assert!(attachments(&mut result("10.1.0.2/24", None)).is_err());
        assert!(attachments(&mut result("10.1.0.2/24", Some("fd00::1"))).is_err());
        let mut good = result("10.1.0.2/24", Some("10.1.0.1"));
        let attached = attachments(&mut good).unwrap();
        assert_eq!(attached[0].gateway_host().unwrap().to_string(), "10.1.0.1/32");
        assert_eq!(attached[0].host().unwrap().to_string(), "10.1.0.2/32");
        assert_eq!(good.ips[0].interface, Some(CONTAINER));
    }
}
