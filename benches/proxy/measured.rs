//! One contestant over the objects that are there.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use lab::Node;
use lab::cluster::Cluster;
use measuring::{Memory, Series};

use crate::contestant::Contestant;
use crate::objects::{Size, address, probed, service, slice};
use crate::others::Others;
use crate::site::{OTHER, SERVER, Site, answered};

/// A connection that is not answered within this time is begun anew: its first packet came too early.
const SOON: Duration = Duration::from_millis(20);

/// What was measured of one.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) contestant: Contestant,
    pub(crate) size: Size,
    /// From its start until all that is asked for leads to its endpoint.
    pub(crate) first_sync: Duration,
    /// The longest that somebody else's transaction took meanwhile.
    pub(crate) others: Duration,
    /// From the API server's answer until a connection through it is answered.
    pub(crate) added: Series,
    pub(crate) changed: Series,
    pub(crate) memory: Memory,
    /// With all that was written last.
    pub(crate) site: Site,
}

/// Starts it on a node of its own, makes changes, and ends it; what it has written stays.
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
    let patience = contestant.patience();
    let others = Others::start(&site.node);
    let started = Instant::now();
    let daemon = contestant.start(&site, &kubeconfig);
    for number in probed(size) {
        wait(&site, address(number), b's', patience);
    }
    let first_sync = started.elapsed();
    let others = others.end();
    let (mut added, mut changed) = (Series::default(), Series::default());
    for round in 0..rounds {
        let number = size.services + round;
        cluster.apply(&service(number));
        cluster.apply(&slice(number, &[SERVER]));
        added.push(wait(&site, address(number), b's', patience));
        cluster.apply(&slice(number, &[OTHER]));
        changed.push(wait(&site, address(number), b'o', patience));
        cluster.delete(&service(number));
        cluster.delete(&slice(number, &[]));
    }
    let memory = Memory::of(daemon.id());
    Measured { contestant, size, first_sync, others, added, changed, memory, site }
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
