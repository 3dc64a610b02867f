//! The host's side: the bridge itself, its addresses, and its ports.

use std::time::Duration;

use ipnetwork::IpNetwork;
use netlink::{AddressOptions, BridgeSpec, Link, Monitor, OperState, Request, Socket};

use super::conf::Conf;
use super::gateway::{Change, change};
use crate::container_interface::IPV6_MIN_MTU;
use crate::error::Error;
use crate::sysctl;
use crate::veth;

/// How long the host's end may take to come up (reference: 2.55 s in five looks).
const PORT_TIMEOUT: Duration = Duration::from_millis(2550);

/// The bridge, created and set up where it is not yet. One that exists keeps its MTU.
pub(super) fn ensure_bridge(host: &mut Socket, conf: &Conf) -> Result<Link, Error> {
    let name = &conf.bridge;
    let bridge = match host.link_by_name(name)? {
        Some(link) => link,
        None => create_bridge(host, conf)?,
    };
    if bridge.kind != "bridge" {
        return Err(Error::Conflict(format!("{name:?} already exists but is not a bridge")));
    }
    let mut requests = Vec::new();
    if conf.promiscuous && !bridge.is_promiscuous {
        requests.push(Request::set_promiscuous(bridge.index, name, true));
    }
    // A bridge that took an advertised address would route for containers it does not know.
    if bridge.accepts_advertisements == Some(true) {
        sysctl::try_write(&format!("net/ipv6/conf/{name}/accept_ra"), "0");
    }
    if !bridge.is_up {
        requests.push(Request::set_up(bridge.index, name));
    }
    host.execute(&requests)?;
    Ok(bridge)
}

fn create_bridge(host: &mut Socket, conf: &Conf) -> Result<Link, Error> {
    let vlan_filtering = conf.vlan != 0 || conf.trunk.is_some();
    // Containers remember their gateway by its hardware address: it must not follow the ports.
    let mac = conf.is_gateway.then(veth::random_mac);
    let spec = BridgeSpec { name: &conf.bridge, mtu: conf.mtu, mac, vlan_filtering };
    // Another ADD may create it at the same moment.
    let bridge = host.create_link(Request::create_bridge(&spec).or_exists(), &conf.bridge)?;
    // Without a link-local address the host cannot ask for its neighbours', so while it looked for
    // duplicates of it, it would drop what it forwards to the first containers.
    sysctl::try_write(&format!("net/ipv6/conf/{}/accept_dad", conf.bridge), "0");
    Ok(bridge)
}

/// Gives the bridge the gateways' addresses.
pub(super) fn ensure_addresses(
    host: &mut Socket,
    conf: &Conf,
    bridge: &Link,
    gateways: &[IpNetwork],
) -> Result<(), Error> {
    if gateways.is_empty() {
        return Ok(());
    }
    let listed = host.addresses(bridge.index, &bridge.name)?;
    let mut present: Vec<IpNetwork> = listed.iter().map(|address| address.cidr).collect();
    let mut requests = Vec::new();
    for wanted in gateways {
        let Change::Add { conflicting } = change(*wanted, &present) else { continue };
        if let Some(other) = conflicting.first().filter(|_| !conf.force_address) {
            return Err(Error::Conflict(format!(
                "failed to set bridge addr: {:?} already has an IP address different from {wanted}: {other} (forceAddress replaces it)",
                bridge.name
            )));
        }
        if wanted.is_ipv6() && bridge.mtu < IPV6_MIN_MTU {
            return Err(Error::Conflict(format!(
                "cannot give {wanted} to {:?}: its mtu is {}, and IPv6 needs at least {IPV6_MIN_MTU} (a bridge takes the smallest mtu of its ports)",
                bridge.name, bridge.mtu
            )));
        }
        for other in &conflicting {
            requests.push(Request::delete_address(bridge.index, &bridge.name, *other).or_gone());
        }
        present.retain(|address| !conflicting.contains(address));
        present.push(*wanted);
        let options = AddressOptions { detect_duplicates: false, network_route: true };
        let add = Request::add_address(bridge.index, &bridge.name, *wanted, options);
        // Another ADD may add it at the same moment.
        requests.push(add.or_exists());
    }
    if requests.is_empty() {
        return Ok(());
    }
    host.execute(&requests)?;
    pin_mac(host, bridge)
}

/// Sets the hardware address of a bridge that somebody else made to what it was before the
/// container's port, so that it no longer changes as ports come and go.
fn pin_mac(host: &mut Socket, bridge: &Link) -> Result<(), Error> {
    let mut mac = bridge.mac.filter(|mac| !mac.is_zero());
    if mac.is_none() {
        // A bridge without ports may have lost its address, and zero cannot be set (plugins#620).
        mac = host.link_by_index(bridge.index)?.and_then(|link| link.mac);
    }
    if let Some(mac) = mac.filter(|mac| !mac.is_zero()) {
        host.execute(&[Request::set_mac(bridge.index, &bridge.name, mac)])?;
    }
    Ok(())
}

/// Waits until the port is up; returns port and bridge as they are then.
pub(super) fn wait_for_port(
    host: &mut Socket,
    port: &Link,
    bridge: &Link,
) -> Result<(Link, Link), Error> {
    let (first, bridge_now) = host.link_pair(port.index, bridge.index)?;
    if first.oper_state == OperState::Up {
        return Ok((first, bridge_now));
    }
    let mut monitor = Monitor::of_links()?;
    let mut state = first.oper_state;
    let pair = monitor.wait_for(PORT_TIMEOUT, || {
        let pair = host.link_pair(port.index, bridge.index)?;
        state = pair.0.oper_state;
        Ok::<_, Error>((state == OperState::Up).then_some(pair))
    })?;
    pair.ok_or_else(|| {
        Error::Conflict(format!(
            "bridge port in error state: {} (is the bridge {:?} up?)",
            state.to_string().to_lowercase(),
            bridge.name
        ))
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_wait_is_as_long_as_the_references() {
        assert_eq!(super::PORT_TIMEOUT.as_millis(), 50 + 500 + 1000 + 1000);
    }
}
