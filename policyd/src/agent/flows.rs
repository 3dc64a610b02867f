//! Cutting flows that were allowed when they began and are no longer.
//!
//! An established flow passes before any policy is asked. So after each commit the kernel's flows
//! are asked about again; one bit of a flow's mark then says that it is cut, and a rule ahead of
//! all others drops it, both ways. To delete the flow instead would not cut it: the kernel takes up
//! a flow in its middle, in whichever direction it sees first (`nf_conntrack_tcp_loose`), and an
//! answer is always allowed.

use std::collections::HashSet;
use std::future::pending;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use netlink::conntrack::Flow;
use netlink::{Error, Layer4};
use tokio::task::{JoinHandle, spawn_blocking};

use super::Agent;
use crate::dataplane::flows::{list, mark};
use crate::evaluate::{Packet, Transport};
use crate::iptables::Family;
use crate::model::Protocol;
use crate::plan::{self, Lookup};

/// Flows that began while the rules changed are found by a second look.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// Looks are at least so far apart, however often rules change: each reads the kernel's whole table.
const LEAST_PAUSE: Duration = Duration::from_millis(250);

/// What is being done to the flows, and what is to be done.
#[derive(Debug)]
pub(super) struct Flows {
    /// The bit that says that a flow is cut.
    bit: u32,
    due: Option<Instant>,
    /// When the last look began.
    looked: Option<Instant>,
    /// Whether the next look is followed by another.
    is_first: bool,
    running: Option<JoinHandle<Done>>,
}

/// A step of a look at the flows.
#[derive(Debug)]
pub(super) enum Done {
    /// Flows that policy may have something to say of.
    Listed(Result<Vec<Flow>, Error>),
    /// How many flows were cut, and how many are no longer.
    Marked(Result<(usize, usize), Error>),
}

impl Flows {
    pub(super) const fn new(bit: u32) -> Self {
        Self { bit, due: None, looked: None, is_first: false, running: None }
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

    /// Begins a look, when it is time. `isolated` are the addresses of endpoints that policies
    /// isolate.
    pub(super) fn start(&mut self, isolated: impl FnOnce() -> HashSet<IpAddr>) {
        if self.running.is_some() || self.due.is_none_or(|due| Instant::now() < due) {
            return;
        }
        self.looked = Some(Instant::now());
        self.due = self.is_first.then(|| Instant::now() + SECOND_LOOK);
        self.is_first = false;
        let (isolated, bit) = (isolated(), self.bit);
        let look = move || Done::Listed(list(&Family::ALL, bit, |end| isolated.contains(end)));
        self.running = Some(spawn_blocking(look));
    }

    /// The next step's end; for ever when nothing is done.
    pub(super) async fn finished(&mut self) -> Done {
        let Some(running) = &mut self.running else { return pending().await };
        match running.await {
            Ok(done) => {
                self.running = None;
                done
            }
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Marks those of the flows whose mark does not say what the plan says of them.
    pub(super) fn mark(&mut self, flows: Vec<Flow>, plan: &impl Lookup) {
        let bit = self.bit;
        let changes: Vec<_> = flows
            .into_iter()
            .filter_map(|flow| {
                let is_cut = flow.mark & bit != 0;
                let is_denied = !plan::allows(plan, &packet(&flow));
                (is_cut != is_denied).then_some((flow, is_denied))
            })
            .collect();
        if !changes.is_empty() {
            self.running = Some(spawn_blocking(move || Done::Marked(mark(&changes, bit))));
        }
    }
}

impl<R> Agent<R> {
    pub(super) fn start_look_at_flows(&mut self) {
        let endpoints = self.index.endpoints();
        let isolated = endpoints.filter(|(_, it)| it.ingress.is_some() || it.egress.is_some());
        let addresses = isolated.flat_map(|(_, it)| it.addresses.iter().copied());
        self.flows.start(|| addresses.collect());
    }

    pub(super) fn see_flows(&mut self, step: Done) {
        let result = match step {
            Done::Listed(Ok(flows)) => return self.flows.mark(flows, &self.index),
            Done::Listed(Err(error)) => Err(error),
            Done::Marked(result) => result,
        };
        match result {
            Ok((cut, healed)) => {
                tracing::info!(cut, healed, "flows that policies no longer allow are cut");
                self.status.metrics.flows_cut.inc_by(u64::try_from(cut).unwrap_or(u64::MAX));
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "flows cannot be cut; those that began before go on");
            }
        }
    }
}

/// The flow's first packet, as a node that forwards it sees it.
fn packet(flow: &Flow) -> Packet {
    let transport = match (flow.original.protocol, flow.reply.layer4, flow.original.layer4) {
        (6, Layer4::Ports { source: port, .. }, _) => {
            Transport::Port { protocol: Protocol::Tcp, destination_port: port }
        }
        (17, Layer4::Ports { source: port, .. }, _) => {
            Transport::Port { protocol: Protocol::Udp, destination_port: port }
        }
        (132, Layer4::Ports { source: port, .. }, _) => {
            Transport::Port { protocol: Protocol::Sctp, destination_port: port }
        }
        (1 | 58, _, Layer4::Icmp { .. }) => Transport::Icmp,
        (number, ..) => Transport::Other { number },
    };
    Packet {
        source: flow.original.source,
        destination: flow.reply.source,
        transport,
        from_node: None,
    }
}
