//! Routes as the kernel holds them, to be put elsewhere.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteType,
};

use crate::answer::Answer;
use crate::route::{question, read_message};
use crate::{Error, Request, Route, Socket};

/// A route with all that the kernel tells of it, also what [`Route`] does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRoute {
    /// What is known of it; the link is 0 when there are several next hops.
    pub route: Route,
    /// Whether it leads somewhere: neither to this host, nor nowhere.
    pub is_unicast: bool,
    message: RouteMessage,
}

impl From<Route> for HeldRoute {
    /// The route as the kernel holds it once it was added, but for what the kernel adds to it.
    fn from(route: Route) -> Self {
        Self { message: route.message(), is_unicast: true, route }
    }
}

impl HeldRoute {
    /// What makes the same route, in a table.
    fn message_for(&self, table: u32) -> RouteMessage {
        let mut message = self.message.clone();
        // The others tell of the link's state, and are refused.
        message.header.flags &= RouteFlags::Onlink;
        let is_kept = |attribute: &RouteAttribute| {
            !matches!(attribute, RouteAttribute::Table(_) | RouteAttribute::CacheInfo(_))
        };
        message.attributes.retain(is_kept);
        message.header.table = u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
        message.attributes.push(RouteAttribute::Table(table));
        message
    }
}

impl Request {
    /// Puts the same route into a table, in the place of one to the same destination with the same
    /// metric.
    #[must_use]
    pub fn copy_route(held: &HeldRoute, table: u32) -> Self {
        let what = format!("put route {} into table {table}", held.route.dst);
        let message = RouteNetlinkMessage::NewRoute(held.message_for(table));
        Self::new(what, message, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Deletes exactly this route.
    #[must_use]
    pub fn delete_held_route(held: &HeldRoute) -> Self {
        let Route { dst, table, .. } = held.route;
        let message = RouteNetlinkMessage::DelRoute(held.message_for(table));
        Self::new(format!("delete route {dst} of table {table}"), message, 0)
    }
}

impl Socket {
    /// The routes of one family, of all kinds and all tables.
    ///
    /// # Errors
    /// [`Error`].
    pub fn held_routes(&mut self, is_ipv4: bool) -> Result<Vec<HeldRoute>, Error> {
        let question = RouteNetlinkMessage::GetRoute(question(is_ipv4));
        let answers = self.dump(&Request::dump("list routes".into(), question))?;
        Ok(answers.into_iter().filter_map(|answer| read(answer, is_ipv4)).collect())
    }
}

fn read(answer: Answer, is_ipv4: bool) -> Option<HeldRoute> {
    let Answer::Other(RouteNetlinkMessage::NewRoute(message)) = answer else { return None };
    // A kernel without IPv6 answers with what it has.
    if message.header.address_family != question(is_ipv4).header.address_family {
        return None;
    }
    let mut read = read_message(message.clone(), is_ipv4);
    let several = read.len() > 1;
    let mut route = read.drain(..).next()?;
    if several {
        (route.link, route.gateway) = (0, None);
    }
    let is_unicast = message.header.kind == RouteType::Unicast;
    Some(HeldRoute { route, is_unicast, message })
}
