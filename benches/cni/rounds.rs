//! Rounds: one ADD and one DEL of each contestant, in an order that rotates.

use crate::contestant::Contestant;
use crate::lane::{Bench, Lane};
use crate::work::Work;
use measuring::Series;

/// Rounds that are not measured.
const WARM_UP: usize = 2;
/// After so many rounds the namespaces of their pods are cleared away. In between they stay, because
/// clearing takes the locks that are measured; but the more there are, the longer the kernel
/// looks for a sysctl (one hash chain of names for all namespaces).
const ROUNDS_TO_CLEARING: usize = 25;

/// Works that are measured together.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) works: &'static [Work],
    pub(crate) rounds: usize,
    /// Go takes part in every so-manieth round.
    pub(crate) go_every: usize,
}

/// What was measured of one work, for each contestant in the order of [`Contestant::ALL`].
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) work: Work,
    pub(crate) add: [Series; 3],
    pub(crate) del: [Series; 3],
}

impl Measured {
    fn new(work: Work) -> Self {
        Self { work, add: Default::default(), del: Default::default() }
    }
}

/// Runs a plan.
pub(crate) fn run(bench: &Bench, plan: &Plan) -> Vec<Measured> {
    let mut first_pods = Vec::new();
    let mut pods = Vec::new();
    let mut lanes = Vec::new();
    let mut measured: Vec<Measured> = plan.works.iter().map(|work| Measured::new(*work)).collect();
    for (place, work) in plan.works.iter().enumerate() {
        for contestant in Contestant::ALL {
            if contestant != Contestant::Floor || work.floor.is_some() {
                lanes.push((place, Lane::new(bench, contestant, *work, &mut first_pods)));
            }
        }
    }
    let count = lanes.len();
    for round in 0..plan.rounds + WARM_UP {
        if round % ROUNDS_TO_CLEARING == WARM_UP {
            pods.clear();
            bench.settle();
        }
        for turn in 0..count {
            let Some((place, lane)) = lanes.get_mut((round + turn) % count) else { continue };
            if lane.contestant == Contestant::Go && !round.is_multiple_of(plan.go_every) {
                continue;
            }
            let pod = lane.pod();
            let (add, del) = (lane.call("ADD", &pod), lane.call("DEL", &pod));
            pods.push(pod);
            if let Some(measured) = measured.get_mut(*place).filter(|_| round >= WARM_UP) {
                let column = lane.contestant as usize;
                measured.add.get_mut(column).expect("there are three").push(add);
                measured.del.get_mut(column).expect("there are three").push(del);
            }
        }
    }
    lanes.iter().for_each(|(_, lane)| lane.must_be_as_at_first());
    drop((lanes, first_pods, pods));
    bench.settle();
    measured
}
