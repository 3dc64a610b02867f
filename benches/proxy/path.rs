//! What services cost packets: connections through one of them, in what contestants have written, in turns.

use std::net::SocketAddr;
use std::time::Duration;

use measuring::{Series, median};

use crate::contestant::Contestant;
use crate::measured::Measured;
use crate::objects::{ENDPOINT_PORT, PORT, Size, address, probed};
use crate::site::{SERVER, Site};

/// How long connections are made in a round.
const ROUND: Duration = Duration::from_millis(500);

/// Connections on one node.
#[derive(Debug)]
pub(crate) struct Path {
    /// Who has written which services; `None`: straight to the endpoint.
    pub(crate) through: Option<(Contestant, Size)>,
    /// Of rounds.
    per_second: Vec<f64>,
    pub(crate) connect: Series,
}

impl Path {
    pub(crate) fn rate(&self) -> Option<f64> {
        median(&self.per_second)
    }
}

/// The nodes of contestants that have ended, whose tables are still there.
pub(crate) fn run(measured: &[Measured], rounds: usize) -> Vec<Path> {
    let new = |through| Path { through, per_second: Vec::new(), connect: Series::default() };
    let straight = measured
        .iter()
        .take(1)
        .map(|it| (new(None), &it.site, SocketAddr::from((SERVER, ENDPOINT_PORT))));
    let through = measured.iter().map(|it| {
        let probed: Vec<_> = probed(it.size).into_iter().collect();
        let to = SocketAddr::from((address(probed[probed.len() / 2]), PORT));
        (new(Some((it.contestant, it.size))), &it.site, to)
    });
    let mut lanes: Vec<(Path, &Site, SocketAddr)> = straight.chain(through).collect();
    for round in 0..rounds {
        // None is always the first, or always after the same.
        let mut order: Vec<_> = lanes.iter_mut().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for (path, site, to) in order {
            let made = site.client.enter(|| measuring::connect(*to, ROUND));
            path.per_second.push(made.per_second());
            made.connects.into_iter().step_by(10).for_each(|it| path.connect.push(it));
        }
        lanes.rotate_left(1);
    }
    let mut paths: Vec<_> = lanes.into_iter().map(|(path, ..)| path).collect();
    paths.sort_by_key(|it| {
        it.through.map(|(contestant, size)| (size.services * size.endpoints, contestant.name()))
    });
    paths
}
