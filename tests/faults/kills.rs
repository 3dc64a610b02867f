//! kill -9 at a random moment: the DEL that follows removes all.

use std::thread;
use std::time::{Duration, Instant};

use lab::Pod;

use crate::common::{Site, bridge_with_all, ptp_with_all};

/// Rounds in all, over the threads; each has a node of its own.
const ROUNDS: usize = 300;
const THREADS: usize = 3;

/// A generator of numbers that look random (xorshift); the seed is told when a round fails.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn up_to(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }
}

#[test]
fn after_a_kill_del_leaves_nothing() {
    let killed: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| scope.spawn(move || kill_and_delete(number, ROUNDS / THREADS)))
            .collect();
        threads.into_iter().map(|t| t.join().expect("the world is clean after each round")).sum()
    });
    // Too early or too late kills prove nothing; most must have hit.
    assert!(killed > ROUNDS / 3, "only {killed} of {ROUNDS} kills hit a running ADD");
}

/// Kills ADDs at random moments; returns how many were running still.
fn kill_and_delete(number: usize, rounds: usize) -> usize {
    let conf = if number == 0 { ptp_with_all() } else { bridge_with_all() };
    let site = Site::new(conf);
    let pod = site.node.pod("pod1");
    let mut window = duration_of_an_add(&site, &pod);
    let before = site.world(&[&pod]);
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1));
    let mut killed = 0;
    for round in 0..rounds {
        let moment = Duration::from_micros(dice.up_to(u64::try_from(window.as_micros()).unwrap()));
        let mut add = site.call("ADD", &pod).start(&site.node, &site.podwire);
        thread::sleep(moment);
        add.kill();
        // The machine is slower at times: the window follows, so that most kills hit, early and late.
        if add.finish().exit.is_none() {
            killed += 1;
            window += window / 16;
        } else {
            window -= window / 8;
        }
        let what = format!("thread {number}, round {round}, killed after {moment:?}");
        let del = site.del(&pod);
        assert!(del.succeeded(), "{what}: DEL failed: {del}");
        site.world(&[&pod]).must_be(&before, &what);
    }
    killed
}

/// The longest of a few, so that late moments are among the kills. Also leaves the pod as ADD and
/// DEL leave it.
fn duration_of_an_add(site: &Site, pod: &Pod) -> Duration {
    let mut longest = Duration::ZERO;
    for _ in 0..5 {
        let started = Instant::now();
        let _ = site.add(pod).ok();
        longest = longest.max(started.elapsed());
        let _ = site.del(pod).ok();
    }
    longest
}

/// A DEL that is killed is followed by another, which finishes the work.
#[test]
fn after_a_killed_del_the_next_del_leaves_nothing() {
    let site = Site::new(bridge_with_all());
    let pod = site.node.pod("pod1");
    let whole = duration_of_an_add(&site, &pod);
    let before = site.world(&[&pod]);
    let mut dice = Dice(42);
    for round in 0..30 {
        let _ = site.add(&pod).ok();
        let moment = Duration::from_micros(dice.up_to(u64::try_from(whole.as_micros()).unwrap()));
        let mut del = site.call("DEL", &pod).start(&site.node, &site.podwire);
        thread::sleep(moment);
        del.kill();
        let _ = del.finish();
        let what = format!("round {round}, DEL killed after {moment:?}");
        let del = site.del(&pod);
        assert!(del.succeeded(), "{what}: the second DEL failed: {del}");
        site.world(&[&pod]).must_be(&before, &what);
    }
}
