//! Routes that a daemon keeps, and knows again by their protocol.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use crate::answer::Answer;
use crate::{Error, Request, Route, Socket, route};

/// A route of a daemon. Others' routes, which have other protocols, are neither listed nor deleted
/// as one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeptRoute {
    /// Destination, without host bits.
    pub dst: IpNetwork,
    /// Routing table.
    pub table: u32,
    /// Metric; it is never 0, as IPv6 has none such.
    pub priority: u32,
    /// Where it leads.
    pub to: Hop,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hop {
    /// To a next hop.
    Gateway {
        /// Its address.
        gateway: IpAddr,
        /// The link that it is on.
        link: u32,
    },
    /// Nowhere, and the sender is told so.
    Unreachable,
    /// Elsewhere: no daemon of ours made it like this.
    Other,
}

impl KeptRoute {
    fn message(&self, protocol: u8) -> RouteMessage {
        let link = if let Hop::Gateway { link, .. } = self.to { link } else { 0 };
        let mut plain =
            Route { table: self.table, priority: self.priority, ..Route::new(self.dst, link) };
        if let Hop::Gateway { gateway, .. } = self.to {
            plain.gateway = Some(gateway);
        }
        let mut message = plain.message();
        message.header.protocol = RouteProtocol::from(protocol);
        if self.to == Hop::Unreachable {
            message.header.kind = RouteType::Unreachable;
        }
        if link == 0 {
            message.attributes.retain(|it| !matches!(it, RouteAttribute::Oif(_)));
        }
        message
    }
}

impl std::fmt::Display for KeptRoute {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.to {
            Hop::Gateway { gateway, .. } => write!(formatter, "{} via {gateway}", self.dst),
            Hop::Unreachable => write!(formatter, "unreachable {}", self.dst),
            Hop::Other => write!(formatter, "{}", self.dst),
        }
    }
}

impl Request {
    /// Adds a route of `protocol`. One to the same destination stays beside it; the same route once
    /// more is refused with EEXIST.
    #[must_use]
    pub fn add_kept_route(route: &KeptRoute, protocol: u8) -> Self {
        let message = RouteNetlinkMessage::NewRoute(route.message(protocol));
        Self::new(format!("add route {route}"), message, NLM_F_CREATE)
    }

    /// Deletes a route of `protocol`, and none of another.
    #[must_use]
    pub fn delete_kept_route(route: &KeptRoute, protocol: u8) -> Self {
        let mut message = route.message(protocol);
        // Whatever scope and kind it has.
        message.header.scope = RouteScope::NoWhere;
        message.header.kind = RouteType::Unspec;
        let message = RouteNetlinkMessage::DelRoute(message);
        Self::new(format!("delete route {route}"), message, 0)
    }
}

impl Socket {
    /// The routes of `protocol` of one family, of all tables.
    ///
    /// # Errors
    /// [`Error`].
    pub fn kept_routes(&mut self, is_ipv4: bool, protocol: u8) -> Result<Vec<KeptRoute>, Error> {
        let mut message = route::question(is_ipv4);
        // The kernel leaves out the others, where it can (Linux 4.20).
        message.header.protocol = RouteProtocol::from(protocol);
        let what = format!("list routes of protocol {protocol}");
        let answers = self.dump(&Request::dump(what, RouteNetlinkMessage::GetRoute(message)))?;
        Ok(answers.into_iter().filter_map(|answer| read(answer, is_ipv4, protocol)).collect())
    }
}

fn read(answer: Answer, is_ipv4: bool, protocol: u8) -> Option<KeptRoute> {
    let Answer::Other(RouteNetlinkMessage::NewRoute(message)) = answer else { return None };
    let kind = message.header.kind;
    if message.header.protocol != RouteProtocol::from(protocol) {
        return None;
    }
    let hops = route::read_message(message, is_ipv4);
    let first = hops.first()?;
    let to = match (kind, hops.as_slice()) {
        (RouteType::Unicast, [Route { gateway: Some(gateway), link, .. }]) => {
            Hop::Gateway { gateway: *gateway, link: *link }
        }
        (RouteType::Unreachable, _) => Hop::Unreachable,
        _ => Hop::Other,
    };
    let (network, prefix) = first.destination();
    let dst = IpNetwork::new(network, prefix).ok()?;
    Some(KeptRoute { dst, table: first.table, priority: first.priority, to })
}
