//! Routes.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
    RouteProtocol, RouteScope, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use crate::address::family;
use crate::answer::Answer;
use crate::{Error, Request, Socket};

/// A unicast route through a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Destination; host bits are not looked at.
    pub dst: IpNetwork,
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// Index of the link.
    pub link: u32,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Scope as in rtnetlink: 0 universe, 253 link, 254 host.
    pub scope: u8,
    /// Routing table.
    pub table: u32,
    /// Metric; 0 leaves the kernel's default (IPv6: 1024).
    pub priority: u32,
    /// Path MTU, bytes.
    pub mtu: Option<u32>,
    /// Advertised segment size, bytes.
    pub advmss: Option<u32>,
}

impl Route {
    /// The main table's number.
    pub const MAIN_TABLE: u32 = 254;
    /// Scope of a destination that is on the link.
    pub const SCOPE_LINK: u8 = 253;
    /// Scope of a destination that is this host's.
    pub const SCOPE_HOST: u8 = 254;

    /// A route of the main table with nothing but its destination.
    #[must_use]
    pub const fn new(dst: IpNetwork, link: u32) -> Self {
        Self {
            dst,
            gateway: None,
            link,
            source: None,
            scope: 0,
            table: Self::MAIN_TABLE,
            priority: 0,
            mtu: None,
            advmss: None,
        }
    }

    /// The destination without host bits.
    #[must_use]
    pub fn destination(&self) -> (IpAddr, u8) {
        (self.dst.network(), self.dst.prefix())
    }

    pub(crate) fn message(&self) -> RouteMessage {
        let (network, prefix) = self.destination();
        let mut message = RouteMessage::default();
        message.header.address_family = family(network);
        message.header.destination_prefix_length = prefix;
        message.header.protocol = RouteProtocol::Boot;
        message.header.scope = RouteScope::from(self.scope);
        message.header.kind = RouteType::Unicast;
        let mut attributes = vec![RouteAttribute::Oif(self.link)];
        if prefix > 0 {
            attributes.push(RouteAttribute::Destination(network.into()));
        }
        attributes.extend(self.gateway.map(|address| RouteAttribute::Gateway(address.into())));
        attributes.extend(self.source.map(|address| RouteAttribute::PrefSource(address.into())));
        if self.priority > 0 {
            attributes.push(RouteAttribute::Priority(self.priority));
        }
        match u8::try_from(self.table) {
            Ok(table) => message.header.table = table,
            Err(_) => attributes.push(RouteAttribute::Table(self.table)),
        }
        let metrics: Vec<RouteMetric> =
            [self.mtu.map(RouteMetric::Mtu), self.advmss.map(RouteMetric::Advmss)]
                .into_iter()
                .flatten()
                .collect();
        if !metrics.is_empty() {
            attributes.push(RouteAttribute::Metrics(metrics));
        }
        message.attributes = attributes;
        message
    }
}

impl Request {
    /// Adds a route. One of another next hop to the same destination stays beside it; the same
    /// route once more is refused with EEXIST.
    #[must_use]
    pub fn add_route(route: &Route, link_name: &str) -> Self {
        let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
        let what = format!("add route {}{via} dev {link_name:?}", route.dst);
        Self::new(what, RouteNetlinkMessage::NewRoute(route.message()), NLM_F_CREATE)
    }

    /// Puts a route in the place of one to the same destination with the same metric, if there is one.
    #[must_use]
    pub fn replace_route(route: &Route, link_name: &str) -> Self {
        Self { flags: NLM_F_CREATE | NLM_F_REPLACE, ..Self::add_route(route, link_name) }
    }

    /// Deletes a route.
    #[must_use]
    pub fn delete_route(route: &Route, link_name: &str) -> Self {
        let mut message = route.message();
        // Whoever made it: the kernel only compares a protocol that is given.
        message.header.protocol = RouteProtocol::Unspec;
        let what = format!("delete route {} dev {link_name:?}", route.dst);
        Self::new(what, RouteNetlinkMessage::DelRoute(message), 0)
    }
}

impl Socket {
    /// Unicast routes of one family, of all tables.
    ///
    /// # Errors
    /// [`Error`].
    pub fn routes(&mut self, is_ipv4: bool) -> Result<Vec<Route>, Error> {
        let what = "list routes".to_owned();
        let question = RouteNetlinkMessage::GetRoute(question(is_ipv4));
        let messages = self.dump(&Request::dump(what, question))?;
        Ok(messages.into_iter().flat_map(|message| read(message, is_ipv4)).collect())
    }
}

impl Socket {
    /// The route that a packet of this host to an address would take; `None` when there is none, or the address is no
    /// single other host's.
    ///
    /// # Errors
    /// [`Error`].
    pub fn route_to(&mut self, address: IpAddr) -> Result<Option<Route>, Error> {
        self.ask_for_route(address, RouteFlags::empty())
    }

    /// The same as it stands in its table, with its own destination (`RTM_F_FIB_MATCH`); of several next hops the first.
    ///
    /// # Errors
    /// [`Error`].
    pub fn matching_route(&mut self, address: IpAddr) -> Result<Option<Route>, Error> {
        self.ask_for_route(address, RouteFlags::FibMatch)
    }

    /// Whether packets to an address are for this host.
    ///
    /// # Errors
    /// [`Error`].
    pub fn is_local(&mut self, address: IpAddr) -> Result<bool, Error> {
        let answers = self.answers_for_route(address, RouteFlags::empty())?;
        Ok(answers.iter().any(|answer| match answer {
            Answer::Other(RouteNetlinkMessage::NewRoute(message)) => {
                message.header.kind == RouteType::Local
            }
            _ => false,
        }))
    }

    fn ask_for_route(
        &mut self,
        address: IpAddr,
        flags: RouteFlags,
    ) -> Result<Option<Route>, Error> {
        let answers = self.answers_for_route(address, flags)?.into_iter();
        Ok(answers.flat_map(|it| read(it, address.is_ipv4())).next())
    }

    /// What the kernel says of the way to an address; nothing where there is none.
    fn answers_for_route(
        &mut self,
        address: IpAddr,
        flags: RouteFlags,
    ) -> Result<Vec<Answer>, Error> {
        let mut message = question(address.is_ipv4());
        message.header.flags = flags;
        message.header.destination_prefix_length = if address.is_ipv4() { 32 } else { 128 };
        message.attributes.push(RouteAttribute::Destination(address.into()));
        let what = format!("ask for the route to {address}");
        let request = Request::new(what, RouteNetlinkMessage::GetRoute(message), 0);
        match self.execute_and_get(&[request]) {
            Ok(answers) => Ok(answers),
            Err(error) => match error.errno() {
                Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES | Errno::EINVAL) => {
                    Ok(Vec::new())
                }
                _ => Err(error),
            },
        }
    }
}

/// What asks for the routes of a family.
pub(crate) fn question(is_ipv4: bool) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family =
        if is_ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message
}

/// The unicast routes of a message.
fn read(answer: Answer, is_ipv4: bool) -> Vec<Route> {
    let Answer::Other(RouteNetlinkMessage::NewRoute(message)) = answer else { return Vec::new() };
    if message.header.kind != RouteType::Unicast {
        return Vec::new();
    }
    read_message(message, is_ipv4)
}

/// The routes of a message: several when it has several next hops.
pub(crate) fn read_message(message: RouteMessage, is_ipv4: bool) -> Vec<Route> {
    let prefix = message.header.destination_prefix_length;
    let everything: IpAddr = if is_ipv4 { [0; 4].into() } else { [0; 16].into() };
    let Ok(mut dst) = IpNetwork::new(everything, prefix) else { return Vec::new() };
    let mut next_hops = Vec::new();
    let mut route = Route::new(dst, 0);
    route.scope = message.header.scope.into();
    route.table = message.header.table.into();
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => {
                dst = address_of(&address)
                    .and_then(|a| IpNetwork::new(a, prefix).ok())
                    .unwrap_or(dst);
            }
            RouteAttribute::Gateway(address) => route.gateway = address_of(&address),
            // A next hop of IPv6 for a destination of IPv4.
            RouteAttribute::Via(RouteVia::Inet6(address)) => route.gateway = Some(address.into()),
            RouteAttribute::PrefSource(address) => route.source = address_of(&address),
            RouteAttribute::Oif(link) => route.link = link,
            RouteAttribute::Table(table) => route.table = table,
            RouteAttribute::Priority(priority) => route.priority = priority,
            RouteAttribute::MultiPath(hops) => next_hops = hops,
            RouteAttribute::Metrics(metrics) => {
                for metric in metrics {
                    match metric {
                        RouteMetric::Mtu(mtu) => route.mtu = Some(mtu),
                        RouteMetric::Advmss(advmss) => route.advmss = Some(advmss),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    route.dst = dst;
    if next_hops.is_empty() {
        return vec![route];
    }
    let through = |hop: netlink_packet_route::route::RouteNextHop| {
        let gateway = hop.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(address) => address_of(address),
            _ => None,
        });
        Route { link: hop.interface_index, gateway, ..route.clone() }
    };
    next_hops.into_iter().map(through).collect()
}

const fn address_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

const _: () = assert!(RouteHeader::RT_TABLE_MAIN as u32 == Route::MAIN_TABLE);
