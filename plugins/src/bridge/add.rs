//! ADD.

use std::cell::RefCell;

use cni::{AddResult, Call};
use ipnetwork::IpNetwork;
use netlink::{Link, PortOptions, Request, Socket};
use netns::Netns;

use super::conf::Conf;
use super::{gateway, host, mac_spoof_check};
use crate::container_interface::{self, Options};
use crate::delegated_ipam::DelegatedIpam;
use crate::error::Error;
use crate::masquerade;
use crate::rollback::Rollback;
use crate::sysctl;
use crate::teardown::undo_attachment as detach;
use crate::veth::{self, Veth};

/// Attaches the container to the bridge.
pub(super) fn add(call: &Call) -> Result<AddResult, Error> {
    let conf = Conf::parse(call)?;
    conf.ensure_supported()?;
    let ipam = DelegatedIpam::find(call)?;
    ipam.as_ref().map_or(Ok(()), |ipam| container_interface::refuse_small_mtu(conf.mtu, ipam))?;
    let netns = veth::open_netns(call)?;
    let mut socket = Socket::open()?;
    let leased = RefCell::new(None);
    let mut rollback = Rollback::default();

    let bridge = host::ensure_bridge(&mut socket, &conf)?;
    let veth = create_port(&mut socket, &conf, call, &netns, &bridge)?;
    rollback.push("detach the container", || detach(call, &netns, ipam.as_ref(), &leased));
    set_port_options(&mut socket, &conf, &veth.host)?;
    if conf.mac_spoof_check {
        mac_spoof_check::set_up(call, &veth)?;
        rollback
            .push("remove the check of hardware addresses", || mac_spoof_check::tear_down(call));
    }

    let mut result = AddResult::default();
    if let Some(ipam) = &ipam {
        result = ipam.add()?;
        *leased.borrow_mut() = Some(result.clone());
        let gateways = gateway::complete(&conf, &mut result)?;
        configure_container(call, &conf, &netns, &veth, &result)?;
        set_up_gateway(&mut socket, &conf, &bridge, &gateways)?;
        if conf.ip_masq {
            let addresses: Vec<IpNetwork> = result.ips.iter().map(|ip| ip.address).collect();
            masquerade::set_up_or_undo(call, conf.ip_masq_backend, addresses, &mut rollback)?;
        }
    } else if !conf.disable_container_interface {
        let _entered = netns.enter()?;
        Socket::open()?.execute(&[Request::set_up(veth.container_index, &call.ifname)])?;
    }
    finish(&mut socket, &conf, call, (&veth, &bridge), &mut result)?;
    rollback.commit();
    Ok(result)
}

fn create_port(
    socket: &mut Socket,
    conf: &Conf,
    call: &Call,
    netns: &Netns,
    bridge: &Link,
) -> Result<Veth, Error> {
    let spec = veth::Spec {
        ifname: &call.ifname,
        netns,
        mac: conf.mac,
        mtu: conf.mtu,
        bridge: Some(bridge.index),
    };
    veth::create(socket, &spec)
}

/// A new port has none of the options.
fn set_port_options(socket: &mut Socket, conf: &Conf, port: &Link) -> Result<(), Error> {
    if conf.port != PortOptions::default() {
        socket.execute(&[Request::set_port_options(port.index, &port.name, conf.port)])?;
    }
    Ok(())
}

fn configure_container(
    call: &Call,
    conf: &Conf,
    netns: &Netns,
    veth: &Veth,
    result: &AddResult,
) -> Result<(), Error> {
    let routes = container_interface::plan_routes(result, veth.container_index)?;
    let addresses: Vec<IpNetwork> = result.ips.iter().map(|ip| ip.address).collect();
    let ifname = &call.ifname;
    let _entered = netns.enter()?;
    let ipv6 = format!("net/ipv6/conf/{ifname}");
    sysctl::try_write(&format!("{ipv6}/accept_ra"), "0");
    if conf.detect_duplicates {
        sysctl::try_write(&format!("{ipv6}/enhanced_dad"), "1");
    }
    let accept_dad = if conf.detect_duplicates { "1" } else { "0" };
    sysctl::try_write(&format!("{ipv6}/accept_dad"), accept_dad);
    let options = Options {
        mtu: veth.host.mtu,
        detect_duplicates: conf.detect_duplicates,
        network_routes: true,
        announce_addresses: true,
    };
    let mut socket = Socket::open()?;
    let index = veth.container_index;
    container_interface::configure(&mut socket, index, ifname, &addresses, &routes, options)
}

fn set_up_gateway(
    socket: &mut Socket,
    conf: &Conf,
    bridge: &Link,
    gateways: &[IpNetwork],
) -> Result<(), Error> {
    host::ensure_addresses(socket, conf, bridge, gateways)?;
    let has = |is_ipv4| gateways.iter().any(|gateway| gateway.is_ipv4() == is_ipv4);
    sysctl::enable_forwarding(socket, has(true), has(false))
}

/// Waits for the port and completes the result with the interfaces.
fn finish(
    socket: &mut Socket,
    conf: &Conf,
    call: &Call,
    (veth, bridge): (&Veth, &Link),
    result: &mut AddResult,
) -> Result<(), Error> {
    let (port, bridge) = if conf.disable_container_interface {
        socket.link_pair(veth.host.index, bridge.index)?
    } else {
        host::wait_for_port(socket, &veth.host, bridge)?
    };
    result.interfaces =
        vec![veth::host_entry(&bridge), veth::host_entry(&port), veth::container_entry(call, veth)];
    if let Some(dns) = &conf.dns {
        result.dns = dns.clone();
    }
    // A version that cannot express the result is an error before it is too late.
    result.to_json(call.conf.version)?;
    Ok(())
}
