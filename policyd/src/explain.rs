//! Why traffic is allowed or denied, told to people: [`evaluate()`](crate::evaluate()) decides, and
//! here it is put into words. Pure, and the same text for the same objects.

mod describe;
mod display;
mod ends;
mod open_ports;
mod query;
mod reasons;
mod report;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

pub use query::{End, Query, Traffic};
pub use report::{Outcome, Pair, Path, PolicyReport, Report, RuleReport, Side};

use self::ends::Found;
use crate::model::{Direction, NamespacedName};
use crate::{Packet, World, evaluate};

/// Why a question cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Neither a pod nor an address.
    #[error("{0:?} is neither NAMESPACE/POD nor an IP address")]
    End(String),
    /// No port.
    #[error("{0:?} is no traffic (such as 80/TCP, 53/UDP or icmp)")]
    Traffic(String),
    /// A pod that is not there.
    #[error("there is no pod {name} (namespace {} has {pods})", name.namespace)]
    NoSuchPod {
        /// The pod.
        name: NamespacedName,
        /// How many pods its namespace has.
        pods: usize,
    },
    /// A pod that has ended.
    #[error("pod {0} has finished: it has no network any more, and its addresses may be another's")]
    Finished(NamespacedName),
    /// A pod without a network.
    #[error("pod {0} has no address yet: nothing can reach it, nor can it reach anything")]
    NoAddress(NamespacedName),
    /// Ends that cannot talk at all.
    #[error("{from} and {to} have no addresses of a common family ({})", addresses(of))]
    Families {
        /// Who sends.
        from: String,
        /// Who is sent to.
        to: String,
        /// The addresses of both.
        of: Vec<IpAddr>,
    },
}

fn addresses(all: &[IpAddr]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Answers a question about the world.
///
/// # Errors
/// [`Error`] when there is no such pod, or it has no network.
pub fn explain(world: &World, query: &Query) -> Result<Report, Error> {
    let from = Found::find(world, &query.from)?;
    let to = Found::find(world, &query.to)?;
    let mut paths = Vec::<Path>::new();
    for (source, destination) in pairs(&from, &to)? {
        let packet = Packet {
            source,
            destination,
            transport: query.traffic.transport(),
            from_node: from.node_that_sends(world, source),
        };
        let verdict = evaluate(world, &packet);
        let side = |direction| describe::side(world, &packet, query.traffic, &verdict, direction);
        let mut path = Path {
            addresses: vec![Pair { source, destination }],
            outcome: Outcome::of(verdict.is_allowed()),
            open_ports: Vec::new(),
            egress: side(Direction::Egress),
            ingress: side(Direction::Ingress),
        };
        if query.traffic == Traffic::Any && !verdict.is_allowed() {
            path.open_ports = open_ports::list(world, &packet);
            if !path.open_ports.is_empty() {
                path.outcome = Outcome::Partly;
            }
        }
        // Mostly the families differ in nothing but their addresses.
        match paths.iter_mut().find(|other| other.is_like(&path)) {
            Some(other) => other.addresses.append(&mut path.addresses),
            None => paths.push(path),
        }
    }
    let mut notes = from.notes(world, Direction::Egress);
    notes.extend(to.notes(world, Direction::Ingress));
    notes.dedup();
    Ok(Report {
        from: from.name.clone(),
        to: to.name.clone(),
        traffic: query.traffic.to_string(),
        outcome: Outcome::of_all(&paths),
        paths,
        notes,
        problems: ends::problems(world, &[&from, &to]),
    })
}

/// The addresses that they can use with each other.
fn pairs(from: &Found, to: &Found) -> Result<Vec<(IpAddr, IpAddr)>, Error> {
    let all = from.addresses.iter().flat_map(|one| to.addresses.iter().map(|two| (*one, *two)));
    let pairs: Vec<_> = all.filter(|(one, two)| one.is_ipv4() == two.is_ipv4()).collect();
    if pairs.is_empty() {
        let of = from.addresses.iter().chain(&to.addresses).copied().collect();
        return Err(Error::Families { from: from.name.clone(), to: to.name.clone(), of });
    }
    Ok(pairs)
}
