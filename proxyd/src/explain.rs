//! What becomes of a connection to an address and port, told to people: plans and what they are in the tables decide, as
//! they do for the kernel, and here it is put into words. Pure, and the same text for the same objects.

mod clients;
mod display;
mod endpoints;
mod notes;
mod query;
mod reasons;
mod report;
#[cfg(test)]
mod tests;
mod world;

use std::net::IpAddr;

pub use query::{Query, Who};
pub use report::{EndpointReport, Outcome, Report, ServiceReport, WayReport};
pub use world::World;

pub(crate) use clients::Asker;
pub(crate) use clients::askers;
use reasons::Question;
pub(crate) use world::Part;

/// Why a question cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No place.
    #[error(
        "{0:?} is no address and port (such as 10.96.0.1:80, [fd00::1]:53/UDP or 192.0.2.1:30080/SCTP)"
    )]
    To(String),
    /// Nobody who could connect.
    #[error("{0:?} is neither an address nor one of pod, node and outside")]
    From(String),
    /// Ends that cannot talk at all.
    #[error("{from} and {to} are of different families")]
    Families {
        /// Who connects.
        from: IpAddr,
        /// To what.
        to: IpAddr,
    },
    /// It is not known who that is.
    #[error(
        "whether {0} is a pod of this node is told by the interface that it is behind: ask on the node with --live, or with --from pod or outside"
    )]
    Interface(IpAddr),
}

/// Answers a question about the world.
///
/// # Errors
/// [`Error`], when nobody can tell who connects.
pub fn explain(world: &World, query: &Query) -> Result<Report, Error> {
    let at = query.to;
    let part = world.part(&at);
    let content = part.content(world.settings(), &at);
    let mut ways: Vec<WayReport> = Vec::new();
    let mut led = Vec::new();
    for Asker { words, client } in askers(world, &part, query)? {
        let outcome = world.follow(&content, &at, &client);
        let question = Question { world, at: &at, part: &part, client: &client };
        let way = question.way(&words, &outcome);
        led.push((words, outcome));
        // Mostly all fare alike.
        match ways.iter_mut().find(|it| it.is_like(&way)) {
            Some(other) => other.from.extend(way.from),
            None => ways.push(way),
        }
    }
    let (endpoints, endpoints_left_out) = endpoints::list(world, &part, &at, &led);
    Ok(Report {
        from: query.from.to_string(),
        to: at.to_string(),
        outcome: Outcome::of_all(&ways),
        service: part.report(world, &at),
        ways,
        endpoints,
        endpoints_left_out,
        notes: notes::list(world, &part, query),
    })
}
