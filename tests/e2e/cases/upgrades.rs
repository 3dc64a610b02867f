//! policyd's image is replaced by another one.

use e2e::traffic::{Attempts, datagram_sockets, who_by_datagram};
use e2e::{Bed, objects};
use serde_json::Value;

use super::restarts::readiness;

/// The name of the newer image.
const NEWER: &str = "podwire:newer";

pub(crate) fn an_upgrade_breaks_and_opens_nothing(bed: &Bed) {
    let last = bed.settings().nodes;
    bed.namespace("upgraded");
    let server = bed.start(&objects::server_on(last, "upgraded", "server"));
    let client = bed.start(&objects::server_on(1, "upgraded", "client"));
    let denied = [1, last].map(|number| {
        bed.start(&objects::server_on(number, "upgraded", &format!("denied-{number}")))
    });
    for (pod, socket) in
        denied.iter().flat_map(|it| datagram_sockets(&server).map(move |to| (it, to)))
    {
        // That is how it is seen below whether it is let in.
        bed.must_reach(pod, &server);
        bed.inside(pod, || who_by_datagram(socket)).unwrap();
    }
    bed.apply(&objects::deny("upgraded"));
    bed.apply(&objects::allow("upgraded", "client", "server"));
    denied.iter().for_each(|it| bed.must_not_reach(it, &server));
    bed.must_reach(&client, &server);

    let stays_ready = readiness(bed);
    let stream = bed.stream(&client, &server);
    let attempts = denied.each_ref().map(|it| bed.attempts(it, &server));
    let older = image(bed);
    change(bed, &older, NEWER);
    // One that comes while policyd has just been replaced is held by policy as well.
    let late = bed.start(&objects::server_on(last, "upgraded", "late"));
    bed.must_not_reach(&late, &server);
    bed.must_reach(&client, &server);
    change(bed, NEWER, &older);
    bed.must_reach(&client, &server);

    assert!(stream.end() > 10);
    attempts.into_iter().for_each(Attempts::were_denied);
    assert_eq!(readiness(bed), stays_ready, "a node was not ready for a moment");
    bed.remove_namespace("upgraded");
}

/// The name of the image that policyd runs by.
fn image(bed: &Bed) -> String {
    bed.policyd()["image"].as_str().unwrap().to_owned()
}

/// Gives policyd's image another name on each node, and has policyd run by that.
fn change(bed: &Bed, from: &str, to: &str) {
    for number in bed.settings().numbers() {
        let name = |it: &str| format!("docker.io/library/{it}");
        let line = format!("ctr -n k8s.io images tag --force {} {}", name(from), name(to));
        bed.on(number, &line);
    }
    let set = ["set", "image", "-n", "kube-system", "daemonset/policyd"];
    bed.kubectl(&[&set[..], &[&format!("*={to}")]].concat());
    bed.await_policyd();
    let pods = bed.get(&["pods", "-n", "kube-system", "-l", "app.kubernetes.io/name=policyd"]);
    let is_by_it = |pod: &Value| pod["spec"]["containers"][0]["image"] == to;
    let pods = pods["items"].as_array().unwrap();
    assert!(pods.len() == usize::from(bed.settings().nodes) && pods.iter().all(is_by_it));
}
