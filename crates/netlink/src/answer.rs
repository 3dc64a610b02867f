//! What the kernel tells.

use netlink_packet_route::RouteNetlinkMessage;

use crate::link::{self, Link};
use crate::neighbour;
use crate::netconf;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWNEIGH: u16 = 28;
const RTM_NEWNETCONF: u16 = 80;

/// An object that the kernel tells of.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A link.
    Link(Link),
    /// A neighbour, or an entry of a forwarding database.
    Neighbour(neighbour::Entry),
    /// Whether packets are forwarded.
    Forwarding(bool),
    /// Any other.
    Other(RouteNetlinkMessage),
}

impl Answer {
    /// Reads the body of a message of those kinds that are read in place; `None` for the others.
    ///
    /// # Errors
    /// The body is cut off.
    pub(crate) fn read(kind: u16, body: &[u8]) -> Result<Option<Self>, &'static str> {
        match kind {
            RTM_NEWLINK => link::read(body).map(Self::Link).ok_or("a link is cut off").map(Some),
            RTM_NEWNEIGH => {
                let entry = neighbour::read(body).map(Self::Neighbour);
                entry.ok_or("a neighbour is cut off").map(Some)
            }
            RTM_NEWNETCONF => {
                let forwards = netconf::read(body).map(Self::Forwarding);
                forwards.ok_or("a parameter is cut off").map(Some)
            }
            _ => Ok(None),
        }
    }
}
