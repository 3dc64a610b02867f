//! The endpoints of a Service's port, and who comes to them.

use std::net::SocketAddr;

use super::{EndpointReport, Part, World};
use crate::model::{Port, Service};
use crate::plan::{At, Frontend, Merged};
use crate::walk::Outcome;
use crate::words::all_of;

/// As many are told.
const MOST_TOLD: usize = 20;

/// The endpoints, those that get connections first, and how many more there are. `led` is what becomes of whom.
pub(super) fn list(
    world: &World,
    part: &Part<'_>,
    at: &At,
    led: &[(String, Outcome)],
) -> (Vec<EndpointReport>, usize) {
    let Some((service, port)) = port(world, part, at) else { return (Vec::new(), 0) };
    let node = world.index().node();
    let slices = world.index().slices_of(&service.name);
    let merged = Merged::all(port, at.address.is_ipv4(), slices, node);
    let who = |place: &SocketAddr| -> Vec<String> {
        let comes = |(_, outcome): &&(String, Outcome)| match outcome {
            Outcome::Led { to, .. } => to.contains(place),
            _ => false,
        };
        led.iter().filter(comes).map(|(words, _)| words.clone()).collect()
    };
    let mut all: Vec<_> = merged.iter().map(|(place, it)| (who(place), place, it)).collect();
    // Stable: those alike stay in the order of their addresses.
    all.sort_by_key(|(who, ..)| std::cmp::Reverse(who.len()));
    let left_out = all.len().saturating_sub(MOST_TOLD);
    let report = |(from, place, merged): (Vec<String>, &SocketAddr, &Merged<'_>)| EndpointReport {
        address: place.to_string(),
        node: merged.on.map(str::to_owned),
        state: state(merged),
        from,
    };
    (all.into_iter().take(MOST_TOLD).map(report).collect(), left_out)
}

/// The Service's port that a place is of.
pub(super) fn port<'a>(
    world: &'a World,
    part: &Part<'_>,
    at: &At,
) -> Option<(&'a Service, &'a Port)> {
    let service = world.index().service(part.service?)?;
    let Frontend { port, .. } = part.frontend(at)?;
    let is_one = |it: &&Port| it.port == *port && it.protocol == at.protocol;
    service.ports.iter().find(is_one).map(|it| (service, it))
}

/// What is told of an endpoint.
fn state(endpoint: &Merged<'_>) -> String {
    let mut words = vec![match endpoint {
        Merged { is_ready: true, .. } => "ready".to_owned(),
        Merged { is_leaving: true, .. } => "on its end".to_owned(),
        _ => "not ready".to_owned(),
    }];
    let hints = |of: &str, names: &std::collections::BTreeSet<&str>| {
        let names: Vec<_> = names.iter().collect();
        let word = if names.len() == 1 { of.to_owned() } else { format!("{of}s") };
        (!names.is_empty()).then(|| format!("for {word} {}", all_of(&names)))
    };
    words.extend(hints("zone", &endpoint.zones));
    words.extend(hints("node", &endpoint.nodes));
    words.join(", ")
}
