//! Many pods come and go.

use std::time::Duration;

use e2e::{Bed, await_that, objects};

/// A crowd may take this long to come, or to go.
const CROWD: Duration = Duration::from_secs(420);

/// As many pods as a node takes beside those of the cluster itself.
const PODS: u32 = 100;

pub(crate) fn a_crowd_leaves_nothing(bed: &Bed) {
    await_that("the pods of other tests have gone", CROWD, || bed.leases(1) == bed.wired(1));
    let before = bed.of_pods(1);
    bed.namespace("crowd");
    bed.apply(&objects::crowd("crowd", PODS));
    await_that(&format!("{PODS} pods are ready"), CROWD, || {
        let crowd = bed.get(&["deployment", "-n", "crowd", "crowd"]);
        crowd["status"]["readyReplicas"].as_u64() == Some(PODS.into())
    });
    assert!(bed.leases(1) >= PODS as usize);
    bed.kubectl(&["delete", "namespace", "crowd", "--wait=false"]);
    await_that("the crowd has gone", CROWD, || !bed.try_kubectl(&["get", "namespace", "crowd"]));
    await_that("no lease of the crowd is left", CROWD, || bed.leases(1) == bed.wired(1));
    assert_eq!(bed.of_pods(1), before, "something of the crowd is left");
}
