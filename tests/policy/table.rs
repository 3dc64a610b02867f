//! The truth table: who reaches whom by what, for all pairs, and what the oracle says of each.

use std::net::{IpAddr, SocketAddr};

use policyd::model::{self, Direction};
use policyd::{Packet, Transport, World, evaluate};
use serde_json::Value;

use crate::cluster::{Cluster, NODE, NODE_2, OUTSIDE, Wiring, X_R, Y_R, gated};
use crate::objects::world;
use crate::prober::Protocol::{self, Echo, Sctp, Tcp, Udp};
use crate::prober::{Probe, deviations};

/// What is sent: a protocol and a port.
pub(crate) type Kind = (Protocol, u16);

/// What every pair tries unless the scenario says otherwise.
pub(crate) const USUAL: &[Kind] =
    &[(Tcp, 80), (Tcp, 81), (Udp, 53), (Udp, 80), (Sctp, 80), (Echo, 0)];

/// As many deviations of one world are told.
const SHOWN: usize = 20;

/// One world: its name tells the row of the semantics that it is for.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// What is told besides the nine pods; an object of the same uid replaces one of theirs.
    pub(crate) objects: Vec<Value>,
    pub(crate) kinds: &'static [Kind],
}

pub(crate) fn row(name: &'static str, objects: impl Into<Vec<Value>>) -> Row {
    Row { name, objects: objects.into(), kinds: USUAL }
}

impl Row {
    pub(crate) fn by(mut self, kinds: &'static [Kind]) -> Self {
        self.kinds = kinds;
        self
    }
}

/// Plays the rows one after the other on one node; then everything is open again.
pub(crate) fn play(wiring: Wiring, rows: Vec<Row>) {
    let cluster = Cluster::nine(wiring, gated());
    play_on(cluster, rows);
}

pub(crate) fn play_on(mut cluster: Cluster, rows: Vec<Row>) {
    let mut wrong = Vec::new();
    for row in &rows {
        wrong.extend(cluster.play(row));
    }
    cluster.enforce();
    wrong.extend(cluster.compare(&[(Tcp, 80)]));
    assert!(wrong.is_empty(), "{} on {}:\n{}", wrong.len(), cluster.conf["type"], wrong.join("\n"));
    cluster.clean_up();
}

/// An end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct End {
    /// Whose namespace it is in.
    pub(crate) who: String,
    pub(crate) address: IpAddr,
    /// When a node sends by itself: its name.
    pub(crate) node: Option<&'static str>,
}

impl Cluster {
    /// Puts the kernel into the world of the row, and tells what is otherwise than the oracle says.
    /// The objects are as before after it, the kernel is not yet.
    pub(crate) fn play(&mut self, row: &Row) -> Vec<String> {
        let before = self.objects.clone();
        row.objects.iter().for_each(|object| self.tell(object));
        self.enforce();
        let wrong = self.compare(row.kinds);
        for object in &row.objects {
            match before.get(&crate::objects::uid(object)) {
                Some(former) => self.tell(former),
                None => self.forget(object),
            }
        }
        let shown = wrong.iter().take(SHOWN).map(|it| format!("{}: {it}", row.name));
        let more = wrong.len().checked_sub(SHOWN + 1).map(|it| format!("... and {} more", it + 1));
        shown.chain(more).collect()
    }

    /// Tells what is otherwise than the oracle says.
    pub(crate) fn compare(&self, kinds: &[Kind]) -> Vec<String> {
        let world = world(self.objects.values());
        let (near, far) = (self.pods_ends(), self.far_ends());
        let mut probes = Vec::new();
        for (one, two) in pairs(&near, &near).chain(pairs(&near, &far)).chain(pairs(&far, &near)) {
            for kind in kinds {
                probes.push((probe(one, two, *kind), is_allowed(&world, &packet(one, two, *kind))));
            }
        }
        deviations(self, &probes)
    }

    fn pods_ends(&self) -> Vec<End> {
        let ends = self.pods.iter().flat_map(|(name, member)| {
            let addresses = member.attachment.addresses.iter();
            addresses.map(|address| End { who: name.clone(), address: *address, node: None })
        });
        ends.collect()
    }

    fn far_ends(&self) -> Vec<End> {
        let end = |who: &str, address: &&str, node| End {
            who: who.to_owned(),
            address: address.parse().unwrap(),
            node,
        };
        let nodes = NODE.iter().map(|it| end("node", it, Some("node-1")));
        let others = NODE_2.iter().map(|it| end("other", it, Some("node-2")));
        let beyond = X_R.iter().chain(&Y_R).chain(&OUTSIDE).map(|it| end("other", it, None));
        nodes.chain(others).chain(beyond).collect()
    }
}

fn pairs<'a>(ones: &'a [End], twos: &'a [End]) -> impl Iterator<Item = (&'a End, &'a End)> {
    ones.iter().flat_map(move |one| {
        let same_family = move |two: &&End| two.address.is_ipv4() == one.address.is_ipv4();
        twos.iter().filter(same_family).filter(|two| two.who != one.who).map(move |two| (one, two))
    })
}

pub(crate) fn probe(one: &End, two: &End, (protocol, port): Kind) -> Probe {
    let to = SocketAddr::new(two.address, port);
    Probe { from: one.who.clone(), source: one.address, to, protocol }
}

pub(crate) fn packet(one: &End, two: &End, (protocol, port): Kind) -> Packet {
    let port = |protocol| Transport::Port { protocol, destination_port: port };
    Packet {
        source: one.address,
        destination: two.address,
        transport: match protocol {
            Tcp => port(model::Protocol::Tcp),
            Udp => port(model::Protocol::Udp),
            Sctp => port(model::Protocol::Sctp),
            Echo => Transport::Icmp,
        },
        from_node: one.node.map(str::to_owned),
    }
}

/// What the oracle says for the ends that are on this node; nobody enforces anything for others.
pub(crate) fn is_allowed(world: &World, packet: &Packet) -> bool {
    let verdict = evaluate(world, packet);
    [(Direction::Egress, packet.source), (Direction::Ingress, packet.destination)].iter().all(
        |(direction, address)| {
            let here = world.endpoints_at(*address).any(|it| it.node.as_deref() == Some("node-1"));
            !here || verdict.decision(*direction).is_allowed()
        },
    )
}
