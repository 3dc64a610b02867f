//! Many pods come and go.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use e2e::traffic::who;
use e2e::{Bed, await_that, objects};

/// A crowd may take this long to come, or to go.
const CROWD: Duration = Duration::from_secs(420);

/// policyd hears of the last one a moment later.
const GONE: Duration = Duration::from_secs(60);

/// As many pods as a node takes beside those of the cluster itself.
const MANY: u32 = 100;

/// As many of them connect to somewhere.
const CALLERS: usize = 10;

pub(crate) fn thirty_pods_leave_nothing(bed: &Bed) {
    leaves_nothing(bed, 30);
}

pub(crate) fn a_hundred_pods_leave_nothing(bed: &Bed) {
    leaves_nothing(bed, MANY);
}

fn leaves_nothing(bed: &Bed, pods: u32) {
    await_that("the pods of other tests have gone", CROWD, || bed.leases(1) == bed.wired(1));
    let before = bed.of_pods(1);
    bed.namespace("crowd");
    bed.apply(&objects::deny("crowd"));
    let started = Instant::now();
    bed.apply(&objects::crowd("crowd", pods));
    await_that(&format!("{pods} pods are ready"), CROWD, || {
        let crowd = bed.get(&["deployment", "-n", "crowd", "crowd"]);
        crowd["status"]["readyReplicas"].as_u64() == Some(pods.into())
    });
    println!("{pods} pods were ready after {:.0} s", started.elapsed().as_secs_f64());
    assert!(bed.leases(1) >= pods as usize);
    assert_ne!(bed.of_pods(1), before);
    let addresses = connect(bed);
    let started = Instant::now();
    bed.kubectl(&["delete", "namespace", "crowd", "--wait=false"]);
    await_that("the crowd has gone", CROWD, || !bed.try_kubectl(&["get", "namespace", "crowd"]));
    await_that("no lease of the crowd is left", CROWD, || bed.leases(1) == bed.wired(1));
    println!("they were gone after {:.0} s", started.elapsed().as_secs_f64());
    // policyd hears that they are gone from the API server, a moment later.
    await_that("nothing of the crowd is left", CROWD, || bed.of_pods(1) == before);
    await_that("no connection of the crowd is left", GONE, || {
        bed.connections(1, |it| addresses.contains(it)).is_empty()
    });
}

/// Has some of the crowd connect to who is outside; the addresses of all.
fn connect(bed: &Bed) -> Vec<IpAddr> {
    bed.remember_connections(1);
    let world = bed.settings().family.ranges()[0].world.parse().unwrap();
    let world = SocketAddr::new(world, objects::PORT);
    let pods = bed.pods("crowd");
    for pod in pods.iter().take(CALLERS) {
        bed.inside(pod, || who(world)).unwrap();
        assert!(!bed.connections(1, |it| pod.addresses.contains(it)).is_empty());
    }
    pods.into_iter().flat_map(|it| it.addresses).collect()
}
