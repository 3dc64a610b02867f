//! The way of a connection through the maps of a table: what the rules do with its first packet.

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::nftables::{Content, Held, Hidden, Key, Kind, Map, Pick, untagged};
use crate::plan::At;

/// Who connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// From where.
    pub address: IpAddr,
    /// Whether it is known to be a pod of the cluster.
    pub is_pod: bool,
    /// Whether it is the node itself.
    pub is_node: bool,
}

/// What becomes of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// No service is there: the packet goes on as it is.
    NotServed,
    /// The client is told that nobody is there.
    Rejected,
    /// Nothing is answered.
    Dropped,
    /// It goes to one of these.
    Led {
        /// Endpoints, each as likely as any other.
        to: BTreeSet<SocketAddr>,
        /// Whether the client is hidden behind the node's address.
        is_hidden: bool,
        /// For how many seconds the client comes to the same one.
        sticky: Option<u32>,
    },
}

/// What becomes of a connection to a place, by what a table holds.
#[must_use]
pub fn walk(content: &Content, at: &At, client: &Client) -> Outcome {
    let first = kind(content, Map::Services, at);
    // What guards the node's own 127.0.0.1 comes before all else.
    if first.is_some() && at.address.is_loopback() && !client.is_node {
        return Outcome::Dropped;
    }
    match first {
        None if content.contains_key(&Key::ClusterIp(at.address)) => Outcome::Rejected,
        None => Outcome::NotServed,
        Some(Kind::Allow(pool)) => {
            let sources = match content.get(&Key::Allow(pool)) {
                Some(Held::Sources(sources)) => sources.as_slice(),
                _ => &[],
            };
            if !sources.iter().any(|it| it.contains(client.address)) {
                return Outcome::Dropped;
            }
            let next = kind(content, Map::Allowed, at);
            next.map_or(Outcome::Dropped, |it| follow(content, at, client, it))
        }
        Some(kind) => follow(content, at, client, kind),
    }
}

fn follow(content: &Content, at: &At, client: &Client, first: Kind) -> Outcome {
    match first {
        Kind::Reject => Outcome::Rejected,
        // Nobody is allowed twice.
        Kind::Drop | Kind::Allow(_) => Outcome::Dropped,
        Kind::Pick(pick) => led(content, at, pick, is_hidden(pick.hidden, client)),
        Kind::Divided => {
            let is_near = client.is_pod || client.is_node;
            let next = kind(content, if is_near { Map::Near } else { Map::Far }, at);
            match next {
                Some(Kind::Pick(pick)) => {
                    led(content, at, pick, is_near && !client.is_pod && client.is_node)
                }
                _ => Outcome::Dropped,
            }
        }
    }
}

const fn is_hidden(hidden: Hidden, client: &Client) -> bool {
    match hidden {
        Hidden::Nobody => false,
        Hidden::Outside => !client.is_pod,
        Hidden::Everybody => true,
    }
}

fn led(content: &Content, at: &At, pick: Pick, is_hidden: bool) -> Outcome {
    let pools = if pick.is_local { Map::LocalPools } else { Map::Pools };
    let Some(pool) = number(content, pools, at).and_then(untagged) else {
        return Outcome::NotServed;
    };
    let endpoint = |slot| match content.get(&Key::Slot(pool, slot)) {
        Some(Held::Endpoint(endpoint)) => Some(*endpoint),
        _ => None,
    };
    let sticky = match content.get(&Key::Sticky(pool)) {
        Some(Held::Seconds(seconds)) if pick.is_sticky => Some(*seconds),
        _ => None,
    };
    Outcome::Led { to: (0..pick.count).filter_map(endpoint).collect(), is_hidden, sticky }
}

fn number(content: &Content, map: Map, at: &At) -> Option<u32> {
    match content.get(&Key::Place(map, *at)) {
        Some(Held::Number(number)) => Some(*number),
        _ => None,
    }
}

fn kind(content: &Content, map: Map, at: &At) -> Option<Kind> {
    number(content, map, at).and_then(Kind::of_number)
}
