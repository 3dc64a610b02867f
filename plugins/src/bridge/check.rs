//! CHECK and STATUS.

use std::path::Path;

use cni::Call;
use netlink::{Link, Socket};

use super::conf::Conf;
use crate::delegated_ipam::{self, DelegatedIpam};
use crate::error::Error;
use crate::prev_result::{self, Attachment};
use crate::{masquerade, veth};

/// Whether the attachment still is as ADD left it.
pub(super) fn check(call: &Call) -> Result<(), Error> {
    let conf = Conf::parse(call)?;
    conf.ensure_supported()?;
    let netns = veth::open_netns(call)?;
    if let Some(ipam) = DelegatedIpam::find(call)? {
        ipam.check()?;
    }
    let attachment = prev_result::attachment(call)?;
    let mut host = Socket::open()?;
    let bridge = check_bridge(&mut host, &conf, &attachment)?;
    let container = {
        let _entered = netns.enter()?;
        let mut socket = Socket::open()?;
        let link = attachment.check_veth(&mut socket, !conf.disable_container_interface)?;
        attachment.check_addresses_and_routes(&mut socket, &link)?;
        link
    };
    check_port(&mut host, &attachment, &bridge, &container)
}

fn check_bridge(host: &mut Socket, conf: &Conf, attachment: &Attachment) -> Result<Link, Error> {
    let name = &conf.bridge;
    let changed = |text: String| Err(Error::Changed(text));
    let Some(bridge) = host.link_by_name(name)? else {
        return changed(format!("bridge {name:?} does not exist"));
    };
    if bridge.kind != "bridge" {
        return changed(format!("{name:?} is not a bridge"));
    }
    let is_bridge = |entry: &&cni::Interface| entry.name == *name && entry.sandbox.is_empty();
    let Some(entry) = attachment.result.interfaces.iter().find(is_bridge) else {
        return changed(format!("prevResult has no interface {name:?}"));
    };
    // A bridge that is no gateway follows its ports' addresses, and nobody remembers its own.
    let is_pinned = conf.is_gateway && !entry.mac.is_empty();
    if is_pinned && !entry.mac.eq_ignore_ascii_case(&bridge.mac_text()) {
        let found = bridge.mac_text();
        return changed(format!("bridge {name:?} has MAC {found}, prevResult says {}", entry.mac));
    }
    if conf.promiscuous && !bridge.is_promiscuous {
        return changed(format!("bridge {name:?} is not in promiscuous mode"));
    }
    Ok(bridge)
}

/// The host's end must be a port of the bridge, and the one that the result names.
fn check_port(
    host: &mut Socket,
    attachment: &Attachment,
    bridge: &Link,
    container: &Link,
) -> Result<(), Error> {
    let changed = |text: String| Err(Error::Changed(text));
    let Some(port) = host.link_by_index(container.peer.unwrap_or(container.index))? else {
        return changed(format!("the host's end of {:?} does not exist", container.name));
    };
    if port.controller != Some(bridge.index) {
        return changed(format!("{:?} is not a port of bridge {:?}", port.name, bridge.name));
    }
    let is_port = |entry: &&cni::Interface| {
        entry.sandbox.is_empty()
            && entry.name == port.name
            && (entry.mac.is_empty() || entry.mac.eq_ignore_ascii_case(&port.mac_text()))
    };
    if !attachment.result.interfaces.iter().any(|entry| is_port(&entry)) {
        return changed(format!("CNI veth created for bridge {} was not found", bridge.name));
    }
    Ok(())
}

/// Whether an ADD could succeed.
pub(super) fn status(call: &Call) -> Result<(), Error> {
    let conf = Conf::parse(call)?;
    conf.ensure_supported()?;
    if is_taken(&conf.bridge)? {
        let name = &conf.bridge;
        return Err(Error::NotAvailable(format!("{name:?} exists but is not a bridge")));
    }
    if conf.ip_masq {
        masquerade::available(conf.ip_masq_backend)?;
    }
    delegated_ipam::status(call, false)
}

/// Whether the bridge's name is something else's. sysfs tells without waiting for the kernel's
/// lock on links, which a busy node holds for long; where it is of another namespace it may be
/// wrong, so that what it says is taken is looked up.
fn is_taken(name: &str) -> Result<bool, Error> {
    let link = Path::new("/sys/class/net").join(name);
    if !link.exists() || link.join("bridge").exists() {
        return Ok(false);
    }
    let mut socket = Socket::open().map_err(|error| Error::NotAvailable(error.to_string()))?;
    Ok(socket.link_by_name(name)?.is_some_and(|link| link.kind != "bridge"))
}
