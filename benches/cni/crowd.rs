//! Many pods at once.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

use crate::contestant::Contestant;
use crate::lane::{Bench, Lane};
use crate::work::BRIDGE_MASQUERADE;
use measuring::Series;

/// What a crowd took.
#[derive(Debug, Clone, Default)]
pub(crate) struct Crowd {
    pub(crate) add_wall: Series,
    pub(crate) del_wall: Series,
    pub(crate) wall: Series,
    /// User and system time of all processes, those included that plugins start.
    pub(crate) cpu: Series,
}

/// Attaches `pods` pods at once and then detaches them at once, `times` times for Go and podwire
/// in turns, each time on a new node.
pub(crate) fn run(bench: &Bench, pods: usize, times: usize) -> [Crowd; 2] {
    let mut crowds = [Crowd::default(), Crowd::default()];
    for time in 0..times {
        for turn in 0..2 {
            let column = (time + turn) % 2;
            let (Some(contestant), Some(crowd)) =
                (Contestant::ALL.get(column), crowds.get_mut(column))
            else {
                continue;
            };
            measure(bench, *contestant, pods, crowd);
            bench.settle();
        }
    }
    crowds
}

fn measure(bench: &Bench, contestant: Contestant, count: usize, crowd: &mut Crowd) {
    let mut warm = Vec::new();
    let mut lane = Lane::new(bench, contestant, BRIDGE_MASQUERADE, &mut warm);
    let pods: Vec<_> = (0..count).map(|_| lane.pod()).collect();
    let cpu = cpu();
    let mut wall = Duration::ZERO;
    for (verb, series) in [("ADD", &mut crowd.add_wall), ("DEL", &mut crowd.del_wall)] {
        let started = Instant::now();
        for (running, pod) in lane.start_all(verb, &pods).into_iter().zip(&pods) {
            let printed = running.finish().printed;
            if verb == "ADD" {
                pod.keep_result(&printed);
            }
        }
        series.push(started.elapsed());
        wall += started.elapsed();
    }
    crowd.wall.push(wall);
    crowd.cpu.push(self::cpu() - cpu);
    lane.must_have_first_leases();
}

/// CPU time of all children that have ended, and of theirs.
fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("it cannot fail");
    let duration = |time: TimeVal| {
        Duration::from_micros((time.tv_sec() * 1_000_000 + time.tv_usec()).unsigned_abs())
    };
    duration(usage.user_time()) + duration(usage.system_time())
}
