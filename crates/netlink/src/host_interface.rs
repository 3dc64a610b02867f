//! Behind which interface of this host an address is.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::{Error, FdbEntry, HardwareAddress, Link, Neighbour, Route, Socket};

/// The interface behind which an address is: packets from there come in through it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostInterface {
    /// Index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Index of its bridge, when it is a port.
    pub bridge: Option<u32>,
}

/// What tells where addresses are. A route to the one address does; else the kernel's neighbours
/// and, where they are behind a bridge, what that has learned. The latter two come from what
/// containers send, so that one of them can pretend to be where another is: whoever made the
/// interface knows better.
#[derive(Debug, Clone, Default)]
pub struct HostInterfaces {
    links: HashMap<u32, Link>,
    routed: HashMap<IpAddr, u32>,
    neighbours: HashMap<IpAddr, (u32, HardwareAddress)>,
    ports: HashMap<(u32, HardwareAddress), u32>,
}

impl HostInterfaces {
    /// From lists of the kernel.
    #[must_use]
    pub fn new(
        links: Vec<Link>,
        routes: &[Route],
        neighbours: &[Neighbour],
        fdb: &[FdbEntry],
    ) -> Self {
        let is_to_one = |route: &&Route| {
            let bits = if route.dst.is_ipv4() { 32 } else { 128 };
            route.dst.prefix() == bits && route.gateway.is_none()
        };
        let learned = fdb.iter().filter(|entry| !entry.is_own);
        Self {
            links: links.into_iter().map(|link| (link.index, link)).collect(),
            routed: routes
                .iter()
                .filter(is_to_one)
                .map(|route| (route.dst.ip(), route.link))
                .collect(),
            neighbours: neighbours
                .iter()
                .filter_map(|neighbour| Some((neighbour.address, (neighbour.link, neighbour.mac?))))
                .collect(),
            ports: learned
                .filter_map(|entry| Some(((entry.bridge?, entry.mac), entry.link)))
                .collect(),
        }
    }

    /// Where an address is; `None` when it is not on this host's links, or has not been heard of
    /// lately.
    #[must_use]
    pub fn of(&self, address: IpAddr) -> Option<HostInterface> {
        if let Some(link) = self.routed.get(&address) {
            return self.interface(*link);
        }
        let (link, mac) = *self.neighbours.get(&address)?;
        let is_bridge = self.links.get(&link)?.kind == "bridge";
        self.interface(if is_bridge { *self.ports.get(&(link, mac))? } else { link })
    }

    fn interface(&self, index: u32) -> Option<HostInterface> {
        let link = self.links.get(&index)?;
        // The controller of what is no port is another thing, such as a VRF.
        let is_bridge = |index: &u32| self.links.get(index).is_some_and(|it| it.kind == "bridge");
        let bridge = link.controller.filter(is_bridge);
        Some(HostInterface { index, name: link.name.clone(), bridge })
    }
}

impl Socket {
    /// Reads what tells where addresses are: links, routes, neighbours and forwarding databases.
    ///
    /// # Errors
    /// [`Error`].
    pub fn host_interfaces(&mut self) -> Result<HostInterfaces, Error> {
        let links = self.links()?;
        let (mut routes, mut neighbours) = (self.routes(true)?, self.neighbours(true)?);
        routes.extend(self.routes(false)?);
        neighbours.extend(self.neighbours(false)?);
        Ok(HostInterfaces::new(links, &routes, &neighbours, &self.fdb()?))
    }
}
