//! Connections from outside through a published port: as many as can be made, one after the other.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::contestant::Contestant;
use crate::lane::{Bench, Lane, Pod};
use crate::netns::Netns;
use crate::work::{POD_PORT, Work};

/// How long connections are made in a round.
const ROUND: Duration = Duration::from_millis(500);
/// The first packets of a link may be lost; TCP sends them again after a second.
const PATIENCE: Duration = Duration::from_secs(5);
/// The node's address, seen from outside.
const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const GREETING: &[u8] = b"h";
const END: &[u8] = b"q";

/// Connections a second, of rounds.
#[derive(Debug)]
pub(crate) struct Connections {
    pub(crate) work: Work,
    pub(crate) contestant: Contestant,
    pub(crate) per_second: Vec<f64>,
}

impl Connections {
    /// The median.
    pub(crate) fn median(&self) -> Option<f64> {
        measuring::median(&self.per_second)
    }
}

/// A machine beside a node.
#[derive(Debug)]
pub(crate) struct Outside(Netns);

impl Outside {
    /// Makes one, on a link of its own.
    pub(crate) fn of(lane: &Lane<'_>) -> Self {
        let netns = Netns::new();
        lane.enter();
        ip(&format!("link add outside type veth peer name eth0 netns {}", netns.path()));
        ip(&format!("address add {NODE}/24 dev outside"));
        ip("link set outside up");
        netns.enter();
        ip("address add 192.0.2.2/24 dev eth0");
        ip("link set eth0 up");
        Self(netns)
    }

    /// Goes, with the link.
    pub(crate) fn leave(self, lane: &Lane<'_>) {
        lane.enter();
        ip("link delete outside");
    }

    /// Panics unless the port of the node leads to the pod.
    pub(crate) fn must_reach(&self, pod: &Pod, port: u16) {
        let server = serve(pod);
        self.0.enter();
        finish(port, server);
    }

    /// Connections a second through the port to the pod.
    fn connect(&self, pod: &Pod, port: u16) -> f64 {
        let server = serve(pod);
        self.0.enter();
        // Not counted: it may have to wait for who is there.
        connect(port);
        let rate = measuring::connect((NODE, port).into(), ROUND).per_second();
        finish(port, server);
        rate
    }
}

/// Runs the works in turns, each through a port in the middle of all that are published.
pub(crate) fn run(bench: &Bench, works: &[Work], rounds: usize) -> Vec<Connections> {
    let mut sites = Vec::new();
    let mut measured = Vec::new();
    for work in works {
        for contestant in [Contestant::Go, Contestant::Podwire] {
            let mut pods = Vec::new();
            let lane = Lane::new(bench, contestant, *work, &mut pods);
            let outside = Outside::of(&lane);
            let publishing = pods.iter().filter(|pod| !pod.ports.is_empty()).count();
            let pod = pods.swap_remove(publishing / 2);
            let port = pod.ports.start + (pod.ports.end - pod.ports.start) / 2;
            sites.push((outside, pod, port, lane, pods));
            measured.push(Connections { work: *work, contestant, per_second: Vec::new() });
        }
    }
    let count = sites.len();
    for round in 0..rounds {
        for turn in 0..count {
            let place = (round + turn) % count;
            let (outside, pod, port, ..) = sites.get(place).expect("it is one of them");
            let rate = outside.connect(pod, *port);
            measured.get_mut(place).expect("there is one for each").per_second.push(rate);
        }
    }
    for (outside, pod, _, lane, pods) in sites {
        outside.leave(&lane);
        lane.must_be_as_at_first();
        drop((pod, pods));
    }
    bench.settle();
    measured
}

/// Greets who connects to the pod, one after the other, until one says that it is the end.
fn serve(pod: &Pod) -> JoinHandle<()> {
    pod.enter();
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, POD_PORT)).expect("a free port");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            // Who has gone does not hear it.
            let _ = stream.write_all(GREETING);
            let mut answer = [0];
            if stream.read(&mut answer).is_ok() && answer == END {
                return;
            }
        }
    })
}

/// A connection that was greeted.
fn connect(port: u16) -> TcpStream {
    let target = SocketAddr::from((NODE, port));
    let stream = TcpStream::connect_timeout(&target, PATIENCE);
    let mut stream = stream.unwrap_or_else(|error| panic!("port {port} leads nowhere: {error}"));
    stream.set_read_timeout(Some(PATIENCE)).expect("an option of sockets");
    stream.read_exact(&mut [0]).expect("a greeting");
    stream
}

fn finish(port: u16, server: JoinHandle<()>) {
    connect(port).write_all(END).expect("the server listens");
    server.join().expect("it ends when it is told to");
}

/// Calls `ip` in this thread's namespace.
fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.expect("iproute2 is needed");
    assert!(output.status.success(), "ip {arguments}: {output:?}");
}
