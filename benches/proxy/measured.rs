//! One contestant over the objects that are there.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use lab::Node;
use lab::cluster::Cluster;
use measuring::Series;

use crate::contestant::{Contestant, memory};
use crate::objects::{Size, address, probed, service, slice};
use crate::site::{OTHER, SERVER, Site, answered};

/// A connection that is not answered within this time is begun anew: its first packet came too early.
const SOON: Duration = Duration::from_millis(20);
/// What is there is answered within this time.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was measured of one.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    /// From its start until the first, the middle and the last service lead to their endpoint.
    pub(crate) first_sync: Series,
    /// From the API server's answer until a connection through it is answered.
    pub(crate) added: Series,
    pub(crate) changed: Series,
    /// In MB.
    pub(crate) memory: Option<f64>,
    /// A connection that is answered, one after the other.
    pub(crate) connection: Series,
}

pub(crate) fn run(
    contestant: Contestant,
    control: &Node,
    cluster: &Cluster<'_>,
    size: Size,
    place: u8,
    rounds: usize,
) -> Measured {
    let site = Site::new(control, place);
    let kubeconfig = cluster.kubeconfig_at("admin", site.control.into());
    let mut measured = Measured { name: contestant.name(), ..Measured::default() };
    let started = Instant::now();
    let daemon = contestant.start(&site, &kubeconfig);
    let patience = contestant.patience();
    for number in probed(size) {
        wait(&site, address(number), b's', patience);
    }
    measured.first_sync.push(started.elapsed());
    for round in 0..rounds {
        let number = size.services + round;
        cluster.apply(&service(number));
        cluster.apply(&slice(number, &[SERVER]));
        measured.added.push(wait(&site, address(number), b's', patience));
        cluster.apply(&slice(number, &[OTHER]));
        measured.changed.push(wait(&site, address(number), b'o', patience));
        cluster.delete(&service(number));
        cluster.delete(&slice(number, &[]));
    }
    let to = address(probed(size)[1]);
    let connections = rounds * 100;
    measured.connection = site.client.enter(|| {
        let mut series = Series::default();
        for _ in 0..connections {
            let begun = Instant::now();
            assert_eq!(answered(to, PATIENCE), Some(b's'), "a connection is lost");
            series.push(begun.elapsed());
        }
        series
    });
    measured.memory = Some(memory(&daemon));
    measured
}

/// Waits until somebody answers; how long that took.
fn wait(site: &Site, to: Ipv4Addr, name: u8, patience: Duration) -> Duration {
    let started = Instant::now();
    site.client.enter(|| {
        while answered(to, SOON) != Some(name) {
            assert!(started.elapsed() < patience, "{to} does not lead where it should");
            std::thread::sleep(Duration::from_micros(200));
        }
    });
    started.elapsed()
}
