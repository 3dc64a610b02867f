//! NetworkPolicies on real pods.

use std::thread::sleep;
use std::time::Duration;

use e2e::traffic::sockets;
use e2e::{Bed, objects};

/// Three failed probes in a row make a pod unready: that many seconds and some more.
const PROBES: Duration = Duration::from_secs(6);

/// As many pods try.
const SENDERS: u32 = 5;

pub(crate) fn a_policy_holds_and_probes_pass_it(bed: &Bed) {
    bed.namespace("policies");
    let client = bed.start(&objects::server("policies", "client"));
    let other = bed.start(&objects::server("policies", "other"));
    let server = bed.start(&objects::server("policies", "server"));
    bed.must_reach(&client, &server);
    bed.apply(&objects::deny("policies"));
    bed.must_not_reach(&client, &server);
    bed.must_not_reach(&other, &server);
    sleep(PROBES);
    for pod in [&client, &other, &server] {
        assert!(bed.is_ready(pod), "the kubelet's probes do not reach {}", pod.name);
    }
    bed.apply(&objects::allow("policies", "client", "server"));
    bed.must_reach(&client, &server);
    bed.must_not_reach(&other, &server);
    bed.must_not_reach(&server, &client);
    // A pod that comes later is held by the policy from its beginning.
    let late = bed.start(&objects::server("policies", "late"));
    bed.must_not_reach(&client, &late);
    bed.must_not_reach(&late, &server);
    bed.kubectl(&["delete", "networkpolicy", "-n", "policies", "--all"]);
    bed.must_reach(&other, &server);
    bed.remove_namespace("policies");
}

/// The first thing that the pod's program does is to connect.
pub(crate) fn a_pod_that_sends_at_once_gets_nothing_out(bed: &Bed) {
    bed.namespace("at-once");
    let server = bed.start(&objects::server("at-once", "server"));
    let other = bed.start(&objects::server("at-once", "other"));
    let target = sockets(&server).next().unwrap().to_string();
    let phases = |which: &str| -> Vec<String> {
        let name = |number: u32| format!("{which}-{number}");
        (0..SENDERS).for_each(|it| bed.apply(&objects::sender("at-once", &name(it), &target)));
        (0..SENDERS).map(|it| bed.await_end("at-once", &name(it))).collect()
    };
    assert!(phases("open").iter().all(|it| it == "Succeeded"));
    bed.apply(&objects::deny_egress("at-once"));
    bed.must_not_reach(&server, &other);
    assert!(phases("denied").iter().all(|it| it == "Failed"));
    bed.remove_namespace("at-once");
}

pub(crate) fn a_policy_holds_across_nodes(bed: &Bed) {
    bed.namespace("policies");
    let client = bed.start(&objects::server_on(2, "policies", "client"));
    let other = bed.start(&objects::server_on(2, "policies", "other"));
    let server = bed.start(&objects::server_on(3, "policies", "server"));
    bed.must_reach(&client, &server);
    bed.apply(&objects::deny("policies"));
    bed.must_not_reach(&client, &server);
    bed.apply(&objects::allow("policies", "client", "server"));
    bed.must_reach(&client, &server);
    bed.must_not_reach(&other, &server);
    assert!(bed.is_ready(&server), "the kubelet's probes do not reach the server");
    bed.remove_namespace("policies");
}
