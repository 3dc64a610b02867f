//! Cutting flows that were allowed when they began and are no longer.
//!
//! An established flow passes before any policy is asked. So after each commit the kernel's flows
//! are asked about again; one bit of a flow's mark then says that it is cut, and a rule ahead of
//! all others drops it, both ways. To delete the flow instead would not cut it: the kernel takes up
//! a flow in its middle, in whichever direction it sees first (`nf_conntrack_tcp_loose`), and an
//! answer is always allowed. Those of addresses that nobody has any more are deleted.

use std::collections::HashSet;
use std::future::pending;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use netlink::conntrack::Flow;
use netlink::{Error, Layer4, Tuple};
use runner::Runner;
use tokio::task::{JoinHandle, spawn_blocking};

use super::Agent;
use crate::dataplane::flows::{Listed, forget, has_end, list, mark};
use crate::dataplane::left_over::{LeftOver, Suspects};
use crate::evaluate::{Packet, Transport};
use crate::index::Index;
use crate::model::Protocol;
use crate::plan;

/// Flows that began while the rules changed are found by a second look.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// Looks are at least so far apart, however often rules change: each reads the kernel's whole table.
const LEAST_PAUSE: Duration = Duration::from_millis(250);
/// As many flows are judged before the loop sees to what else there is: a pod may have all that the kernel's
/// table has room for.
const MOST_AT_ONCE: usize = 4096;

/// What is being done to the flows, and what is to be done.
#[derive(Debug)]
pub(super) struct Flows {
    /// The bit that says that a flow is cut.
    bit: u32,
    /// Whose flows are to be forgotten.
    left_over: LeftOver,
    due: Option<Instant>,
    /// When the last look began.
    looked: Option<Instant>,
    /// Whether the next look is followed by another.
    is_first: bool,
    running: Option<JoinHandle<Done>>,
    /// A look of which some flows are not judged yet.
    unfinished: Option<Look>,
}

/// Who has which addresses.
#[derive(Debug, Default)]
struct Addresses {
    /// Those of endpoints that policies isolate.
    isolated: HashSet<IpAddr>,
    /// Those of all endpoints.
    owned: HashSet<IpAddr>,
    /// The ranges that the gate keeps closed.
    gated: Vec<IpNetwork>,
}

/// What was found of the flows.
#[derive(Debug)]
pub(super) struct Look {
    listed: Listed,
    suspects: Suspects,
    /// The endpoints' addresses when it began.
    owned: HashSet<IpAddr>,
    /// Flows whose mark does not say what policy does, and whether they are denied.
    changes: Vec<(Flow, bool)>,
}

/// A step of a look at the flows.
#[derive(Debug)]
pub(super) enum Done {
    /// Flows that policy may have something to say of, or that nobody has any more.
    Listed(Result<Look, Error>),
    /// How many flows were cut, and how many are no longer.
    Changed(Result<(usize, usize), Error>),
}

impl Flows {
    pub(super) const fn new(bit: u32, left_over: LeftOver) -> Self {
        Self {
            bit,
            left_over,
            due: None,
            looked: None,
            is_first: false,
            running: None,
            unfinished: None,
        }
    }

    /// Something may be denied now that was allowed, or the other way round.
    pub(super) fn look_again(&mut self) {
        let now = Instant::now();
        let earliest = self.looked.map_or(now, |looked| looked + LEAST_PAUSE);
        (self.due, self.is_first) = (Some(earliest.max(now)), true);
    }

    /// When the next look is due, if one is.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether it is time for a look.
    fn is_due(&self) -> bool {
        self.running.is_none()
            && self.unfinished.is_none()
            && self.due.is_some_and(|due| due <= Instant::now())
    }

    /// Begins a look.
    fn start(&mut self, addresses: Addresses) {
        self.looked = Some(Instant::now());
        self.due = self.is_first.then(|| Instant::now() + SECOND_LOOK);
        self.is_first = false;
        let Addresses { isolated, owned, gated } = addresses;
        let (bit, suspects) = (self.bit, self.left_over.suspects(gated));
        self.running = Some(spawn_blocking(move || {
            let is_gone = |end: &IpAddr| suspects.has(end) && !owned.contains(end);
            let listed = list(bit, |end| isolated.contains(end), is_gone);
            Done::Listed(listed.map(|listed| Look { listed, suspects, owned, changes: Vec::new() }))
        }));
    }

    /// The next step's end; for ever when nothing is done.
    pub(super) async fn finished(&mut self) -> Done {
        if let Some(look) = self.unfinished.take() {
            return Done::Listed(Ok(look));
        }
        let Some(running) = &mut self.running else { return pending().await };
        match running.await {
            Ok(done) => {
                self.running = None;
                done
            }
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Judges flows, and once it has judged all of them marks those whose mark does not say what the index
    /// says of them, and has those forgotten that are left of addresses which nobody has got meanwhile.
    fn change(&mut self, mut look: Look, index: &Index) {
        let bit = self.bit;
        let concerned = &mut look.listed.concerned;
        let judged = concerned.drain(concerned.len().saturating_sub(MOST_AT_ONCE)..);
        look.changes.extend(judged.filter_map(|flow| {
            let is_cut = flow.mark & bit != 0;
            // Of one that was taken up from its middle either may be who began it.
            let is_denied = !plan::allows(index, &packet(&flow))
                || flow.is_taken_up && !plan::allows(index, &turned_round(&flow));
            (is_cut != is_denied).then_some((flow, is_denied))
        }));
        if !look.listed.concerned.is_empty() {
            self.unfinished = Some(look);
            return;
        }
        let Look { listed: Listed { mut left, .. }, suspects, mut owned, changes } = look;
        let left_over = self.left_over.clone();
        owned.extend(index.endpoints().flat_map(|(_, it)| &it.addresses));
        left.retain(|flow| has_end(flow, |end| suspects.has(end) && !owned.contains(end)));
        if changes.is_empty() && left.is_empty() {
            return left_over.are_forgotten(&suspects, &owned);
        }
        self.running = Some(spawn_blocking(move || {
            Done::Changed(mark(&changes, bit).and_then(|counts| {
                forget(&left)?;
                left_over.are_forgotten(&suspects, &owned);
                Ok(counts)
            }))
        }));
    }
}

impl<R: Runner + Send + 'static> Agent<R> {
    pub(super) fn start_look_at_flows(&mut self) {
        if !self.flows.is_due() {
            return;
        }
        let gated = self.gated().unwrap_or_default();
        let mut addresses = Addresses { gated, ..Addresses::default() };
        for (_, endpoint) in self.index.endpoints() {
            addresses.owned.extend(&endpoint.addresses);
            if endpoint.is_isolated() {
                addresses.isolated.extend(&endpoint.addresses);
            }
        }
        self.flows.start(addresses);
    }

    pub(super) fn see_flows(&mut self, step: Done) {
        let result = match step {
            Done::Listed(Ok(look)) => return self.flows.change(look, &self.index),
            Done::Listed(Err(error)) => Err(error),
            Done::Changed(result) => result,
        };
        match result {
            Ok((0, 0)) => {}
            Ok((cut, healed)) => {
                tracing::info!(
                    cut,
                    healed,
                    "flows were cut that policies no longer allow, or go on that they allow again"
                );
                self.status.metrics.flows_cut.inc_by(u64::try_from(cut).unwrap_or(u64::MAX));
            }
            Err(error) => {
                let error = crate::chain(&error);
                tracing::error!(error, "flows cannot be cut; those that began before go on");
            }
        }
    }
}

/// The flow's first packet, as a node that forwards it sees it.
fn packet(flow: &Flow) -> Packet {
    question(flow.original.source, &flow.reply)
}

/// The same, if it is the answers that the kernel takes for what was sent.
fn turned_round(flow: &Flow) -> Packet {
    question(flow.reply.source, &flow.original)
}

/// The packet by which `source` asked for this answer.
fn question(source: IpAddr, answer: &Tuple) -> Packet {
    let transport = match (answer.protocol, answer.layer4) {
        (6, Layer4::Ports { source: port, .. }) => {
            Transport::Port { protocol: Protocol::Tcp, destination_port: port }
        }
        (17, Layer4::Ports { source: port, .. }) => {
            Transport::Port { protocol: Protocol::Udp, destination_port: port }
        }
        (132, Layer4::Ports { source: port, .. }) => {
            Transport::Port { protocol: Protocol::Sctp, destination_port: port }
        }
        (1 | 58, Layer4::Icmp { .. }) => Transport::Icmp,
        (number, _) => Transport::Other { number },
    };
    Packet { source, destination: answer.source, transport, from_node: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(number: u16) -> Flow {
        let [pod, other] = ["10.1.0.2", "192.0.2.1"].map(|it| it.parse().unwrap());
        let tuple = |source, destination, [from, to]: [u16; 2]| Tuple {
            source,
            destination,
            protocol: 17,
            layer4: Layer4::Ports { source: from, destination: to },
        };
        Flow {
            original: tuple(pod, other, [number, 53]),
            reply: tuple(other, pod, [53, number]),
            mark: 0,
            status: netlink::conntrack::Status(0),
            is_taken_up: false,
            id: 0,
            zone: 0,
        }
    }

    #[test]
    fn flows_are_judged_some_at_a_time_until_all_are() {
        let mut flows = Flows::new(0x400, LeftOver::default());
        let concerned: Vec<_> = (0..u16::MAX).map(flow).collect();
        let count = concerned.len();
        let suspects = flows.left_over.suspects(Vec::new());
        let listed = Listed { concerned, left: Vec::new() };
        let mut look = Some(Look { listed, suspects, owned: HashSet::new(), changes: Vec::new() });
        let mut steps = 0;
        while let Some(it) = look {
            let left = it.listed.concerned.len();
            flows.change(it, &Index::of("node-1", true));
            look = flows.unfinished.take();
            let now = look.as_ref().map_or(0, |it| it.listed.concerned.len());
            assert!(now < left && left - now <= MOST_AT_ONCE, "{left} {now}");
            steps += 1;
        }
        assert_eq!(steps, count.div_ceil(MOST_AT_ONCE));
    }
}
