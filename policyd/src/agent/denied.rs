//! Telling what was denied, by the copies of packets that the rules have made (NFLOG).

use std::future::pending;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use netlink::nflog::{Log, Packet};
use netlink::{Event, Layer4, Tuple};
use tokio::time::sleep_until;

use super::bucket::TokenBucket;
use crate::index::Index;
use crate::iptables::{endpoint_chain_direction, endpoint_chain_name};
use crate::model::Direction;
use crate::words;
use cluster::Listener;

/// As many packets are told at once ...
const BURST: u32 = 50;
/// ... and then one in this time.
const INTERVAL: Duration = Duration::from_millis(200);
/// Another may receive the group, such as the policyd that this one replaces: it is asked for again.
const PAUSE: Duration = Duration::from_secs(5);
/// As many policies are named in one line; of more only the number is told.
const MOST_POLICIES: usize = 10;

/// Hears which packets were denied, and logs them.
#[derive(Debug)]
pub(super) struct Denied {
    /// The group that the rules log to; `None`: to none.
    group: Option<u16>,
    log: Option<Listener<Log>>,
    next_try: Instant,
    /// Whether it was told that the group cannot be received.
    is_told: bool,
    bucket: TokenBucket,
}

impl Denied {
    pub(super) fn new(group: Option<u16>) -> Self {
        let now = Instant::now();
        let bucket = TokenBucket::new(BURST, INTERVAL, now);
        Self { group, log: None, next_try: now, is_told: false, bucket }
    }

    /// Waits until packets were denied.
    pub(super) async fn heard(&mut self) -> Vec<Event<Packet>> {
        let Some(group) = self.group else { return pending().await };
        loop {
            match &mut self.log {
                Some(log) => return log.next(Log::receive).await,
                None => {
                    sleep_until(self.next_try.into()).await;
                    self.open(group);
                }
            }
        }
    }

    fn open(&mut self, group: u16) {
        self.next_try = Instant::now() + PAUSE;
        match Listener::new("what is denied", Log::open(group)) {
            Ok(log) => (self.log, self.is_told) = (Some(log), false),
            Err(error) if !self.is_told => {
                self.is_told = true;
                tracing::warn!(
                    error = crate::chain(&error),
                    "what is denied is not logged until this succeeds"
                );
            }
            Err(_) => {}
        }
    }

    /// Logs what was heard. Packets that rules of others log to the same group are not ours to tell.
    pub(super) fn tell(&mut self, events: Vec<Event<Packet>>, index: &Index, now: Instant) {
        for event in events {
            match event {
                Event::Heard(packet) => self.tell_of(&packet, index, now),
                Event::Missed => self.tell_missed(now),
            }
        }
    }

    fn tell_of(&mut self, packet: &Packet, index: &Index, now: Instant) {
        let Some(direction) = endpoint_chain_direction(&packet.prefix) else { return };
        let Some(suppressed) = self.bucket.take(now) else { return };
        if let Some(denial) = Denial::of(packet, direction, index) {
            denial.log(suppressed);
        }
    }

    fn tell_missed(&mut self, now: Instant) {
        if let Some(suppressed) = self.bucket.take(now) {
            tracing::warn!(
                suppressed,
                "the kernel copied more denied packets than it could tell of"
            );
        }
    }
}

/// What is told of a packet.
#[derive(Debug, PartialEq, Eq)]
struct Denial {
    /// The pod; where it has gone meanwhile, the address.
    pod: String,
    direction: Direction,
    peer: IpAddr,
    /// The pod that the peer is, if it is one.
    peer_pod: Option<String>,
    protocol: String,
    /// The destination's.
    port: Option<u16>,
    icmp_type: Option<u8>,
    /// The policies that isolate the pod.
    policies: String,
}

impl Denial {
    /// `None` when the copy does not tell the addresses.
    fn of(packet: &Packet, direction: Direction, index: &Index) -> Option<Self> {
        let tuple = Tuple::of_packet(&packet.payload)?;
        let (own, peer) = match direction {
            Direction::Ingress => (tuple.destination, tuple.source),
            Direction::Egress => (tuple.source, tuple.destination),
        };
        // The chain tells whose policies were asked, also when the address has passed on.
        let mut endpoints = index.endpoints();
        let endpoint =
            endpoints.find(|(key, _)| endpoint_chain_name(key, direction) == packet.prefix);
        let isolation = endpoint.and_then(|(_, it)| it.isolation(direction));
        let names = isolation.into_iter().flatten().map(|key| key.policy.name.as_str());
        let (port, icmp_type) = match tuple.layer4 {
            Layer4::Ports { destination, .. } => (Some(destination), None),
            Layer4::Icmp { kind, .. } => (None, Some(kind)),
            Layer4::Unknown => (None, None),
        };
        Some(Self {
            pod: endpoint.map_or_else(|| own.to_string(), |(_, it)| it.label.clone()),
            direction,
            peer,
            peer_pod: index.name_of(peer),
            protocol: protocol(tuple.protocol),
            port,
            icmp_type,
            policies: list(names),
        })
    }

    fn log(&self, suppressed: u64) {
        let Self { pod, direction, peer, peer_pod, protocol, port, icmp_type, policies } = self;
        tracing::info!(
            pod,
            direction = words::direction(*direction),
            %peer,
            peer_pod,
            protocol,
            port,
            icmp_type,
            policies,
            suppressed,
            "denied"
        );
    }
}

fn protocol(number: u8) -> String {
    match number {
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        58 => "ICMPv6".to_owned(),
        132 => "SCTP".to_owned(),
        number => number.to_string(),
    }
}

fn list<'a>(mut names: impl Iterator<Item = &'a str>) -> String {
    let mut list = names.by_ref().take(MOST_POLICIES).collect::<Vec<_>>().join(", ");
    match names.count() {
        0 => {}
        more => list.push_str(&format!(" and {more} more")),
    }
    list
}

#[cfg(test)]
mod tests;
