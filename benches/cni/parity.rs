//! What is compared must do the same: both contestants leave the same behind after an ADD.

use std::fs;

use serde_json::Value;

use crate::connections::Outside;
use crate::contestant::Contestant;
use crate::lane::{Bench, Lane, Pod};
use crate::work::Work;
use crate::world::{self, World};

/// Parameters that show what tuning was to do.
const TUNED: [&str; 2] = ["ipv4/conf/eth0/arp_filter", "ipv6/conf/eth0/mtu"];

/// In chains of these names, to which nothing leads, podwire's firewall keeps whose an address is.
const RECORD: &str = "CNI-FW-";

/// A pod of a contestant.
struct Attached<'a> {
    lane: Lane<'a>,
    pod: Pod,
    _first: Vec<Pod>,
}

/// Panics with the differences unless podwire leaves the same behind as whom it is compared with: the floor where
/// there is one, and the reference after chains.
pub(crate) fn must_hold(bench: &Bench, work: Work) {
    if work.floor.is_some() {
        let [podwire, floor] = [Contestant::Podwire, Contestant::Floor]
            .map(|contestant| Attached::new(bench, contestant, work).world(world::parameters));
        world::must_be_alike(&format!("the floor after {}", work.title), &floor, &podwire);
    }
    if !work.chained.is_empty() {
        let [podwire, go] = [Contestant::Podwire, Contestant::Go].map(|contestant| {
            let attached = Attached::new(bench, contestant, work);
            let world = attached.world_of_chain();
            attached.end();
            world
        });
        world::must_be_alike(&format!("podwire after {}", work.title), &podwire, &go);
    }
}

impl<'a> Attached<'a> {
    fn new(bench: &'a Bench, contestant: Contestant, work: Work) -> Self {
        let mut first = Vec::new();
        let mut lane = Lane::new(bench, contestant, work, &mut first);
        let pod = lane.pod();
        lane.call("ADD", &pod);
        Self { lane, pod, _first: first }
    }

    /// What pod and node have, and `more` of either.
    fn world(&self, more: impl Fn() -> World) -> World {
        let facts = |place: &str| {
            let facts = world::network().into_iter().chain(more());
            facts.map(|fact| format!("{place} {fact}")).collect::<World>()
        };
        self.pod.enter();
        let mut world = facts("pod");
        self.lane.enter();
        world.extend(facts("node"));
        world
    }

    /// What all plugins of a chain make, as far as both suites make it alike: rules of nf_tables, and how packets come
    /// to an IFB, each has of its own. Ports are tried out.
    fn world_of_chain(&self) -> World {
        let work = self.lane.work;
        let mut world = self.world(world::token_buckets);
        if work.backend == "iptables" {
            self.lane.enter();
            world.extend(world::rules().into_iter().filter(|rule| !rule.contains(RECORD)));
        }
        self.pod.enter();
        world.extend(TUNED.map(|key| {
            let value = fs::read_to_string(format!("/proc/sys/net/{key}")).expect("pods have eth0");
            format!("{key} {}", value.trim())
        }));
        values_of("result", &self.pod.result(), &mut world);
        if work.publishes() {
            let outside = Outside::of(&self.lane);
            outside.must_reach(&self.pod, self.pod.ports.start);
            outside.leave(&self.lane);
        }
        world
    }

    fn end(self) {
        self.lane.call("DEL", &self.pod);
        self.lane.must_be_as_at_first();
    }
}

/// The values of a result, by their places. What differs from one run to the next is only there or not.
fn values_of(place: &str, value: &Value, world: &mut World) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                values_of(&format!("{place}.{key}"), value, world);
            }
        }
        Value::Array(array) => {
            for (index, value) in array.iter().enumerate() {
                values_of(&format!("{place}[{index}]"), value, world);
            }
        }
        Value::String(text) if !text.is_empty() => {
            let is_random = place.ends_with(".mac") || place.ends_with(".sandbox");
            let shown = if is_random || text.starts_with("veth") { "*" } else { text };
            world.insert(format!("{place} {shown}"));
        }
        _ => drop(world.insert(format!("{place} {value}"))),
    }
}
