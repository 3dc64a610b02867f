//! What runs goes on while programs of the node come and go.

use std::time::Duration;

use e2e::{Bed, Pod, await_that, objects};
use serde_json::Value;

/// Programs and pods may take this long to come back.
pub(crate) const BACK: Duration = Duration::from_secs(150);

pub(crate) fn a_roll_of_policyd_breaks_nothing(bed: &Bed) {
    let (client, server) = isolated(bed, "rolled");
    let stays_ready = readiness(bed);
    let stream = bed.stream(&client, &server);
    let denied = bed.attempts(&server, &client);
    bed.kubectl(&["rollout", "restart", "-n", "kube-system", "daemonset/policyd"]);
    bed.await_policyd();
    // One that comes while policyd has just come back is wired and held by policy as well.
    let late = bed.start(&objects::server("rolled", "late"));
    bed.must_not_reach(&late, &server);
    bed.must_reach(&client, &server);
    assert!(stream.end() > 10);
    denied.were_denied();
    assert_eq!(readiness(bed), stays_ready, "a node was not ready for a moment");
    bed.remove_namespace("rolled");
}

pub(crate) fn a_killed_policyd_breaks_nothing(bed: &Bed) {
    let (client, server) = isolated(bed, "killed");
    let stays_ready = readiness(bed);
    let stream = bed.stream(&client, &server);
    let denied = bed.attempts(&server, &client);
    for _ in 0..2 {
        let pods = bed.get(&["pod", "-n", "kube-system", "-l", "app.kubernetes.io/name=policyd"]);
        let restarts = restarts(&pods);
        bed.on(1, "kill -9 $(ps -C policyd -o pid=)");
        await_that("policyd is started again", BACK, || {
            let now = ["pod", "-n", "kube-system", "-l", "app.kubernetes.io/name=policyd"];
            self::restarts(&bed.get(&now)) > restarts
        });
        bed.await_policyd();
    }
    assert!(stream.end() > 10);
    denied.were_denied();
    assert_eq!(readiness(bed), stays_ready, "a node was not ready for a moment");
    bed.must_reach(&client, &server);
    bed.remove_namespace("killed");
}

pub(crate) fn kubelet_and_containerd_come_back(bed: &Bed) {
    let (client, server) = isolated(bed, "restarts");
    let stream = bed.stream(&client, &server);
    for program in ["containerd", "kubelet"] {
        let before = bed.on(1, &format!("cat /run/testbed/{program}"));
        bed.on(1, &format!("kill -9 {before}"));
        await_that(&format!("{program} is started again"), BACK, || {
            bed.on(1, &format!("cat /run/testbed/{program}")) != before
        });
    }
    let late = bed.start(&objects::server("restarts", "late"));
    bed.must_not_reach(&late, &server);
    bed.must_reach(&client, &server);
    assert!(stream.end() > 10);
    bed.remove_namespace("restarts");
}

pub(crate) fn a_node_that_was_rebooted_takes_pods(bed: &Bed) {
    let number = bed.settings().nodes;
    bed.namespace("rebooted");
    let stays = bed.start(&objects::server_on(1, "rebooted", "stays"));
    let _gone = bed.start(&objects::server_on(number, "rebooted", "gone"));
    bed.reboot(number);
    bed.kubectl(&["delete", "pod", "-n", "rebooted", "gone", "--force", "--grace-period=0"]);
    bed.await_policyd();
    let new = bed.start(&objects::server_on(number, "rebooted", "new"));
    bed.must_reach(&stays, &new);
    bed.must_reach(&new, &stays);
    bed.remove_namespace("rebooted");
    await_that("only leases of pods that run are left", BACK, || {
        bed.leases(number) == bed.wired(number)
    });
}

/// A client and a server that only the client reaches.
fn isolated(bed: &Bed, namespace: &str) -> (Pod, Pod) {
    bed.namespace(namespace);
    let client = bed.start(&objects::server(namespace, "client"));
    let server = bed.start(&objects::server(namespace, "server"));
    bed.apply(&objects::deny(namespace));
    bed.apply(&objects::allow(namespace, "client", "server"));
    bed.must_not_reach(&server, &client);
    bed.must_reach(&client, &server);
    (client, server)
}

/// Since when each node is ready, or is not.
pub(crate) fn readiness(bed: &Bed) -> Vec<(String, String)> {
    let nodes = bed.get(&["nodes"]);
    let of = |node: &Value| {
        let conditions = node["status"]["conditions"].as_array().unwrap();
        let ready = conditions.iter().find(|it| it["type"] == "Ready").unwrap();
        (ready["status"].to_string(), ready["lastTransitionTime"].to_string())
    };
    nodes["items"].as_array().unwrap().iter().map(of).collect()
}

fn restarts(pods: &Value) -> u64 {
    let pods = pods["items"].as_array().unwrap().iter();
    pods.filter_map(|it| it["status"]["containerStatuses"][0]["restartCount"].as_u64()).sum()
}
