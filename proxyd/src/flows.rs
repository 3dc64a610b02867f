//! Flows of UDP and SCTP that lead where a service no longer does: nothing ends them while packets come.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use netlink::Layer4;
use netlink::conntrack::{Client, Filter, Flow};

use crate::model::Protocol;
use crate::plan::At;

/// As many are cut at once: others wait for that.
const MOST_AT_ONCE: usize = 8192;

/// Where places may lead.
pub type Places = BTreeMap<At, BTreeSet<SocketAddr>>;

/// Flows that lead elsewhere than to the endpoints of their places, and are to be cut.
#[derive(Debug, Default)]
pub struct Stale(BTreeMap<At, Vec<Flow>>);

/// What was cut.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// How many flows.
    pub count: usize,
    /// Those places that have more of them.
    pub left: BTreeSet<At>,
}

impl Stale {
    /// Looks for such flows to `places`, and has the kernel forget some thousand: of a place that has few of them all. Those that
    /// were left before of other places it forgets as well, as far as it is told where these lead by now.
    ///
    /// # Errors
    /// [`netlink::Error`].
    pub fn cut(&mut self, places: &Places, left: &Places) -> Result<Cut, netlink::Error> {
        self.keep(places, left);
        for is_ipv4 in [true, false] {
            for protocol in [Protocol::Udp, Protocol::Sctp] {
                let is_of = |at: &At| at.address.is_ipv4() == is_ipv4 && at.protocol == protocol;
                if places.keys().any(is_of) {
                    self.find(is_ipv4, protocol, places)?;
                }
            }
        }
        let some = take_fair(&mut self.0, MOST_AT_ONCE);
        let count = match Client::open()? {
            Some(mut client) => client.forget_each(&some)?,
            None => 0,
        };
        Ok(Cut { count, left: self.0.keys().copied().collect() })
    }

    /// Keeps of those that were left what is still so, and what is not looked for anew.
    fn keep(&mut self, places: &Places, left: &Places) {
        self.0.retain(|at, flows| {
            let Some(endpoints) = left.get(at).filter(|_| !places.contains_key(at)) else {
                return false;
            };
            flows.retain(|it| is_stale(it, endpoints));
            !flows.is_empty()
        });
    }

    fn find(
        &mut self,
        is_ipv4: bool,
        protocol: Protocol,
        places: &Places,
    ) -> Result<(), netlink::Error> {
        let Some(mut client) = Client::open()? else { return Ok(()) };
        let filter = Filter { protocol: Some(protocol.number()), ..Filter::all(is_ipv4) };
        // No other message may be sent before the list was read to its end.
        client.flows(&filter, |flow| {
            let Some(at) = place_of(flow) else { return };
            if places.get(&at).is_some_and(|endpoints| is_stale(flow, endpoints)) {
                self.0.entry(at).or_default().push(*flow);
            }
        })
    }
}

/// Takes as many of the flows, in equal parts of each place that has so many.
fn take_fair<T>(flows: &mut BTreeMap<At, Vec<T>>, most: usize) -> Vec<T> {
    let mut of_few: Vec<_> = flows.values_mut().collect();
    of_few.sort_by_key(|of_place| of_place.len());
    let (mut some, mut places) = (Vec::new(), of_few.len());
    for of_place in of_few {
        // What places of few flows leave is for those of more.
        let part = (most - some.len()).div_ceil(places);
        some.extend(of_place.drain(of_place.len().saturating_sub(part)..));
        places -= 1;
    }
    flows.retain(|_, of_place| !of_place.is_empty());
    some
}

/// The place that a flow is to.
fn place_of(flow: &Flow) -> Option<At> {
    let Layer4::Ports { destination, .. } = flow.original.layer4 else { return None };
    let protocol = Protocol::of_number(flow.original.protocol)?;
    Some(At { address: flow.original.destination, protocol, port: destination })
}

/// Whether a flow leads to none of its place's endpoints. Where there are none, one that was not translated does no harm.
fn is_stale(flow: &Flow, endpoints: &BTreeSet<SocketAddr>) -> bool {
    let Layer4::Ports { source, .. } = flow.reply.layer4 else { return false };
    if endpoints.is_empty() && !flow.status.is_destination_translated() {
        return false;
    }
    !endpoints.contains(&SocketAddr::new(flow.reply.source, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> At {
        let address = "10.96.0.1".parse().unwrap();
        At { address, protocol: Protocol::Udp, port }
    }

    #[test]
    fn places_of_many_flows_leave_room_for_those_of_few() {
        let chosen = |counts: &[usize], most| {
            let flows = (1..).zip(counts).map(|(port, count)| (at(port), vec![port; *count]));
            let mut flows = flows.collect();
            let some = take_fair(&mut flows, most);
            let of = |port| some.iter().filter(|it| **it == port).count();
            let counts: Vec<_> = (1..).take(counts.len()).map(of).collect();
            (counts, flows.iter().map(|(at, it)| (at.port, it.len())).collect::<Vec<_>>())
        };
        assert_eq!(chosen(&[], 10), (vec![], vec![]));
        assert_eq!(chosen(&[4, 6], 10), (vec![4, 6], vec![]));
        assert_eq!(chosen(&[100, 2, 100], 10), (vec![4, 2, 4], vec![(1, 96), (3, 96)]));
        assert_eq!(chosen(&[11], 10), (vec![10], vec![(1, 1)]));
        // There are more places than may be cut flows.
        assert_eq!(chosen(&[2, 1, 1], 2), (vec![0, 1, 1], vec![(1, 2)]));
        assert_eq!(chosen(&[2, 1, 1], 1), (vec![0, 1, 0], vec![(1, 2), (3, 1)]));
    }

    #[test]
    fn flows_that_were_left_are_cut_only_while_they_are_stale() {
        let flow = |endpoint: [u8; 4], port| {
            let tuple = |source: [u8; 4], destination: [u8; 4], from, to| netlink::Tuple {
                source: source.into(),
                destination: destination.into(),
                protocol: 17,
                layer4: Layer4::Ports { source: from, destination: to },
            };
            Flow {
                original: tuple([10, 1, 0, 1], [10, 96, 0, 1], 5000, port),
                reply: tuple(endpoint, [10, 1, 0, 1], 53, 5000),
                status: netlink::conntrack::Status(1 << 5),
                mark: 0,
                is_taken_up: false,
                id: 0,
                zone: 0,
            }
        };
        let [a, b] = [[10, 1, 0, 7], [10, 1, 0, 8]];
        let places = |ports: &[u16], endpoint: [u8; 4]| -> Places {
            let endpoints: BTreeSet<_> = [SocketAddr::from((endpoint, 53))].into();
            ports.iter().map(|port| (at(*port), endpoints.clone())).collect()
        };
        let kept = |fresh: &Places, left: &Places| {
            let flows = |port| (at(port), vec![flow(a, port), flow(b, port)]);
            let mut stale = Stale([1, 2, 3].map(flows).into());
            stale.keep(fresh, left);
            let count = |(at, flows): (&At, &Vec<_>)| (at.port, flows.len());
            stale.0.iter().map(count).collect::<Vec<_>>()
        };
        // The first is looked for anew, and of the last nobody tells where it leads.
        assert_eq!(kept(&places(&[1], b), &places(&[1, 2], b)), [(2, 1)]);
        assert_eq!(
            kept(&Places::new(), &places(&[1, 2, 3], [10, 1, 0, 9])),
            [(1, 2), (2, 2), (3, 2)]
        );
        let mut stale = Stale([(at(1), vec![flow(a, 1)])].into());
        stale.keep(&Places::new(), &places(&[1], a));
        assert!(stale.0.is_empty());
    }
}
