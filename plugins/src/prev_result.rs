//! The result of the plugins before this one, or of ADD, and whether the container's interface still is
//! as that says.

use std::path::Path;

use cni::{AddResult, Call, Interface, IpConfig};
use ipnetwork::IpNetwork;
use netlink::{Link, Route, Socket};

use crate::container_interface;
use crate::error::Error;

/// What CHECK knows of the container's interface.
pub(crate) struct Attachment {
    /// The result of ADD.
    pub(crate) result: AddResult,
    /// Its entry for the container's interface.
    pub(crate) interface: Interface,
}

fn changed(text: impl Into<String>) -> Error {
    Error::Changed(text.into())
}

/// The result that a plugin which stands behind others cannot be without.
pub(crate) fn required(call: &Call) -> Result<AddResult, Error> {
    call.conf.prev_result()?.ok_or_else(|| {
        let text =
            "prevResult: missing (this plugin stands behind the one that makes the interface)";
        Error::Config(text.into())
    })
}

/// Place of the container's interface in a result. The host may have one of the same name.
pub(crate) fn position(result: &AddResult, ifname: &str) -> Option<usize> {
    let is_inside = |entry: &Interface| entry.name == ifname && !entry.sandbox.is_empty();
    let has_name = |entry: &Interface| entry.name == ifname;
    let entries = &result.interfaces;
    entries.iter().position(is_inside).or_else(|| entries.iter().position(has_name))
}

/// The addresses of the container's interface. Those that name no interface are its own, too: the
/// versions before 0.3.0 name none.
pub(crate) fn ips_of<'a>(
    result: &'a AddResult,
    ifname: &str,
) -> impl Iterator<Item = &'a IpConfig> + use<'a> {
    let own = position(result, ifname);
    let is_own = move |index: i64| usize::try_from(index).is_ok_and(|index| Some(index) == own);
    result.ips.iter().filter(move |ip| ip.interface.is_none_or(is_own))
}

/// The result of ADD, with the interface that the call is about.
pub(crate) fn attachment(call: &Call) -> Result<Attachment, Error> {
    let result = call
        .conf
        .prev_result()?
        .ok_or_else(|| Error::Config("prevResult: missing, but CHECK needs it".into()))?;
    let interface = position(&result, &call.ifname)
        .and_then(|index| result.interfaces.get(index))
        .cloned()
        .ok_or_else(|| changed(format!("prevResult has no interface {:?}", call.ifname)))?;
    let netns = call.netns.as_deref().unwrap_or(Path::new(""));
    if Path::new(&interface.sandbox) != netns {
        return Err(changed(format!(
            "Sandbox in prevResult {} doesn't match configured netns: {}",
            interface.sandbox,
            netns.display()
        )));
    }
    Ok(Attachment { result, interface })
}

impl Attachment {
    /// Checks the container's link, a veth, which ADD set up or left down; the calling thread is in
    /// the container's namespace.
    pub(crate) fn check_veth(&self, socket: &mut Socket, was_up: bool) -> Result<Link, Error> {
        let name = &self.interface.name;
        let link = socket
            .link_by_name(name)?
            .ok_or_else(|| changed(format!("Cannot find container link {name:?}")))?;
        if link.kind != "veth" {
            return Err(changed(format!("container interface {name:?} is not of type veth")));
        }
        if !self.interface.mac.is_empty()
            && !self.interface.mac.eq_ignore_ascii_case(&link.mac_text())
        {
            return Err(changed(format!(
                "container interface {name:?} has MAC {}, prevResult says {}",
                link.mac_text(),
                self.interface.mac
            )));
        }
        if was_up && !link.is_up {
            return Err(changed(format!("container interface {name:?} is down")));
        }
        Ok(link)
    }

    /// Checks that the link has the interface's addresses, and the container its routes.
    ///
    /// A plugin later in the chain may have moved routes to another table (sbr, vrf), so they are
    /// looked for in all of them; and those that name no address of this interface are not ours.
    pub(crate) fn check_addresses_and_routes(
        &self,
        socket: &mut Socket,
        link: &Link,
    ) -> Result<(), Error> {
        let found = socket.addresses(link.index, &link.name)?;
        let position = self.result.interfaces.iter().position(|entry| *entry == self.interface);
        let is_ours = |index: Option<i64>| match (index, position) {
            (Some(index), Some(position)) => usize::try_from(index) == Ok(position),
            _ => true,
        };
        let ours: Vec<&IpConfig> =
            self.result.ips.iter().filter(|ip| is_ours(ip.interface)).collect();
        for ip in &ours {
            if !found.iter().any(|address| address.cidr == ip.address) {
                return Err(changed(format!(
                    "Failed to match addr {} on interface {}",
                    ip.address, link.name
                )));
            }
        }
        self.check_routes(socket, link, &ours)
    }

    fn check_routes(
        &self,
        socket: &mut Socket,
        link: &Link,
        ours: &[&IpConfig],
    ) -> Result<(), Error> {
        let mut wanted = container_interface::plan_routes(&self.result, link.index)?;
        // The way to the rest of each address's network, direct or through a gateway.
        let networks = ours.iter().map(|ip| ip.address);
        let has_others = |cidr: &IpNetwork| cidr.prefix() < if cidr.is_ipv4() { 32 } else { 128 };
        wanted.extend(networks.filter(has_others).map(|cidr| Route::new(cidr, link.index)));
        for is_ipv4 in [true, false] {
            let mut of_family = wanted.iter().filter(|r| r.dst.is_ipv4() == is_ipv4).peekable();
            if of_family.peek().is_none() {
                continue;
            }
            let present = socket.routes(is_ipv4)?;
            for route in of_family {
                if !present.iter().any(|other| is_same(route, other)) {
                    let (network, prefix) = route.destination();
                    return Err(changed(format!(
                        "Expected Route {network}/{prefix} via {} not found in any routing table",
                        route.gateway.map_or_else(|| "no gateway".into(), |g| g.to_string())
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Whether `present` is the route that was `wanted`. A default route may have got another gateway
/// (reference behaviour).
fn is_same(wanted: &Route, present: &Route) -> bool {
    wanted.destination() == present.destination()
        && (wanted.gateway.is_none()
            || wanted.dst.prefix() == 0
            || wanted.gateway == present.gateway)
}
