//! What policies cost packets: between two pods of the node, both isolated.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::spawn;
use std::time::{Duration, Instant};

use lab::cluster::Cluster;
use measuring::Series;
use serde_json::json;

use crate::contestant::Contestant;
use crate::probe::Probe;
use crate::site::{CLIENT, SERVER, Site, peer_address};
use crate::world::{OUTSIDE, local_pod, namespace, node, open, peer, policy};

/// How long connections are made, and then one is used, in a round.
const ROUND: Duration = Duration::from_millis(700);
pub(crate) const PORT: u16 = 7000;

/// The figures of one lane at one number of policies.
#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) policies: usize,
    /// `None`: of a node without an agent.
    pub(crate) contestant: Option<Contestant>,
    /// Of rounds.
    pub(crate) connections_per_second: Vec<f64>,
    pub(crate) connect: Series,
    pub(crate) round_trip: Series,
}

impl Path {
    pub(crate) fn new(policies: usize, contestant: Option<Contestant>) -> Self {
        Self {
            policies,
            contestant,
            connections_per_second: Vec::new(),
            connect: Series::default(),
            round_trip: Series::default(),
        }
    }

    pub(crate) fn median_rate(&self) -> Option<f64> {
        measuring::median(&self.connections_per_second)
    }
}

/// The lanes: a site without agent, and one for each contestant.
pub(crate) fn run(
    cluster: &Cluster<'_>,
    sites: &[(Option<Contestant>, Site)],
    numbers: &[usize],
    rounds: usize,
) -> Vec<Path> {
    let labels = json!({"app": "a0"});
    cluster.create_all(&[
        node(),
        namespace("ns0", "t0"),
        namespace(OUTSIDE, "none"),
        peer(0),
        local_pod("server", SERVER, &labels),
        local_pod("client", CLIENT, &labels),
    ]);
    let running: Vec<_> = sites
        .iter()
        .filter_map(|(contestant, site)| {
            let kubeconfig = cluster.kubeconfig_at("admin", site.control.into());
            contestant.map(|contestant| contestant.start(site, &kubeconfig))
        })
        .collect();
    let mut paths = Vec::new();
    let mut made = 0;
    for number in numbers {
        let more: Vec<_> = (made..*number).map(|it| refusing(it, *number)).collect();
        made = *number;
        cluster.create_all(&more);
        if *number > 0 {
            cluster.apply(&allowing());
        }
        wait(cluster, sites, *number);
        let mut lanes: Vec<_> =
            sites.iter().map(|(contestant, _)| Path::new(*number, *contestant)).collect();
        for _ in 0..rounds {
            for (lane, (_, site)) in lanes.iter_mut().zip(sites) {
                round(lane, site);
            }
        }
        paths.extend(lanes);
    }
    running.into_iter().for_each(crate::contestant::Running::end);
    paths
}

/// A policy for both pods that lets through nothing of what is sent here.
fn refusing(number: usize, of: usize) -> serde_json::Value {
    let nobody = json!([{"podSelector": {"matchLabels": {"role": format!("nobody-{number}")}}}]);
    let ports = json!([{"port": 1000 + number}]);
    let spec = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": nobody, "ports": ports}], "egress": [{"to": nobody, "ports": ports}]});
    policy("ns0", &format!("refusing-{of}-{number}"), &spec)
}

fn allowing() -> serde_json::Value {
    let everybody = json!([{"podSelector": {}}]);
    let ports = json!([{"port": PORT}]);
    let spec = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": everybody, "ports": ports}], "egress": [{"to": everybody, "ports": ports}]});
    policy("ns0", "zz-allowing", &spec)
}

/// Waits until the agents enforce what there is, by one more policy that both have to see.
fn wait(cluster: &Cluster<'_>, sites: &[(Option<Contestant>, Site)], number: usize) {
    if number == 0 {
        return;
    }
    let port = 9000 + number as u16;
    cluster.apply(&open(&format!("mark-{number}"), port));
    for (contestant, site) in sites {
        let Some(contestant) = contestant else { continue };
        let what = format!("{} with {number} policies", contestant.name());
        Probe::start(site, peer_address(0), port).opens(&what, contestant.patience());
        let closed = Probe::start(site, peer_address(0), port + 1);
        closed.closes(&what, Duration::from_secs(1), contestant.patience());
    }
}

/// Makes connections for a while, and then uses one.
pub(crate) fn round(lane: &mut Path, site: &Site) {
    let target = SocketAddr::from((SERVER, PORT));
    let listener = site.server.enter(|| TcpListener::bind(target)).expect("a free port");
    let server = spawn(move || {
        // The last connection is used; those before only end.
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            stream.write_all(b"h").expect("the client waits for it");
            stream.set_nodelay(true).expect("an option of TCP");
            let mut byte = [0];
            while stream.read(&mut byte).is_ok_and(|length| length > 0) {
                if byte == *b"q" {
                    return;
                }
                if stream.write_all(&byte).is_err() {
                    break;
                }
            }
        }
    });
    let (made, trips) = site.client.enter(|| (measuring::connect(target, ROUND), use_one(target)));
    server.join().expect("it ends when it is told to");
    lane.connections_per_second.push(made.per_second());
    made.connects.into_iter().step_by(10).for_each(|it| lane.connect.push(it));
    trips.into_iter().step_by(10).for_each(|it| lane.round_trip.push(it));
}

fn use_one(target: SocketAddr) -> Vec<Duration> {
    let mut stream = TcpStream::connect(target).expect("what is allowed is let through");
    stream.set_nodelay(true).expect("an option of TCP");
    let started = Instant::now();
    stream.read_exact(&mut [0]).expect("a greeting");
    let mut trips = Vec::new();
    while started.elapsed() < ROUND {
        let begun = Instant::now();
        stream.write_all(b"x").and_then(|()| stream.read_exact(&mut [0])).expect("an echo");
        trips.push(begun.elapsed());
    }
    stream.write_all(b"q").expect("the server listens");
    trips
}
