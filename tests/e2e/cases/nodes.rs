//! Nodes join and leave.

use std::time::Duration;

use e2e::{Bed, await_that, objects};
use testbed::settings::node_name;

/// policyd of the other nodes hears of it from the API server.
const TAKEN_UP: Duration = Duration::from_secs(60);

/// The controller manager may take this long to give a new node its ranges.
const RANGES: Duration = Duration::from_secs(120);

pub(crate) fn a_node_leaves_and_joins(bed: &Bed) {
    let last = bed.settings().nodes;
    let name = node_name(last);
    bed.namespace("joins");
    let client = bed.start(&objects::server_on(1, "joins", "client"));
    let server = bed.start(&objects::server_on(2, "joins", "server"));
    let gone = bed.start(&objects::server_on(last, "joins", "gone"));
    bed.must_reach(&client, &gone);
    let before = bed.ranges(last);
    assert!((1..last).all(|other| bed.has_routes(other, &before)));
    let stream = bed.stream(&client, &server);
    bed.switch_off(last);
    bed.kubectl(&["delete", "node", &name]);
    for other in 1..last {
        await_that(&format!("node {other} has no route to who left"), TAKEN_UP, || {
            bed.routes(other).iter().all(|it| !before.contains(it))
        });
    }
    bed.kubectl(&["delete", "pod", "-n", "joins", "gone", "--force", "--grace-period=0"]);
    bed.must_reach(&server, &client);
    bed.renew(last);
    bed.switch_on(last);
    let expected = bed.settings().family.ranges().len();
    await_that("who joined has ranges", RANGES, || bed.ranges(last).len() == expected);
    let now = bed.ranges(last);
    for other in 1..last {
        await_that(&format!("node {other} has routes to who joined"), TAKEN_UP, || {
            bed.has_routes(other, &now)
        });
    }
    assert!(stream.end() > 10);
    bed.await_policyd();
    let new = bed.start(&objects::server_on(last, "joins", "new"));
    assert!(new.addresses.iter().all(|it| now.iter().any(|range| range.contains(*it))));
    for pod in [&client, &server] {
        bed.must_reach(pod, &new);
        bed.must_reach(&new, pod);
    }
    bed.apply(&objects::deny("joins"));
    bed.apply(&objects::allow("joins", "client", "new"));
    bed.must_not_reach(&server, &new);
    bed.must_reach(&client, &new);
    bed.must_not_reach(&new, &server);
    bed.remove_namespace("joins");
}
