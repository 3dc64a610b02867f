//! What services cost packets: connections through one of them, in what contestants have written, in turns.

use std::net::SocketAddr;
use std::time::Duration;

use measuring::{Series, median};

use crate::contestant::Contestant;
use crate::measured::Measured;
use crate::objects::{PORT, Size, address, probed};

/// How long connections are made in a round.
const ROUND: Duration = Duration::from_millis(500);

/// Connections on one node.
#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) contestant: Contestant,
    pub(crate) size: Size,
    /// Connections a second, of each round.
    per_second: Vec<f64>,
    pub(crate) connect: Series,
}

impl Path {
    fn new(on: &Measured) -> Self {
        let (contestant, size) = (on.contestant, on.size);
        Self { contestant, size, per_second: Vec::new(), connect: Series::default() }
    }

    pub(crate) fn rate(&self) -> Option<f64> {
        median(&self.per_second)
    }

    fn round(&mut self, on: &Measured) {
        let made = connect(on);
        self.per_second.push(made.per_second());
        made.connects.into_iter().step_by(10).for_each(|it| self.connect.push(it));
    }
}

/// The nodes of contestants that have ended, whose tables are still there.
pub(crate) fn run(measured: &[Measured], rounds: usize) -> Vec<Path> {
    let mut lanes: Vec<_> = measured.iter().map(|it| (Path::new(it), it)).collect();
    for round in 0..rounds {
        // None is always the first, or always after the same.
        if round % 2 == 0 {
            lanes.iter_mut().for_each(|(path, on)| path.round(on));
        } else {
            lanes.iter_mut().rev().for_each(|(path, on)| path.round(on));
        }
        lanes.rotate_left(1);
    }
    let mut paths: Vec<_> = lanes.into_iter().map(|(path, _)| path).collect();
    paths.sort_by_key(|it| (it.size.services * it.size.endpoints, it.contestant.name()));
    paths
}

/// Connections through what two contestants have written, on one node: nodes that are made alike differ by some percent for as
/// long as they live.
#[derive(Debug)]
pub(crate) struct Beside {
    pub(crate) size: Size,
    /// Connections a second through ours, of those through theirs, of each pair of rounds.
    shares: Vec<f64>,
}

impl Beside {
    pub(crate) fn share(&self) -> Option<f64> {
        median(&self.shares)
    }
}

/// The table by IPv4 of `theirs` is put onto the node of `ours`, and one of both sleeps at any time.
pub(crate) fn beside(ours: &Measured, theirs: &Measured, rounds: usize) -> Beside {
    let tables = [ours, theirs].map(|it| format!("table ip {}", it.contestant.table()));
    let node = &ours.site.node;
    let file = node.home().join("theirs.nft");
    std::fs::write(&file, theirs.site.node.sh(&format!("nft list {}", tables[1])))
        .expect("the node's folder can be written");
    node.sh(&format!("nft -f {}", file.display()));
    let awake = |table: usize| {
        node.sh(&measuring::dormant(&tables[1 - table], true));
        node.sh(&measuring::dormant(&tables[table], false));
        connect(ours).per_second()
    };
    let share = |round| {
        let mut order = [0, 1];
        // Neither is always the first.
        if round % 2 == 1 {
            order.reverse();
        }
        let mut rates = [0.0; 2];
        order.into_iter().for_each(|it| rates[it] = awake(it));
        rates[0] / rates[1]
    };
    Beside { size: ours.size, shares: (0..rounds).map(share).collect() }
}

/// Connections through a service in the middle.
fn connect(on: &Measured) -> measuring::Connections {
    let probed: Vec<_> = probed(on.size).into_iter().collect();
    let to = SocketAddr::from((address(probed[probed.len() / 2]), PORT));
    on.site.client.enter(|| measuring::connect(to, ROUND))
}
