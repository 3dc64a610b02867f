//! What services cost packets: connections through one of them, in what contestants have written, in turns.

use std::net::SocketAddr;
use std::time::Duration;

use measuring::{Series, median};

use crate::contestant::Contestant;
use crate::measured::Measured;
use crate::objects::{ENDPOINT_PORT, PORT, Size, address, probed};
use crate::site::SERVER;

/// How long connections are made in a round.
const ROUND: Duration = Duration::from_millis(500);

/// Connections on one node.
#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) contestant: Contestant,
    pub(crate) size: Size,
    /// Connections a second, of each round: to the endpoint's own address, and through a service.
    straight: Vec<f64>,
    through: Vec<f64>,
    /// Through the service.
    pub(crate) connect: Series,
}

impl Path {
    pub(crate) fn rate(&self) -> Option<f64> {
        median(&self.through)
    }

    /// What a service leaves of the connections that come through without one: nodes that are made alike differ by some percent,
    /// with nobody's rules, for as long as they live.
    pub(crate) fn share(&self) -> Option<f64> {
        let shares =
            self.through.iter().zip(&self.straight).map(|(through, straight)| through / straight);
        median(&shares.collect::<Vec<_>>())
    }
}

/// The nodes of contestants that have ended, whose tables are still there.
pub(crate) fn run(measured: &[Measured], rounds: usize) -> Vec<Path> {
    let mut lanes: Vec<_> = measured.iter().map(|it| (Path::new(it), it)).collect();
    for round in 0..rounds {
        // None is always the first, or always after the same.
        if round % 2 == 0 {
            lanes.iter_mut().for_each(|(path, on)| path.straight_first(on));
        } else {
            lanes.iter_mut().rev().for_each(|(path, on)| path.through_first(on));
        }
        lanes.rotate_left(1);
    }
    let mut paths: Vec<_> = lanes.into_iter().map(|(path, _)| path).collect();
    paths.sort_by_key(|it| (it.size.services * it.size.endpoints, it.contestant.name()));
    paths
}

impl Path {
    fn new(on: &Measured) -> Self {
        let (contestant, size) = (on.contestant, on.size);
        Self {
            contestant,
            size,
            straight: Vec::new(),
            through: Vec::new(),
            connect: Series::default(),
        }
    }

    fn straight_first(&mut self, on: &Measured) {
        self.go_straight(on);
        self.go_through(on);
    }

    fn through_first(&mut self, on: &Measured) {
        self.go_through(on);
        self.go_straight(on);
    }

    fn go_straight(&mut self, on: &Measured) {
        let to = SocketAddr::from((SERVER, ENDPOINT_PORT));
        self.straight.push(on.site.client.enter(|| measuring::connect(to, ROUND)).per_second());
    }

    fn go_through(&mut self, on: &Measured) {
        let probed: Vec<_> = probed(self.size).into_iter().collect();
        let to = SocketAddr::from((address(probed[probed.len() / 2]), PORT));
        let made = on.site.client.enter(|| measuring::connect(to, ROUND));
        self.through.push(made.per_second());
        made.connects.into_iter().step_by(10).for_each(|it| self.connect.push(it));
    }
}
